"""The command line `comfycontrol`: a client of the package's facade, which needs the extra `cli`."""

import io
import sys

__all__ = ["main"]

_NEEDED = ("typer", "rich")


def main() -> None:
    """Run the command line and exit; without its libraries, say in one line how to get them."""
    try:
        import rich  # noqa: F401 # used by every command, so asked for before any of them begins
        import typer  # noqa: F401 # the same

        from comfycontrol_async.cli._app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        sys.exit(f"error: the command line needs {error.name}: pip install 'comfycontrol-async[cli]'")
    except KeyboardInterrupt:
        sys.exit(130)
    make_streams_tolerant()
    try:
        app(prog_name="comfycontrol")
    except OSError as error:  # of what typer prints: help, the version, completions; commands report their own
        from comfycontrol_async.cli._show import report_stdout

        report_stdout(error)
        sys.exit(1)


def make_streams_tolerant() -> None:
    """Let stdout and stderr escape characters that their encoding does not have, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

"""Options that several commands take, as typer reads them."""

import math
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from comfycontrol_async.cli._params import complete_file, complete_text


def finite(value: float | None) -> float | None:
    """Refuse infinity and NaN."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter("it must be finite")
    return value


# Columns below which a table of options would cut words off.
_NARROW = 60


class _PlainHelp:
    """Help without the types of Python behind flags and arguments, and without boxes where they do not fit."""

    rich_markup_mode: Any

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, those of typer's own options included."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc] # beside a command or group of typer
        for param in params:
            if getattr(param, "is_flag", False) and param.metavar is None:
                param.metavar = ""
            elif param.param_type_name == "argument":
                param.display_type_rich = lambda ctx: ""
                param.get_usage_pieces = lambda ctx, name=param.metavar: [name]
        return params

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help; a narrow terminal gets plain lines, of which no word is cut off."""
        columns, mode = shutil.get_terminal_size().columns, self.rich_markup_mode
        if columns < _NARROW:
            self.rich_markup_mode, formatter.width = None, max(columns - 1, 20)
        try:
            super().format_help(ctx, formatter)  # type: ignore[misc] # beside a command or group of typer
        finally:
            self.rich_markup_mode = mode


class Command(_PlainHelp, TyperCommand):
    """A command with plain help."""


class Group(_PlainHelp, TyperGroup):
    """A group of commands, likewise."""


def make_app(help: str, **options: Any) -> typer.Typer:
    """Make the table of commands of the program or of a group; its commands are added with `cls=Command`."""
    return typer.Typer(
        cls=Group,
        help=help,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,  # they show local variables, a token among them
        context_settings={"help_option_names": ["-h", "--help"]},
        **options,
    )


GraphFile = Annotated[
    Path, typer.Argument(help="A ComfyUI graph: JSON in API format, or a PNG made by ComfyUI.", metavar="FILE")
]
Id = Annotated[str, typer.Argument(help="The workflow's id.", metavar="ID")]
Ids = Annotated[list[str], typer.Argument(help="Ids of workflows.", metavar="ID...")]
Params = Annotated[
    list[str] | None,
    typer.Option(
        "-p",
        "--param",
        metavar="NAME=VALUE",
        help="A text or a choice of the graph; NAME=@FILE reads a text from a file.",
        autocompletion=complete_text,
    ),
]
Files = Annotated[
    list[str] | None,
    typer.Option("-f", "--file", metavar="NAME=PATH", help="A file of the graph.", autocompletion=complete_file),
]
Name = Annotated[str | None, typer.Option(metavar="NAME", help="The workflow's name; default: the file's.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="A tag that its runner must have.")]
Key = Annotated[
    str | None,
    typer.Option(metavar="KEY", help="Submit once: the same key again finds the workflow instead of making another."),
]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where the outputs go.")]
Timeout = Annotated[
    float | None,
    typer.Option(min=0, callback=finite, metavar="SECONDS", help="How long to wait; default: as long as it takes."),
]


def json_of(document: str) -> Any:
    """Make the option --json of a command that prints this document."""
    return typer.Option("--json", help=f"Print one JSON document: {document}.")


def ndjson_of(events: str) -> Any:
    """Make the option --ndjson of a command that prints these events."""
    return typer.Option("--ndjson", help=f"Print JSON events, one a line: {events}.")


# What `run`, `get` and `wait` print.
ENDED = "id, name, status, seconds, paths, and error where it failed"
EVENTS = (
    "status (id, status, queue_number), then ended (id, name, status, seconds, paths, and error where it failed), "
    "or error (id, error, message) where it cannot go on"
)


def form_of(as_json: bool, as_ndjson: bool) -> str:
    """Return which of text, json and ndjson is printed."""
    if as_json and as_ndjson:
        raise typer.BadParameter("give --json or --ndjson, not both")
    return "json" if as_json else "ndjson" if as_ndjson else "text"


def only_one(**given: object) -> None:
    """Refuse options that exclude each other."""
    names = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise typer.BadParameter(f"give {' or '.join(names)}, not both")

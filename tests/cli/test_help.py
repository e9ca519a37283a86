"""The help of every command."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from comfycontrol_async.cli._app import app
from support.command_line import call

COMMANDS = """
    demo run submit get wait cancel rerun ls show map journal check types serve whoami limits doctor runners managed
    templates
"""


def _walk(command: Any, names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield names
    for name, child in getattr(command, "commands", {}).items():
        yield from _walk(child, (*names, name))


ALL = list(_walk(typer.main.get_command(app), ()))


def test_commands() -> None:
    """The commands are those that are documented."""
    assert {names[0] for names in ALL if names} == set(COMMANDS.split())


@pytest.mark.parametrize(
    "words", [*((*names, "--help") for names in ALL), ("-h",), ("run", "-h"), ("runners", "show", "-h")], ids=" ".join
)
async def test_help(words: tuple[str, ...]) -> None:
    """Each explains itself, needs no token for it, and shows no type where a flag takes no value."""
    result = await call(None, *words)
    assert result.exit_code == 0
    assert "Usage: comfycontrol" in result.output
    flags = "\n".join(line for line in result.output.splitlines() if "--" in line)
    assert not any(kind in flags for kind in ("<bool>", " TEXT ", " FLOAT ", " INTEGER ", "BOOLEAN"))


async def test_exit_codes_are_documented() -> None:
    """The program's help names every exit code."""
    output = " ".join((await call(None, "--help")).output.split())
    for words in ("0 done", "1 any other error", "2 usage", "3 a workflow failed", "4 authentication", "5 rate limit"):
        assert words in output
    for words in ("6 timed out", "7 cannot connect", "130 interrupted"):
        assert words in output


SCRIPTS = {
    "bash": "complete -o default -F _comfycontrol_completion comfycontrol",
    "zsh": "#compdef comfycontrol",
    "fish": "complete --command comfycontrol",
}


@pytest.mark.parametrize(("shell", "line"), SCRIPTS.items(), ids=SCRIPTS)
async def test_completion(shell: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a completion script for each shell that may have started us."""
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, f"/bin/{shell}"))
    result = await call(None, "--show-completion")
    assert result.exit_code == 0, result.output
    assert line in result.output

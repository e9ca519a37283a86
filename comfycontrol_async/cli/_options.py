"""Options that several commands take, as typer reads them."""

import math
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


class _PlainFlags:
    """Leaves the type away behind flags that take no value, which typer would show as one."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, those of typer's own options included."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc] # beside a command or group of typer
        for param in params:
            if getattr(param, "is_flag", False) and param.metavar is None:
                param.metavar = ""
        return params


class Command(_PlainFlags, TyperCommand):
    """A command whose help has no placeholder behind its flags."""


class Group(_PlainFlags, TyperGroup):
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
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Ndjson = Annotated[bool, typer.Option("--ndjson", help="Print a stream of JSON events, one a line.")]


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

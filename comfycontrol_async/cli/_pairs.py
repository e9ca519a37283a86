"""The options `-p name=value` and `-f name=path`, read."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import typer


def read_params(texts: Sequence[str], files: Sequence[str]) -> dict[str, str | Path]:
    """Return a graph's parameters by name.

    Raises:
        typer.BadParameter: one is no pair, or a name is given twice.
    """
    found: dict[str, str | Path] = {}
    for option, name, value in (*_split("-p", texts), *_split("-f", files)):
        if name in found:
            raise typer.BadParameter(f"{name!r} is given twice")
        found[name] = value if option == "-p" else Path(value)
    return found


def _split(option: str, pairs: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{option} takes name={'value' if option == '-p' else 'path'}, not {pair!r}")
        yield option, name, value

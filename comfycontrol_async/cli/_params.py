"""The options `-p name=value` and `-f name=path`: read, and completed from the graph."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import typer

# Bytes of a file that `-p name=@file` reads; the API takes 50 MB with everything.
_LARGEST_TEXT = 10 * 1024**2


def read_params(texts: Sequence[str] | None, files: Sequence[str] | None) -> dict[str, str | Path]:
    """Return a graph's parameters by name. `-p name=@file` reads the text of a file, `-p name=@@x` gives "@x".

    Raises:
        typer.BadParameter: one is no pair, a name is given twice, or a file cannot be read.
    """
    found: dict[str, str | Path] = {}
    for option, name, value in (*_split("-p", texts or ()), *_split("-f", files or ())):
        if name in found:
            raise typer.BadParameter(f"{name!r} is given twice")
        found[name] = _read_text(name, value) if option == "-p" else Path(value)
    return found


def _split(option: str, pairs: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{option} takes name={'value' if option == '-p' else 'path'}, not {pair!r}")
        yield option, name, value


def _read_text(name: str, value: str) -> str:
    if not value.startswith("@"):
        return value
    if value.startswith("@@"):
        return value[1:]
    try:
        return read_text(Path(value[1:]), _LARGEST_TEXT).removesuffix("\n")
    except ValueError as error:
        raise typer.BadParameter(
            f"{name!r} cannot be read from {value[1:]!r}: {error}; a text that begins with @ is written @@"
        ) from None


def read_text(path: Path, largest: int) -> str:
    """Return the text of a file without a byte order mark; a device without an end is read up to `largest` bytes.

    Raises:
        ValueError: it cannot be read, is larger, or is not UTF-8 text.
    """
    try:
        with path.open("rb") as file:
            data = file.read(largest + 1)
    except OSError as error:
        raise ValueError(error.strerror or "it cannot be opened") from error
    if len(data) > largest:
        raise ValueError(f"it is larger than {largest // 1024} kB")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8 text") from error


def read_headers(pairs: Sequence[str] | None, option: str = "--header") -> dict[str, str] | None:
    """Read options of the form `'Name: value'`; None when there is none.

    Raises:
        typer.BadParameter: one has no colon, or a name is given twice.
    """
    found: dict[str, str] = {}
    for pair in pairs or ():
        name, colon, value = pair.partition(":")
        if not colon or not name.strip():
            raise typer.BadParameter(f"{option} takes 'Name: value'")  # never quoted: it may be a secret
        if name.strip().lower() in map(str.lower, found):
            raise typer.BadParameter(f"{option}: {name.strip()!r} is given twice")
        found[name.strip()] = value.strip()
    return found or None


def complete_text(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Complete `-p`: the names of the graph's texts and choices, and the options of a choice."""
    return list(_completions(context, incomplete, ("text", "choice")))


def complete_file(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Complete `-f`: the names of the graph's files."""
    return list(_completions(context, incomplete, ("file",)))


def _completions(context: typer.Context, incomplete: str, kinds: Sequence[str]) -> Iterator[tuple[str, str]]:
    from comfycontrol_async import ComfyControlError, Graph

    # Where the line ends in `-p`, click gives up and leaves the arguments before it unread.
    file = context.params.get("file") or next(iter(context.args), None)
    try:
        parameters = Graph.load(str(file)).parameters if file else ()
    except ComfyControlError:  # a shell that completes has no place for an error
        return
    for parameter in parameters:
        if parameter.kind not in kinds:
            continue
        about = f"{parameter.kind} at {parameter.places[0]}" if parameter.places else parameter.kind
        options = [f"{parameter.name}={choice}" for choice in parameter.choices] or [f"{parameter.name}="]
        if parameter.choices and not incomplete.startswith(f"{parameter.name}="):
            options = [f"{parameter.name}="]
        yield from ((option, about) for option in options if option.startswith(incomplete))

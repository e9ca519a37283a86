"""Rows: whatever a batch is given, walked lazily, and one row of any kind as a dict of its columns."""

import asyncio
import dataclasses
import os
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from itertools import islice
from pathlib import Path
from typing import Any

import attrs

from comfycontrol_async.batch._tables import TableRow, read_table, reader_of
from comfycontrol_async.errors import InvalidArgumentError
from comfycontrol_async.graph._issues import shown

# What a function or type of the caller's may raise without any of it being ours: the last two are no Exception, but say
# nothing of the task that called it.
STRAY = (Exception, asyncio.CancelledError, GeneratorExit)

# A row is a mapping, or an object with named fields; a path names a table.
Row = Any
Rows = Iterable[Row] | AsyncIterable[Row] | str | os.PathLike[str]

# Rows of a table that are read in one go.
_AT_ONCE = 100
# Data frames can be iterated, but not by row: how each gives its rows.
_FRAMES = {
    "iter_rows": "rows.iter_rows(named=True)",
    "to_pylist": "rows.to_pylist()",
    "itertuples": 'rows.to_dict("records")',
}


def table_of(rows: Rows) -> Path | None:
    """Return the path of the table that is given as rows, None when rows are something else.

    Raises:
        InvalidArgumentError: they can be no rows.
    """
    if isinstance(rows, (str, os.PathLike)):
        path = Path(rows)
        reader_of(path)
        return path
    for method, advice in _FRAMES.items():
        if hasattr(rows, method):
            raise InvalidArgumentError(
                f"rows must be one row after another, not a {type(rows).__name__}: pass {advice}"
            )
    single = isinstance(rows, (bytes, Mapping)) or hasattr(type(rows), "model_fields")
    if single or not isinstance(rows, (Iterable, AsyncIterable)):
        raise InvalidArgumentError(
            "rows must be an iterable of mappings or objects, or the path of a table, "
            f"not {type(rows).__name__}{': put it into a list' if single else ''}"
        )
    return None


async def walk(rows: Rows) -> AsyncGenerator[Row, None]:
    """Walk rows lazily; those of a table are read in a thread, and may be `FaultyRow`."""
    if isinstance(rows, (str, os.PathLike)):
        async with aclosing(_walk_table(Path(rows))) as table:
            async for line in table:
                yield line
    elif isinstance(rows, AsyncIterable):
        async for row in rows:
            yield _own(row)
    else:
        kept = isinstance(rows, Sequence)
        for row in _each(rows):
            yield row if kept else _own(row)


def _own(row: Row) -> Row:
    """Return a row as it is now: a source that makes its rows on the way may use one dict for all of them."""
    return dict(row) if type(row) is dict else row


def _each(rows: Iterable[Row]) -> Iterator[Row]:
    """Walk rows; a GeneratorExit of theirs must not look like their end.

    Raises:
        InvalidArgumentError: they raised one.
    """
    iterator = iter(rows)
    while True:
        try:
            row = next(iterator)
        except StopIteration:
            return
        except GeneratorExit as error:
            raise InvalidArgumentError("the rows ended early: they raised GeneratorExit") from error
        yield row


async def _walk_table(path: Path) -> AsyncGenerator[TableRow, None]:
    table = read_table(path)
    reading: asyncio.Future[tuple[list[TableRow], Exception | None]] | None = None
    try:
        while True:
            reading = asyncio.ensure_future(asyncio.to_thread(_read_some, table))
            found, error = await asyncio.shield(reading)
            for row in found:
                yield row
            if error is not None:
                raise error
            if not found:
                return
    finally:
        if reading is not None and not reading.done():
            await asyncio.wait([reading])  # a generator cannot be closed while a thread runs it
        table.close()  # type: ignore[attr-defined] # it is a generator, which closes its file


def _read_some(table: Iterator[TableRow]) -> tuple[list[TableRow], Exception | None]:
    """Read some rows and the error that came after them, so that those before it are not lost."""
    found: list[TableRow] = []
    try:
        found.extend(islice(table, _AT_ONCE))  # what was read stays in the list when reading fails
    except Exception as error:
        return found, error
    return found, None


def count_rows(path: Path) -> int | None:
    """Count the rows of a table, None when it cannot be read to its end; blocking."""
    try:
        return sum(1 for _ in read_table(path))
    except Exception:  # the reader of the rows says what is wrong
        return None


def columns_of(row: Row) -> dict[str, Any]:
    """Return the columns of one row.

    Raises:
        InvalidArgumentError: it has no named columns, or they cannot be read.
    """
    try:
        columns = _columns_of(row)
    except STRAY as error:  # a caller's own type may do anything
        raise InvalidArgumentError(f"a row of type {type(row).__name__} cannot be read: {shown(error)}") from error
    if columns is None:
        raise InvalidArgumentError(
            f"a row must map column names to values or have named fields, but this is {shown(row)}"
        )
    return {name: _unboxed(value) for name, value in columns.items()}


def _unboxed(value: Any) -> Any:
    """Return a value of an Arrow table, which stands in a box of its own, as Python has it; any other as it is."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    try:
        return value.as_py() if hasattr(value, "as_py") else value
    except STRAY:  # a caller's own type, or a time beyond Python's
        return value


def _columns_of(row: Any) -> dict[str, Any] | None:
    kind = type(row)
    if isinstance(row, Mapping):
        return dict(row)
    if attrs.has(kind):
        return {field.name: getattr(row, field.name) for field in attrs.fields(kind)}
    if dataclasses.is_dataclass(kind):
        return {field.name: getattr(row, field.name) for field in dataclasses.fields(kind)}
    if hasattr(kind, "model_fields"):  # pydantic
        return dict(row)
    if hasattr(kind, "_asdict"):  # a named tuple
        return dict(row._asdict())
    names = getattr(getattr(row, "dtype", None), "names", None)  # a row of a structured numpy array
    if names is None and hasattr(kind, "keys") and hasattr(kind, "__getitem__"):  # sqlite3.Row, a pandas Series, ...
        names = row.keys()
    return None if names is None else {name: row[name] for name in names}


def left_out(value: object) -> bool:
    """Tell whether a value says that there is none: None, NaN, NaT, or the NA of pandas."""
    if value is None or isinstance(value, (str, bytes, int)):
        return value is None
    try:
        return bool(value != value)  # NaN and NaT alone differ from themselves
    except TypeError:
        return type(value).__name__ == "NAType"
    except Exception:  # an array, or a caller's own type
        return False

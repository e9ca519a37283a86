"""Tables: rows of a .csv, .tsv, .jsonl or .parquet file, one at a time; blocking, so read them in a thread.

A fault of one line is that row's (`FaultyRow`); one after which no line can be trusted ends the table.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

from comfycontrol_async.errors import ConfigurationError, InvalidArgumentError
from comfycontrol_async.graph._issues import shown

# Parquet rows that are held at once.
_PARQUET_ROWS = 500
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_DELIMITERS = ",;\t|"
# Excel reads a first line `sep=;` as the delimiter of those that follow.
_SAID_DELIMITER = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
# In no name of a column, but in every workbook, archive or text of two bytes a letter.
_BINARY = re.compile(r"[\x00-\x08\x0e-\x1f]")


@attrs.frozen(eq=False, repr=False)
class FaultyRow:
    """A line of a table that is no row: what could be read of it, and what is wrong."""

    row: dict[str, Any]
    message: str


TableRow = dict[str, Any] | FaultyRow
Reader = Callable[[Path], Iterator[TableRow]]


def reader_of(path: Path) -> Reader:
    """Return what reads a table, chosen by its suffix.

    Raises:
        InvalidArgumentError: no table has this suffix.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InvalidArgumentError(
            f"rows must be an iterable of mappings, or a path that ends in {', '.join(_READERS)}, not {str(path)!r}"
        )
    return reader


def read_table(path: Path) -> Iterator[TableRow]:
    """Yield the rows of a table; empty cells and nulls are None.

    Raises:
        InvalidArgumentError: it cannot be read, is empty, or is not what its suffix says.
        ConfigurationError: it needs a package that is not installed.
    """
    try:
        yield from reader_of(path)(path)
    except UnicodeError as error:
        raise InvalidArgumentError(f"the table {str(path)!r} is not UTF-8 text ({error}): save it as UTF-8") from error
    except OSError as error:
        raise InvalidArgumentError(f"the table {str(path)!r} cannot be read: {error.strerror or error}") from error


def _read_csv(path: Path) -> Iterator[TableRow]:
    import csv

    encoding = "utf-16" if _is_utf_16(path) else "utf-8-sig"
    with path.open(encoding=encoding, newline="") as text:
        first = next(filter(str.strip, text), "")
    said = _SAID_DELIMITER.fullmatch(first.strip("\r\n"))
    delimiter = "\t" if path.suffix.lower() == ".tsv" else said[1] if said else _delimiter_of(first)
    with path.open(encoding=encoding, newline="") as text:
        if said:
            next(filter(str.strip, text))
        # strict: a quote that is never closed is an error, not one cell that holds the rest of the file.
        lines = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            header: list[str] | None = None
            for cells in lines:
                if header is not None and cells:
                    yield _csv_row(header, cells, lines.line_num)
                elif cells:
                    header = _header_of(path, cells)
            if header is None:
                raise _empty(path, "its first line must name the columns")
        except csv.Error as error:
            raise InvalidArgumentError(f"the table {str(path)!r}, line {lines.line_num}: {error}") from error


def _is_utf_16(path: Path) -> bool:
    """Tell whether a text begins as Excel and PowerShell write UTF-16."""
    with path.open("rb") as file:
        return file.read(2) in _UTF_16


def _delimiter_of(line: str) -> str:
    """Return the delimiter that makes most columns of the first line; spreadsheets of many countries write `;`."""
    import csv

    return max(_DELIMITERS, key=lambda delimiter: len(next(csv.reader([line], delimiter=delimiter), [])))


def _header_of(path: Path, cells: list[str]) -> list[str]:
    # A table that pandas wrote with its index has one column without a name.
    header = [cell.strip() or f"column {number}" for number, cell in enumerate(cells, 1)]
    if any(_BINARY.search(name) for name in header):
        raise InvalidArgumentError(f"the table {str(path)!r} is no text table: save it as CSV, in UTF-8")
    _check_names(path, header)
    return header


def _check_names(path: Path, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InvalidArgumentError(f"the table {str(path)!r} has two columns {shown(name)}: rename one")


def _csv_row(header: list[str], cells: list[str], line: int) -> TableRow:
    # Spreadsheets leave out empty cells at the end of a line.
    values = [cell or None for cell in cells] + [None] * (len(header) - len(cells))
    row = dict(zip(header, values, strict=False))
    if any(cells[len(header) :]):
        return FaultyRow(
            row,
            f"line {line} has {len(cells)} cells, but the table has {len(header)} columns: "
            "put quotes around a cell that holds the delimiter",
        )
    return row


def _read_jsonl(path: Path) -> Iterator[TableRow]:
    number = 0
    with path.open("rb") as file:
        # By bytes: a line that is no UTF-8 is that row's fault alone.
        lines = _utf_16_lines(path) if _is_utf_16(path) else file
        for line, data in enumerate(lines, 1):
            text = data.removeprefix(b"\xef\xbb\xbf") if line == 1 else data
            if text.strip():
                number += 1
                yield _json_row(text, line)
    if not number:
        raise _empty(path, "each line must hold a JSON object")


def _utf_16_lines(path: Path) -> Iterator[bytes]:
    with path.open(encoding="utf-16", newline="\n") as text:
        for line in text:
            yield line.encode("utf-8", "surrogatepass")


def _json_row(text: bytes, line: int) -> TableRow:
    try:
        row = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        return FaultyRow({}, f"line {line} is not JSON: {error}")
    if not isinstance(row, dict):
        return FaultyRow({}, f"line {line} holds a {type(row).__name__}, not a JSON object")
    return row


def _read_parquet(path: Path) -> Iterator[TableRow]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigurationError("a .parquet table needs pyarrow: pip install 'comfycontrol-async[tables]'") from error
    if not path.stat().st_size:
        raise _empty(path, "it must be a Parquet file")
    try:
        with parquet.ParquetFile(path) as file:
            _check_names(path, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:  # the last two of a time beyond Python's
        raise InvalidArgumentError(f"the table {str(path)!r} cannot be read as Parquet: {error}") from error


def _empty(path: Path, advice: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"the table {str(path)!r} is empty: {advice}")


_READERS: dict[str, Reader] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}

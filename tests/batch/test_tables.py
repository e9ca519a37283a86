"""Tables on the disk: what each form of file gives, and what is wrong with one that is none."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from comfycontrol_async import ConfigurationError, InvalidArgumentError
from comfycontrol_async.batch._rows import count_rows, walk
from comfycontrol_async.batch._tables import FaultyRow, read_table

CAT = {"id": "1", "prompt": "a cat"}
DOG = {"id": "2", "prompt": "a dog"}

GOOD: dict[str, tuple[str, bytes, list[dict[str, Any]]]] = {
    "csv": ("rows.csv", b"id,prompt\n1,a cat\n2,a dog\n", [CAT, DOG]),
    "no-end": ("rows.csv", b"id,prompt\n1,a cat", [CAT]),
    "bom": ("rows.csv", b"\xef\xbb\xbfid,prompt\n1,a cat\n", [CAT]),
    "utf-16": ("rows.csv", "id,prompt\n1,a cat\n".encode("utf-16"), [CAT]),
    "windows": ("rows.csv", b"id,prompt\r\n1,a cat\r\n\r\n", [CAT]),
    "semicolon": ("rows.csv", b"id;prompt\n1;a cat\n", [CAT]),
    "semicolon-and-comma": ("rows.csv", b"id;prompt\n1;cat, dog\n", [{"id": "1", "prompt": "cat, dog"}]),
    "tab-in-csv": ("rows.csv", b"id\tprompt\n1\ta cat\n", [CAT]),
    "one-column": ("rows.csv", b"prompt\na cat\n", [{"prompt": "a cat"}]),
    "quoted": ("rows.csv", b'"id","prompt"\n"1","a ""cat"", or\ntwo"\n', [{"id": "1", "prompt": 'a "cat", or\ntwo'}]),
    "empty-cell": ("rows.csv", b'id,prompt\n1,\n2,""\n', [{"id": "1", "prompt": None}, {"id": "2", "prompt": None}]),
    "short-line": ("rows.csv", b"id,prompt\n1\n", [{"id": "1", "prompt": None}]),
    "end-delimiter": ("rows.csv", b"id,prompt\n1,a cat,\n", [CAT]),
    "spaces-in-header": ("rows.csv", b"id , prompt\n1,a cat\n", [CAT]),
    "index-of-pandas": ("rows.csv", b",prompt\n0,a cat\n", [{"column 1": "0", "prompt": "a cat"}]),
    "header-only": ("rows.csv", b"id,prompt\n", []),
    "umlauts": ("rows.csv", "id,prompt\n1,Käse 猫\n".encode(), [{"id": "1", "prompt": "Käse 猫"}]),
    "tsv": ("rows.tsv", b"id\tprompt\n1\ta cat\n", [CAT]),
    "tsv-with-commas": ("ROWS.TSV", b"id\tprompt\n1\ta,b\n", [{"id": "1", "prompt": "a,b"}]),
    "jsonl": ("rows.jsonl", b'{"a": 1, "b": null}\n\n{"a": 1.5}\n', [{"a": 1, "b": None}, {"a": 1.5}]),
    "empty-lines-first": ("rows.csv", b"\r\n\r\nid;prompt\r\n1;a cat\r\n", [CAT]),
    "delimiter-of-excel": ("rows.csv", b"sep=|\r\nid|prompt\r\n1|a cat\r\n", [CAT]),
    "jsonl-utf-16": ("rows.jsonl", '{"a": "ä"}\r\n{"a": 2}\r\n'.encode("utf-16"), [{"a": "ä"}, {"a": 2}]),
    "jsonl-bom": ("rows.jsonl", b'\xef\xbb\xbf{"a": "\xc3\xa4"}', [{"a": "ä"}]),
    "jsonl-nested": ("rows.jsonl", b'{"a": {"b": [1]}}\n', [{"a": {"b": [1]}}]),
}

# What is wrong with one line; the lines around it are read.
FAULTY: dict[str, tuple[str, bytes, str]] = {
    "cell-too-many": ("rows.csv", b"id,prompt\n0,x\n1,a cat, or two\n2,y\n", "line 3 has 3 cells, but the table has 2"),
    "no-json": ("rows.jsonl", b'{"a": 0}\n{"a": 1\n{"a": 2}\n', "line 2 is not JSON"),
    "list": ("rows.jsonl", b'{"a": 0}\n[1]\n{"a": 2}\n', "line 2 holds a list"),
    "no-utf-8": ("rows.jsonl", b'{"a": 0}\n{"a": "\xe4"}\n{"a": 2}\n', "line 2 is not JSON"),
    "deep": ("rows.jsonl", b'{"a": 0}\n' + b"[" * 100_000 + b'\n{"a": 2}\n', "line 2 is not JSON"),
    "long-number": ("rows.jsonl", b'{"a": 0}\n{"a": ' + b"9" * 5000 + b'}\n{"a": 2}\n', "line 2 is not JSON"),
}

# What ends the table, and how many rows were read before.
BAD: dict[str, tuple[str, bytes, str, int]] = {
    "empty": ("rows.csv", b"", "is empty: its first line must name the columns", 0),
    "empty-lines": ("rows.csv", b"\n\n", "is empty", 0),
    "empty-jsonl": ("rows.jsonl", b" \n", "is empty: each line must hold a JSON object", 0),
    "empty-parquet": ("rows.parquet", b"", "is empty", 0),
    "cut-in-a-quote": ("rows.csv", b'id,prompt\n1,a cat\n2,"a d', "line 3", 1),
    "quote-within": ("rows.csv", b'id,prompt\n1,a cat\n2,"a"x\n', "line 3", 1),
    "latin-1": ("rows.csv", b"id,prompt\n1,K\xe4se\n", "is not UTF-8 text", 0),
    "same-name-twice": ("rows.csv", b"id,id\n1,2\n", "two columns 'id'", 0),
    "workbook": ("rows.csv", b"PK\x03\x04\x14\x00\x06\x00", "is no text table", 0),
    "utf-16-without-mark": ("rows.csv", "id,prompt\n1,a\n".encode("utf-16-le"), "is no text table", 0),
    "no-parquet": ("rows.parquet", b"id,prompt\n" * 100, "cannot be read as Parquet", 0),
    "cut-parquet": ("rows.parquet", b"PAR1" + b"x" * 1000, "cannot be read as Parquet", 0),
}


def written(folder: Path, name: str, data: bytes) -> Path:
    """Write a table."""
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", GOOD)
def test_good(tmp_path: Path, kind: str) -> None:
    """Each form gives the rows that it holds; empty cells are None."""
    name, data, rows = GOOD[kind]
    path = written(tmp_path, name, data)
    assert list(read_table(path)) == rows
    assert count_rows(path) == len(rows)


@pytest.mark.parametrize("kind", FAULTY)
def test_faulty_line(tmp_path: Path, kind: str) -> None:
    """A line that is no row is told with its number, and the others are read."""
    name, data, text = FAULTY[kind]
    before, faulty, after = read_table(written(tmp_path, name, data))
    assert isinstance(faulty, FaultyRow)
    assert text in faulty.message
    assert isinstance(before, dict)
    assert isinstance(after, dict)


@pytest.mark.parametrize("kind", BAD)
async def test_bad(tmp_path: Path, kind: str) -> None:
    """What is no such table is one error that names the file, after the rows that were read before."""
    name, data, text, before = BAD[kind]
    path = written(tmp_path, name, data)
    rows = walk(path)
    for _ in range(before):
        await anext(rows)
    with pytest.raises(InvalidArgumentError, match=text) as caught:
        await anext(rows)
    assert str(path) in str(caught.value)
    assert count_rows(path) is None


def test_parquet(tmp_path: Path) -> None:
    """A Parquet file gives plain values, more rows than are held at once, and nulls as None."""
    import pyarrow  # only where it is used: each worker of the suite collects this file
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    table = pyarrow.table({"seed": range(1234), "prompt": [None, *("x" * 1233)], "share": [float("nan")] * 1234})
    parquet.write_table(table, path)
    rows = list(read_table(path))
    assert [row["seed"] for row in rows if isinstance(row, dict)] == list(range(1234))
    assert rows[0] != rows[1] == {"seed": 1, "prompt": "x", "share": pytest.approx(float("nan"), nan_ok=True)}


def test_odd_parquet(tmp_path: Path) -> None:
    """Two columns of one name, and a time that Python cannot hold, are one error that names the file."""
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table([[1], [2]], names=["a", "a"]), path)
    with pytest.raises(InvalidArgumentError, match="two columns 'a'"):
        list(read_table(path))
    parquet.write_table(pyarrow.table({"a": pyarrow.array([10**18], pyarrow.timestamp("us"))}), path)
    with pytest.raises(InvalidArgumentError, match=r"rows\.parquet"):
        list(read_table(path))


@pytest.mark.parametrize("name", ["absent.csv", "absent.jsonl", "absent.parquet"])
def test_absent(tmp_path: Path, name: str) -> None:
    """A table that is not there is named."""
    with pytest.raises(InvalidArgumentError, match=f"{name}' cannot be read: No such file"):
        next(read_table(tmp_path / name))


def test_directory(tmp_path: Path) -> None:
    """A directory with the name of a table is none."""
    (tmp_path / "rows.csv").mkdir()
    with pytest.raises(InvalidArgumentError, match=r"cannot be read: Is a directory"):
        next(read_table(tmp_path / "rows.csv"))


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pyarrow a Parquet file says what to install, and other tables need nothing."""
    pyarrow = importlib.import_module("pyarrow")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'comfycontrol-async\[tables\]'"):
        next(read_table(written(tmp_path, "rows.parquet", b"PAR1")))
    assert next(read_table(written(tmp_path, "rows.csv", b"a\n1\n"))) == {"a": "1"}
    monkeypatch.undo()
    assert importlib.import_module("pyarrow") is pyarrow


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to see which files are open")
async def test_left_early(tmp_path: Path) -> None:
    """A table that is not read to its end is closed."""
    path = written(tmp_path, "rows.csv", b"id\n" + b"1\n" * 10_000)

    def is_open() -> bool:
        return path in [link.resolve() for link in Path("/proc/self/fd").iterdir()]

    rows = walk(path)
    assert await anext(rows) == {"id": "1"}
    assert is_open()
    await rows.aclose()
    assert not is_open()

"""What people have as rows: each kind gives the right values, or one clear error."""

import dataclasses
import importlib
import sqlite3
from collections import ChainMap, OrderedDict, UserDict, namedtuple
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import date
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from pathlib import Path
from types import FunctionType, MappingProxyType
from typing import Any, NamedTuple

import attrs
import pydantic
import pytest

from comfycontrol_async import ComfyControlError, File, Graph, InvalidArgumentError
from comfycontrol_async.batch._columns import Columns
from comfycontrol_async.batch._rows import columns_of, table_of, walk


class Later:
    """A library that is loaded when it is used: these four take longer than all the tests here."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pytest looks for its own marks while it collects
            raise AttributeError(name)
        return getattr(importlib.import_module(self.name), name)


numpy, pandas, polars, pyarrow = map(Later, ("numpy", "pandas", "polars", "pyarrow"))

GRAPH = Graph(
    {
        "1": {"class_type": "CLIPTextEncode", "inputs": {"text": "$text(prompt)"}},
        "2": {
            "class_type": "KSampler",
            "inputs": {"seed": "$text(seed, 7)", "sampler": "$choice(sampler, euler, ddim)"},
        },
        "3": {"class_type": "LoadImage", "inputs": {"image": "$file(image)"}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
    }
)
IMAGE = Path("image.png")
DEFAULT = {"$prompt": "a cat", "$seed": "7", "#sampler": "euler"}

ROW: dict[str, Any] = {"id": "r1", "prompt": "a cat", "seed": 5, "image": b"png", "note": "mine"}
FIVE = {**DEFAULT, "$seed": "5"}


@attrs.frozen
class AttrsRow:
    """A row as attrs has it."""

    prompt: str
    seed: int
    image: bytes
    note: str = ""


@dataclasses.dataclass(slots=True)
class DataclassRow:
    """A row as dataclasses have it."""

    prompt: str
    seed: int
    image: bytes


class PydanticRow(pydantic.BaseModel):
    """A row as pydantic has it, with what was not declared."""

    model_config = pydantic.ConfigDict(extra="allow")
    prompt: str
    seed: int | None = None
    image: bytes


class TypedTuple(NamedTuple):
    """A row as typing's named tuples have it."""

    prompt: str
    seed: int
    image: bytes


class Seed(IntEnum):
    """An enum whose members are numbers."""

    FIVE = 5


class Slotted:
    """A class without named fields."""


class KeysOnly:
    """What `dict()` takes: keys and items, as rows of database drivers have them."""

    def keys(self) -> list[str]:
        return ["prompt", "seed", "image"]

    def __getitem__(self, name: str) -> Any:
        return ROW[name]


class Hostile(dict[str, Any]):
    """A mapping that cannot be read."""

    def keys(self) -> Any:
        raise RuntimeError("no keys")

    def __iter__(self) -> Any:
        raise RuntimeError("no iteration")


def of_sqlite() -> Any:
    """Return a row of a database."""
    database = sqlite3.connect(":memory:")
    database.row_factory = sqlite3.Row
    try:
        return database.execute("SELECT 'a cat' AS prompt, 5 AS seed, x'706e67' AS image, NULL AS note").fetchone()
    finally:
        database.close()


def of_numpy() -> Any:
    """Return a row of a structured array."""
    return numpy.array([("a cat", 5, b"png")], dtype=[("prompt", "U9"), ("seed", "i8"), ("image", "S3")])[0]


def of_pandas(**changes: Any) -> Any:
    """Return a row of a data frame as a Series."""
    return pandas.DataFrame([{**ROW, **changes}]).iloc[0]


def of_arrow() -> Any:
    """Return a row of an Arrow array, in its boxes."""
    return pyarrow.array([{"prompt": "a cat", "seed": 5, "image": b"png", "sampler": None}])[0]


class Mute:
    """A value that answers no question."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no attributes")


Plain = namedtuple("Plain", "prompt seed image")  # what is tested

RIGHT: dict[str, tuple[Any, dict[str, str]]] = {
    "dict": (ROW, FIVE),
    "ordered-dict": (OrderedDict(ROW), FIVE),
    "proxy": (MappingProxyType(ROW), FIVE),
    "chain": (ChainMap({"seed": 5}, ROW), FIVE),
    "user-dict": (UserDict(ROW), FIVE),
    "attrs": (AttrsRow("a cat", 5, b"png"), FIVE),
    "dataclass": (DataclassRow("a cat", 5, b"png"), FIVE),
    "pydantic": (PydanticRow(prompt="a cat", seed=5, image=b"png"), FIVE),
    "pydantic-extra": (PydanticRow.model_validate({**ROW, "sampler": "ddim"}), {**FIVE, "#sampler": "ddim"}),
    "pydantic-none": (PydanticRow(prompt="a cat", image=b"png"), DEFAULT),
    "named-tuple": (Plain("a cat", 5, b"png"), FIVE),
    "typed-tuple": (TypedTuple("a cat", 5, b"png"), FIVE),
    "sqlite": (of_sqlite(), FIVE),
    "keys-and-items": (KeysOnly(), FIVE),
    "numpy-structured": (lambda: of_numpy(), FIVE),
    "pandas-series": (lambda: of_pandas(), FIVE),
    "pandas-dict": (lambda: pandas.DataFrame([ROW]).to_dict("records")[0], FIVE),
    "pandas-tuple": (lambda: next(pandas.DataFrame([ROW]).itertuples()), FIVE),
    "polars-dict": (lambda: next(polars.DataFrame([ROW]).iter_rows(named=True)), FIVE),
    "arrow-dict": (lambda: pyarrow.Table.from_pylist([ROW]).to_pylist()[0], FIVE),
    "arrow-box": (lambda: of_arrow(), FIVE),
    "mute-rides-along": ({**ROW, "note": Mute()}, FIVE),
    "none": ({**ROW, "seed": None}, DEFAULT),
    "nan": ({**ROW, "seed": float("nan")}, DEFAULT),
    "numpy-nan": (lambda: {**ROW, "seed": numpy.float32("nan")}, DEFAULT),
    "decimal-nan": ({**ROW, "seed": Decimal("nan")}, DEFAULT),
    "pandas-na": (lambda: {**ROW, "seed": pandas.NA}, DEFAULT),
    "pandas-nat": (lambda: {**ROW, "seed": pandas.NaT}, DEFAULT),
    "pandas-missing": (lambda: of_pandas(seed=None), DEFAULT),
    "none-in-extra": ({**ROW, "note": None}, FIVE),
    "numpy-int": (lambda: {**ROW, "seed": numpy.int64(5)}, FIVE),
    "numpy-seed": (lambda: {**ROW, "seed": numpy.uint64(2**64 - 1)}, {**FIVE, "$seed": "18446744073709551615"}),
    "numpy-float": (lambda: {**ROW, "seed": numpy.float32(0.1)}, {**FIVE, "$seed": "0.1"}),
    "numpy-bool": (lambda: {**ROW, "seed": numpy.bool_(True)}, {**FIVE, "$seed": "true"}),
    "numpy-text": (lambda: {**ROW, "prompt": numpy.str_("a cat")}, FIVE),
    "whole-float": ({**ROW, "seed": 5.0}, FIVE),
    "decimal": ({**ROW, "seed": Decimal("0.50")}, {**FIVE, "$seed": "0.5"}),
    "fraction": ({**ROW, "seed": Fraction(10, 2)}, FIVE),
    "enum": ({**ROW, "seed": Seed.FIVE}, FIVE),
    "int-column": ({**ROW, 5: "rides along"}, FIVE),
    "text-number": ({**ROW, "seed": "5"}, FIVE),
    "file-path": ({**ROW, "image": IMAGE}, FIVE),
    "file-text": ({**ROW, "image": IMAGE.name}, FIVE),
    "file-object": ({**ROW, "image": File(b"png", filename="a.png")}, FIVE),
}

WRONG: dict[str, tuple[Any, str]] = {
    "list": (["a cat"], "must map column names to values"),
    "text": ("a cat", "must map column names to values"),
    "number": (5, "must map column names to values"),
    "nothing": (None, "must map column names to values"),
    "object": (Slotted(), "must map column names to values"),
    "class": (DataclassRow, "must map column names to values"),
    "tuple": (("a cat", 5), "must map column names to values"),
    "hostile": (Hostile(prompt="a cat"), "cannot be read"),
    "numpy-array": (lambda: numpy.array([1, 2]), "must map column names to values"),
    "array-value": (lambda: {**ROW, "seed": numpy.array([1, 2])}, "takes a str, int, float or bool"),
    "list-value": ({**ROW, "seed": [1]}, "takes a str, int, float or bool"),
    "date-value": ({**ROW, "seed": date(2024, 1, 15)}, "takes a str, int, float or bool"),
    "infinite": ({**ROW, "seed": float("inf")}, "finite numbers only"),
    "surrogate": ({**ROW, "prompt": "a\ud800"}, "half a surrogate pair"),
    "choice": ({**ROW, "sampler": "heun"}, "takes 'euler' or 'ddim'"),
    "no-file": ({**ROW, "image": "absent.png"}, "cannot be read"),
    "directory": ({**ROW, "image": "."}, "is the directory"),
    "file-left-out": ({**ROW, "image": None}, "has no default and is missing"),
    "mute": ({**ROW, "prompt": Mute()}, 'text "prompt" takes a str'),
    "required-nan": ({**ROW, "prompt": float("nan")}, "has no default and is missing"),
}


def made(row: Any) -> Any:
    """Return a row of a table; those of libraries are made here: only the process that tests them loads them."""
    return row() if isinstance(row, FunctionType) else row


@pytest.fixture(autouse=True)
def _image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    IMAGE.write_bytes(b"png")


def sent(row: Any) -> dict[str, Any]:
    """Return the form fields of a row of a table that lies in the working directory."""
    columns = columns_of(row)
    rows = Columns(GRAPH.parameters, base=Path.cwd())
    rows.study(columns)
    return dict(GRAPH.bind(rows.params_of(row, columns)).fields)


@pytest.mark.parametrize("kind", RIGHT)
def test_right(kind: str) -> None:
    """The values that are sent are those that the row means; other columns ride along."""
    row, expected = RIGHT[kind]
    fields = sent(made(row))
    file = fields.pop("$image")
    with file.open() as stream:
        assert stream.read() == b"png"
    assert fields == expected


@pytest.mark.parametrize("kind", WRONG)
def test_wrong(kind: str) -> None:
    """What cannot be a row, or cannot be sent, is one error of ours that says what is wrong."""
    row, text = WRONG[kind]
    with pytest.raises(ComfyControlError, match=text):
        sent(made(row))


FRAMES: dict[str, tuple[Any, str]] = {
    "pandas": (lambda: pandas.DataFrame([{"a": 1}]), r'pass rows.to_dict\("records"\)'),
    "polars": (lambda: polars.DataFrame([{"a": 1}]), r"pass rows.iter_rows\(named=True\)"),
    "arrow": (lambda: pyarrow.table({"a": [1]}), r"pass rows.to_pylist\(\)"),
    "one-row": ({"a": 1}, "put it into a list"),
    "one-model": (PydanticRow(prompt="a", image=b""), "put it into a list"),
    "bytes": (b"rows", "put it into a list"),
    "text": ("rows", r"path that ends in .csv, .tsv, .jsonl, .parquet, not 'rows'"),
    "suffix": (Path("rows.xlsx"), "not 'rows.xlsx'"),
    "number": (7, "not int"),
    "nothing": (None, "not NoneType"),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_no_rows(kind: str) -> None:
    """What gives no rows when it is iterated is refused, with what to pass instead."""
    rows, text = FRAMES[kind]
    with pytest.raises(InvalidArgumentError, match=text):
        table_of(made(rows))


def test_iterables() -> None:
    """Whatever can be iterated may be rows, and a path names a table."""
    several: list[Any] = [[], (), range(0), iter([ROW]), map(dict, [ROW]), {1, 2}]
    assert [table_of(rows) for rows in several] == [None] * len(several)
    assert table_of("a/b.CSV") == Path("a/b.CSV")


def test_count_of_kinds() -> None:
    """There are at least 40 kinds of row in the table."""
    assert len(RIGHT) + len(WRONG) >= 40
    assert isinstance(RIGHT["dict"][0], Mapping)


@pytest.mark.parametrize("lazy", ["generator", "asynchronous"])
async def test_one_dict_for_all(lazy: str) -> None:
    """A source that makes its rows on the way may change one dict for each: they are kept as they were given."""

    def changing() -> Iterator[dict[str, int]]:
        row: dict[str, int] = {}
        for number in range(3):
            row["seed"] = number
            yield row

    async def later() -> AsyncIterator[dict[str, int]]:
        for row in changing():
            yield row

    rows = [row async for row in walk(changing() if lazy == "generator" else later())]
    assert rows == [{"seed": number} for number in range(3)]
    given = [{"seed": 1}]
    assert [id(row) async for row in walk(given)] == [id(given[0])]

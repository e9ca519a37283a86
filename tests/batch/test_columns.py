"""What the columns of rows are to a graph: parameters, what rides along, slips, and what is missing."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from comfycontrol_async import InvalidArgumentError
from comfycontrol_async.batch._columns import Columns, are_near
from comfycontrol_async.graph import Parameter

PARAMETERS = (
    Parameter(name="prompt", kind="text", places=("1.text",)),
    Parameter(name="seed", kind="text", default="7", places=("1.seed",)),
    Parameter(name="init_image", kind="file", places=("2.image",)),
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Prompt", "prompt"),
        ("PROMPT", "prompt"),
        ("init-image", "init_image"),
        ("initImage", "init_image"),
        ("init image", "init_image"),
        ("$prompt", "prompt"),
        ("#seed", "seed"),
        ("promt", "prompt"),
        ("prompts", "prompt"),
        ("propmt", "prompt"),
        ("prumpt", "prompt"),
        ("xprompt", "prompt"),
        ("seeds", "seed"),
        ("straße", "strasse"),
    ],
)
def test_near(one: str, other: str) -> None:
    """Names that differ by case, separators, signs or one edit may be meant to be one."""
    assert are_near(one, other)
    assert are_near(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("note", "seed"),
        ("id", "is"),
        ("abc", "abd"),
        ("sed", "seed"),
        ("prom", "prompt"),
        ("porpmt", "prompt"),
        ("", "a"),
    ],
)
def test_far(one: str, other: str) -> None:
    """Short names, and names that are two edits apart, are other names."""
    assert not are_near(one, other)
    assert not are_near(other, one)


def test_study(caplog: pytest.LogCaptureFixture) -> None:
    """What rides along is named once in the log; a slip is an error, whenever its column turns up."""
    caplog.set_level(logging.INFO, "comfycontrol_async.batch")
    columns = Columns(PARAMETERS)
    for _ in range(3):
        columns.study({"id": 1, "prompt": "a cat", "note": ""})
    assert [record.getMessage() for record in caplog.records] == [
        "columns that are no parameter ride along: 'id', 'note'"
    ]
    with pytest.raises(InvalidArgumentError, match="a column 'Seed', the graph a parameter 'seed': give them one name"):
        columns.study({"prompt": "a cat", "Seed": 3})
    columns.study({"prompt": "a cat", "seed": 3, "seeds": 9})  # the parameter has its column


def test_chosen() -> None:
    """`params` chooses, and then nothing is taken for a slip."""
    columns = Columns(PARAMETERS, params=("prompt",))
    row = {"prompt": "a cat", "Seed": 3, "seed": 4, "init_image": "a.png"}
    columns.study(row)
    assert columns.params_of(row, row) == {"prompt": "a cat"}
    with pytest.raises(InvalidArgumentError, match="params: the graph has no parameter 'promt'; did you mean 'prompt'"):
        Columns(PARAMETERS, params=("promt",))


def test_function() -> None:
    """A function of the row makes the parameters; None and NaN are left out of what it returns too."""
    columns = Columns(
        PARAMETERS,
        base=Path("/data"),
        params=lambda row: {"prompt": f"a {row['animal']}", "init_image": "a.png", "seed": float("nan")},
    )
    row = {"animal": "cat", "prompts": ""}
    columns.study(row)
    assert columns.missing(row) is None
    assert columns.params_of(row, row) == {"prompt": "a cat", "init_image": Path("/data/a.png")}


def cancelled(row: Any) -> Any:
    """Fail as what awaits something that was cancelled does."""
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("function", "text"),
    [
        pytest.param(lambda row: row["absent"], "the function for params failed", id="error"),
        pytest.param(cancelled, "the function for params failed", id="cancelled"),
        pytest.param(lambda row: [1], "params must return a mapping", id="no-mapping"),
        pytest.param(lambda row: None, "params must return a mapping", id="nothing"),
    ],
)
def test_function_that_fails(function: Any, text: str) -> None:
    """Whatever a function of the caller does is one error of ours."""
    with pytest.raises(InvalidArgumentError, match=text):
        Columns(PARAMETERS, params=function).params_of({}, {})


def test_missing() -> None:
    """A required parameter without a column, and a column that an option uses, are told with a hint."""
    columns = Columns(PARAMETERS, needed={"title": "name uses it"})
    assert columns.missing(["title", "prompt", "init_image"]) is None
    assert columns.missing(["prompt", "init_image", "tilte"]) == (
        "the rows have no column 'title' (name uses it); did you mean 'tilte'?"
    )
    missing = columns.missing(["title", "init_image"])
    assert missing is not None
    assert missing.startswith("the rows have no column 'prompt' (the graph's text needs a value)")

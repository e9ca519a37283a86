"""Names, tags and file names from a row's key, index and columns."""

from pathlib import Path
from typing import Any

import pytest

from comfycontrol_async import InvalidArgumentError
from comfycontrol_async.batch._templates import DEFAULT_TEMPLATE, check_pattern, columns_in, fill_in, place_of, shape_of

VALUES: dict[str, Any] = {"key": "k/1", "index": 7, "album": "summer / 24", "none": None, "nan": float("nan"), "n": 3}


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("{key}", "k/1"),
        ("{index:03}-{album}", "007-summer / 24"),
        ("{none}{nan}", ""),
        ("{{{n:>3}}}", "{  3}"),
        ("{album!r}", "'summer / 24'"),
        ("", ""),
    ],
)
def test_fill_in(pattern: str, text: str) -> None:
    """Fields are filled in with their format; None and NaN are empty."""
    assert fill_in("name", pattern, VALUES) == text


class Hostile:
    """A value that cannot be written."""

    def __format__(self, spec: str) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("value", [Hostile(), "text"])
def test_not_to_be_written(value: Any) -> None:
    """A value that cannot be written so is told with its column."""
    with pytest.raises(InvalidArgumentError, match="name cannot write the column 'n'"):
        fill_in("name", "{n:03d}", {"n": value})


def test_absent() -> None:
    """A row without the column is told so."""
    with pytest.raises(InvalidArgumentError, match="name needs the column 'title'"):
        fill_in("name", "{title}", VALUES)


@pytest.mark.parametrize(
    ("pattern", "folder", "template"),
    [
        pytest.param(DEFAULT_TEMPLATE, ".", "k_1-9e3c02ba-{index:03}{ext}", id="default"),
        pytest.param("{album}/{n}{ext}", "summer _ 24", "3{ext}", id="folder"),
        pytest.param("a/{n}/{none}/{index}", "a/3/_", "{index}", id="empty-folder"),
        pytest.param("x{{y}}-{name}{ext}", ".", "x{{y}}-{name}{ext}", id="braces"),
    ],
)
def test_place(pattern: str, folder: str, template: str) -> None:
    """A slash of the pattern makes folders, one of a value does not; what the download fills in stays."""
    found = place_of(pattern, "k/1", VALUES)
    assert found[0] == Path(folder)
    assert found[1].partition("-")[0] == template.partition("-")[0]
    assert found[1].endswith(template.rpartition("-")[2])


@pytest.mark.parametrize("value", ["..", ".", "/etc", "../../up", "a\\b", "\ud800", "con", "", " ", "x" * 300])
def test_harmless(value: str) -> None:
    """No value leads out of the folder, or is a name that some system refuses."""
    folder, template = place_of("{album}/{album}{ext}", "k", {**VALUES, "album": value})
    assert len(folder.parts) == 1
    assert folder.parts[0] not in ("", ".", "..")
    assert "/" not in template
    (folder / "file").as_posix().encode()


def test_column_before_workflow() -> None:
    """A column named as a field of the workflow is meant first; braces in values stay text."""
    assert place_of("{id}{ext}", "k", {**VALUES, "id": "a{b}"})[1] == "a{{b}}{ext}"
    assert place_of("{id}{ext}", "k", VALUES)[1] == "{id}{ext}"


def test_columns() -> None:
    """The columns that a pattern needs, without what is known anyway."""
    assert columns_in("{key}-{index}-{title}") == ["title"]
    assert columns_in("{album}/{id}-{name}{ext}", path=True) == ["album"]


def test_shape() -> None:
    """A pattern's own files are recognised, others are not."""
    shape = shape_of("{album}/{key}-{index:03}{ext}")
    assert all(shape.fullmatch(path) for path in ("a/b-001.png", "a/b-1-12.webp", "a/b-001"))
    assert not any(shape.fullmatch(path) for path in ("b-001.png", "a/b.png", "a/b-x.png", "a/b/c-001.png"))


@pytest.mark.parametrize("pattern", [3, None, "{", "}", "{}", "{0}", "{a.b}", "{a[0]}", "{a!x}"])
def test_bad_pattern(pattern: Any) -> None:
    """What is no pattern is refused when it is given."""
    with pytest.raises(InvalidArgumentError, match="a tag"):
        check_pattern("a tag", pattern)

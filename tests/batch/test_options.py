"""Batches without a server: options, keys, names of files, and what a number of workflows will need."""

import os
from pathlib import Path
from typing import Any

import pytest

from comfycontrol_async import ComfyControl, InvalidArgumentError
from comfycontrol_async.batch._options import BatchOptions, check_directory
from comfycontrol_async.batch._templates import stem_of


def options(**given: Any) -> BatchOptions:
    """Make options, the defaults of `map` where nothing is given."""
    return BatchOptions(**given)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        pytest.param({"concurrency": 0}, "concurrency", id="no-concurrency"),
        pytest.param({"concurrency": 1.5}, "concurrency", id="half"),
        pytest.param({"concurrency": True}, "concurrency", id="bool"),
        pytest.param({"max_failures": -1}, "max_failures", id="negative-failures"),
        pytest.param({"max_failures": "3"}, "max_failures", id="text-failures"),
        pytest.param({"timeout": 0}, "timeout", id="no-timeout"),
        pytest.param({"timeout": float("nan")}, "timeout", id="nan"),
        pytest.param({"timeout": "60"}, "timeout", id="text-timeout"),
        pytest.param({"key": 3}, "key must be", id="key"),
        pytest.param({"name": None}, "name must be text", id="name"),
        pytest.param({"name": "{}"}, "is not the name of a column", id="name-place"),
        pytest.param({"name": "{a.b}"}, "is not the name of a column", id="name-attribute"),
        pytest.param({"name": "{a!x}"}, "is no conversion", id="name-conversion"),
        pytest.param({"name": "{key"}, "cannot be filled in", id="name-brace"),
        pytest.param({"name": "{key:999999999}"}, "too wide", id="name-width"),
        pytest.param({"params": ["prompt", 5]}, "params must be names", id="params-number"),
        pytest.param({"tags": ("a,b",)}, "comma", id="tag"),
        pytest.param({"tags": "gpu"}, "tags must be a list", id="tags-text"),
        pytest.param({"params": "prompt"}, "params must be names", id="params-text"),
        pytest.param({"params": {"steps": 20}}, "params must be names", id="params-values"),
        pytest.param({"download_to": 3}, "download_to must be a path", id="directory"),
        pytest.param({"journal": b"x"}, "journal must be a path", id="journal"),
        pytest.param({"template": "../{key}{ext}"}, "below download_to", id="template-up"),
        pytest.param({"template": "/tmp/{key}"}, "below download_to", id="template-absolute"),
        pytest.param({"template": "{index}/{key}"}, "belong to the file", id="template-folder"),
        pytest.param({"template": ""}, "below download_to", id="template-empty"),
        pytest.param({"retry_failed": True}, "needs a journal", id="retry-without-journal"),
        pytest.param({"on_timeout": "stop"}, "on_timeout must be", id="on-timeout"),
        pytest.param({"on_cancel": None}, "on_cancel must be", id="on-cancel"),
        pytest.param({"on_progress": 5}, "on_progress must be a function", id="on-progress"),
    ],
)
def test_bad_options(given: dict[str, Any], text: str) -> None:
    """An option that is invalid is refused, with its name."""
    with pytest.raises(InvalidArgumentError, match=text):
        options(**given)


def test_bad_options_of_map() -> None:
    """They are refused when `map` is called, before anything is iterated."""
    comfy = ComfyControl("cfc_x", base_url="http://127.0.0.1:1")
    with pytest.raises(InvalidArgumentError, match="concurrency"):
        comfy.map({}, [], concurrency=0)
    with pytest.raises(InvalidArgumentError, match="tags"):
        comfy.map({}, [], tags="production")


class TestKeys:
    """What tells rows apart."""

    def test_kinds(self) -> None:
        """A key is the index, a parameter or what a function says, always as text."""
        row = {"prompt": "cat", "seed": 7}
        assert options().key_of(row, row, 3) == "3"
        assert options(key="seed").key_of(row, row, 3) == "7"
        assert options(key=lambda row: row["prompt"].upper()).key_of(row, row, 3) == "CAT"

    @pytest.mark.parametrize(
        "key", ["missing", lambda row: "", lambda row: None, lambda row: row["missing"], lambda row: 1 / 0]
    )
    def test_none(self, key: Any) -> None:
        """A row without a key, or one at which the function fails, is refused."""
        with pytest.raises(InvalidArgumentError, match=r"row 3|failed at this row"):
            options(key=key).key_of({"prompt": "cat"}, {"prompt": "cat"}, 3)

    def test_name(self) -> None:
        """The names of workflows come from key, index and columns."""
        values = {"key": "7{x}", "index": 3, "note": None, "title": "a cat"}
        assert options(name="cats-{index:03}-{key}").name_of(values) == "cats-003-7{x}"
        assert options(name="{title}{note}").name_of(values) == "a cat"
        assert options(name="").name_of(values) == options(name="{note}").name_of(values) == "7{x}"


class TestStems:
    """What the files of a row are called."""

    @pytest.mark.parametrize("key", ["7", "cat", "a cat, in (Köln)", "{index}"])
    def test_harmless(self, key: str) -> None:
        """A key that is harmless as a file name stays as it is."""
        assert stem_of(key) == key

    @pytest.mark.parametrize(
        "key", ["a/b", "../../etc/passwd", "..", "a:b", "CON", "x" * 300, "猫" * 100, "\ud800", "a\nb", " a", "a."]
    )
    def test_harmful(self, key: str, tmp_path: Path) -> None:
        """One that is not is made harmless and short, and marked so that no other key gets the same."""
        stem = stem_of(key)
        assert "/" not in stem
        assert len(stem.encode()) <= 129
        (tmp_path / f"{stem}-001.png").touch()
        assert os.listdir(tmp_path) == [f"{stem}-001.png"]

    def test_no_clash(self) -> None:
        """Keys that differ in what is not harmless alone, or beyond what fits, get stems of their own."""
        keys = ["a/b", "a:b", "a_b", "a\\b", "x" * 200 + "1", "x" * 200 + "2", "\ud800", "\ud801"]
        assert len({stem_of(key) for key in keys}) == len(keys)


class TestDirectories:
    """Where downloads may go."""

    def test_good(self, tmp_path: Path) -> None:
        """A directory, or one that can be made, which is; no file is left in it."""
        for directory in (None, tmp_path, tmp_path / "a" / "b"):
            check_directory(directory)
        assert [(str(path), files) for path, _, files in os.walk(tmp_path / "a")] == [
            (str(tmp_path / "a"), []),
            (str(tmp_path / "a" / "b"), []),
        ]

    def test_bad(self, tmp_path: Path) -> None:
        """A file, a broken link, and anything below these."""
        (tmp_path / "file").touch()
        (tmp_path / "link").symlink_to("nowhere")
        for name in ("file", "link"):
            for directory in (tmp_path / name, tmp_path / name / "a" / "b"):
                with pytest.raises(InvalidArgumentError, match=f"{name}' is none"):
                    check_directory(directory)

"""Batches without a server: options, keys, names of files, and what a number of workflows will need."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfycontrol_async import ComfyControl, File, InvalidArgumentError, LocalLimiter
from comfycontrol_async.batch._options import (
    BatchOptions,
    BatchPlan,
    check_directory,
    check_rows,
    digest_of,
    plan_batch,
    stem_of,
)
from comfycontrol_async.limits import Priority, RateLimitSnapshot


def options(**given: Any) -> BatchOptions:
    """Make options, the defaults of `map` where nothing is given."""
    defaults: dict[str, Any] = {
        "key": None,
        "name": "{key}",
        "tags": (),
        "concurrency": 100,
        "ordered": False,
        "outputs": True,
        "download_to": None,
        "journal": None,
        "timeout": None,
        "max_failures": None,
        "on_progress": None,
    }
    return BatchOptions(**(defaults | given))


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
        pytest.param({"name": "{prompt}"}, "its fields are key and index", id="name-field"),
        pytest.param({"name": "{key"}, "cannot be filled in", id="name-brace"),
        pytest.param({"tags": ("a,b",)}, "comma", id="tag"),
    ],
)
def test_bad_options(given: dict[str, Any], text: str) -> None:
    """An option that makes no sense is refused, with its name."""
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
        assert options().key_of(row, 3) == "3"
        assert options(key="seed").key_of(row, 3) == "7"
        assert options(key=lambda row: row["prompt"].upper()).key_of(row, 3) == "CAT"

    @pytest.mark.parametrize(
        "key", ["missing", lambda row: "", lambda row: None, lambda row: row["missing"], lambda row: 1 / 0]
    )
    def test_none(self, key: Any) -> None:
        """A row without a key, or one at which the function fails, is refused."""
        with pytest.raises(InvalidArgumentError, match="row 3"):
            options(key=key).key_of({"prompt": "cat"}, 3)

    def test_name(self) -> None:
        """The names of workflows come from key and index."""
        assert options(name="cats-{index:03}-{key}").name_of("7{x}", 3) == "cats-003-7{x}"
        assert options(name="").name_of("7", 3) == "7"


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


class TestDigests:
    """What tells a row from another one under the same key."""

    def test_equal(self, tmp_path: Path) -> None:
        """Equal rows have one digest, in whatever order their parameters come."""
        file = tmp_path / "a.png"
        file.touch()
        for row in ({"a": 1, "b": "x"}, {"a": file, "b": File(file)}, {"a": b"1", "b": File(b"1", filename="n")}):
            turned = dict(reversed(list(row.items())))
            assert digest_of(row) == digest_of(turned)

    def test_different(self) -> None:
        """Rows that differ in a value, also in the bytes of a file, have different ones."""
        rows: list[dict[str, Any]] = [{}, {"a": 1}, {"a": "1"}, {"a": 2}, {"b": 1}, {"a": b"1"}, {"a": b"2"}]
        rows += [{"a": Path("x")}, {"a": File("x")}, {"a": File("y")}, {"a": File("x", filename="n")}]
        assert len({digest_of(row) for row in rows}) == len(rows)

    @pytest.mark.parametrize("row", [{1: 2, "a": 3}, {(1, 2): 3}, [1], None])
    def test_no_row(self, row: Any) -> None:
        """What is no row of parameters is refused as a row, not as a mistake of ours."""
        with pytest.raises(InvalidArgumentError, match="no mapping of parameter names"):
            digest_of(row)


@pytest.mark.parametrize("rows", [{"prompt": "cat"}, "rows.csv", b"rows", None, 7])
def test_no_rows(rows: Any) -> None:
    """What can be no rows is refused; a single row too, which a caller may give by mistake."""
    with pytest.raises(InvalidArgumentError, match="rows must be an iterable of mappings"):
        check_rows(rows)


class TestDirectories:
    """Where downloads may go."""

    def test_good(self, tmp_path: Path) -> None:
        """A directory, or one that can be made; nothing is made yet."""
        for directory in (None, tmp_path, tmp_path / "a" / "b", Path("not-there-yet")):
            check_directory(directory)
        assert os.listdir(tmp_path) == []

    def test_bad(self, tmp_path: Path) -> None:
        """A file, a broken link, and anything below these."""
        (tmp_path / "file").touch()
        (tmp_path / "link").symlink_to("nowhere")
        for name in ("file", "link"):
            for directory in (tmp_path / name, tmp_path / name / "a" / "b"):
                with pytest.raises(InvalidArgumentError, match=f"{name}' is none"):
                    check_directory(directory)


def limits(*, available: int = 40, waiting: int = 0, cooldown: float = 0.0) -> RateLimitSnapshot:
    """Make the state of a limiter of 40 in 10 s."""
    return RateLimitSnapshot(
        limit=40,
        period=10.0,
        used=40 - available,
        available=available,
        waiting={**dict.fromkeys(Priority, 0), Priority.BULK: waiting},
        cooldown=cooldown,
        pacing="burst",
        next_free_in=0.0,
    )


class TestPlan:
    """What a number of workflows will need."""

    @pytest.mark.parametrize(
        ("n", "outputs", "state", "plan"),
        [
            pytest.param(0, True, limits(), BatchPlan(requests=0, seconds=0.0), id="nothing"),
            pytest.param(10, True, limits(), BatchPlan(requests=21, seconds=0.0), id="free-at-once"),
            pytest.param(1000, False, limits(), BatchPlan(requests=1050, seconds=252.5), id="no-outputs"),
            pytest.param(1000, True, limits(), BatchPlan(requests=2050, seconds=502.5), id="outputs"),
            pytest.param(10, True, limits(available=1), BatchPlan(requests=21, seconds=5.0), id="used-up"),
            pytest.param(10, True, limits(waiting=39), BatchPlan(requests=21, seconds=5.0), id="others-wait"),
            pytest.param(1, False, limits(cooldown=8.0), BatchPlan(requests=2, seconds=8.0), id="cooldown"),
        ],
    )
    def test_plan(self, n: int, outputs: bool, state: RateLimitSnapshot, plan: BatchPlan) -> None:
        """Requests for submits, outputs and looks, and the time in which the limit lets them through."""
        assert plan_batch(n, outputs=outputs, limits=state) == plan

    @pytest.mark.parametrize("n", [-1, 1.5, "10", True, None])
    def test_bad(self, n: Any) -> None:
        """A number that is none is refused."""
        with pytest.raises(InvalidArgumentError, match="n must be a whole number"):
            plan_batch(n, outputs=True, limits=limits())

    def test_of_a_client(self) -> None:
        """A client plans under its own limiter, without a loop and without a request."""
        comfy = ComfyControl("cfc_x", limiter=LocalLimiter(10, 1.0))
        assert comfy.plan(100) == BatchPlan(requests=205, seconds=19.5)
        assert comfy.plan(100, outputs=False).requests == 105


def test_rows_may_be_a_generator() -> None:
    """Whatever can be iterated may be rows."""

    def rows() -> Iterator[dict[str, Any]]:
        yield {}

    several: list[object] = [rows(), [], (), range(0)]
    for given in several:
        check_rows(given)

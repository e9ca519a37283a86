"""The screens of commands that wait, at every width: no label and no count is lost."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console, RenderableType

from comfycontrol_async import MapProgress
from comfycontrol_async.cli import _batch, _limits, _run
from comfycontrol_async.cli._batch import Batch, Table
from comfycontrol_async.cli._run import Followed, Screen
from support.captures import LIMIT, WIDTHS


def drawn(what: RenderableType, width: int) -> str:
    """Return what a terminal of this width shows."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(what)
    text = capture.get()
    assert max(map(len, text.splitlines())) <= width
    return text


def console_of(width: int) -> Console:
    """Return the console that a screen asks for its width."""
    return Console(file=io.StringIO(), width=width)


def run_in(status: str, place: int | None = None) -> Any:
    """Return a handle that was last seen in a state."""
    return SimpleNamespace(
        id="a1b2c3d4",
        status=_Status(status),
        workflow=SimpleNamespace(queue_number=place),
    )


class _Status(str):
    __slots__ = ()

    @property
    def terminal(self) -> bool:
        return self in ("completed", "failed")


@pytest.mark.parametrize("width", WIDTHS)
def test_waiting_for_one(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """State, place in the queue, the rate limit and the seconds."""
    monkeypatch.setattr(_run, "error_console", lambda: console_of(width))
    comfy: Any = SimpleNamespace(limiter=SimpleNamespace(snapshot=lambda: LIMIT))
    screen = Screen(comfy, [Followed(run=run_in("queued", 3))])
    text = drawn(screen.draw(), width)
    for words in ("queued", "place 3 in the queue", "waiting for the rate limit 7 s", "0 s"):
        assert words in text
    assert screen.tell() == "queued, place 3 in the queue, held up by the rate limit"


@pytest.mark.parametrize("width", WIDTHS)
def test_waiting_for_many(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several are counted by state."""
    monkeypatch.setattr(_run, "error_console", lambda: console_of(width))
    comfy: Any = SimpleNamespace(limiter=SimpleNamespace(snapshot=lambda: LIMIT))
    states = [run_in("queued", 1)] * 120 + [run_in("running")] * 30 + [run_in("completed")] * 1000
    followed = [Followed(run=state, ended=state.status.terminal) for state in states]
    text = drawn(Screen(comfy, followed).draw(), width)
    for words in ("120 queued", "30 running", "1000 completed"):
        assert words in text


PROGRESS = MapProgress(
    read=3000,
    submitted=2345,
    running=100,
    done=2245,
    failed=12,
    requests=4711,
    rate=1.9,
    eta=400.0,
    waiting_for_limit=7.2,
)


def batch_of(**changes: Any) -> Batch:
    """Return a batch of a table, as it may be given."""
    options: dict[str, Any] = {
        "graph": "graph.json",
        "rows": "my rows.csv",
        "output": "out",
        "journal": "batch.sqlite",
        "key": "id",
        "name": "{key}",
        "template": None,
        "tags": ["gpu"],
        "concurrency": 100,
        "timeout": None,
        "max_failures": None,
        "retry_failed": False,
    }
    return Batch(Table(**options | changes), PROGRESS)


@pytest.mark.parametrize("width", WIDTHS)
def test_batch(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All counts of a batch, its rate, the time left and the wait for the rate limit."""
    monkeypatch.setattr(_batch, "error_console", lambda: console_of(width))
    text = drawn(batch_of().draw(), width)
    for words in (
        "2245 done",
        "12 failed",
        "100 running",
        "2345 submitted",
        "3000 rows read",
        "4711 requests",
        "114 a minute",
        "6 min 40 s left",
        "waiting for the rate limit 7 s",
    ):
        assert words in text


def test_batch_again() -> None:
    """The command that resumes a batch is the one that began it, quoted for a shell."""
    assert batch_of().table.again() == (
        "comfycontrol map graph.json 'my rows.csv' -o out --journal batch.sqlite --key id --tag gpu"
    )
    full = batch_of(name="n-{key}", template="{id}{ext}", concurrency=5, timeout=60.0, max_failures=3)
    assert full.table.again().endswith(
        "--key id --name 'n-{key}' --template '{id}{ext}' --tag gpu --concurrency 5 --timeout 60 --max-failures 3"
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_limits(width: int) -> None:
    """The gauge has everything that a snapshot has."""
    text = drawn(_limits.draw(LIMIT, width), width)
    for words in ("used 40 of 40 in 10 s", "next in 7.2 s", "12 interactive", "345 normal", "cooldown 7 s", "smooth"):
        assert words in text

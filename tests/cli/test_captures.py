"""Each command's screen, as terminals of 40, 60, 80 and 120 columns show it; what it must be is in `captures/`.

What the service answers are the API documentation's own examples.
"""

import asyncio
import functools
import io
import re
from collections.abc import Callable, Coroutine
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from comfycontrol_async import (
    ComfyControl,
    LocalLimiter,
    MapProgress,
    WorkflowFailedError,
    WorkflowStatus,
)
from comfycontrol_async.batch._journal import BatchJournal
from comfycontrol_async.batch._journal_entry import JournalEntry, JournalState
from comfycontrol_async.cli import (
    _batch,
    _check,
    _demo,
    _doctor,
    _execute,
    _limits,
    _run,
    _runners,
    _serve,
    _show,
    _templates,
    _whoami,
    _workflows,
)
from comfycontrol_async.cli._batch import Batch, Table
from comfycontrol_async.cli._demo_view import Tally, draw_tally
from comfycontrol_async.cli._run import Followed
from comfycontrol_async.testing import RequestRecord
from support import documented
from support.captures import LIMIT, WIDTHS, compare
from support.command_line import TXT2IMG
from support.documented import RUNNER_ID, TEMPLATE_ID, WORKFLOW_ID
from support.scripted import BASE_URL, TOKEN, ScriptedApi

MODULES = (_batch, _check, _demo, _doctor, _execute, _limits, _run, _runners, _show, _templates, _whoami, _workflows)
# Seconds on the console's clock: what began at 0 has lasted that long.
NOW = 75.0
# What a request of `doctor` took.
MEASURED = re.compile(r"after \d+\.\d\d s")
COMFY: Any = SimpleNamespace(limiter=SimpleNamespace(snapshot=lambda: LIMIT))
TEMPLATE = {
    **documented.TEMPLATE,
    "body": {"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "$text(prompt)", "clip": ["2", 0]}}},
}
FAILED = {
    **documented.WORKFLOW,
    "status": "failed",
    "error_node": "5",
    "exception_type": "torch.OutOfMemoryError",
    "exception_message": "CUDA out of memory. Tried to allocate 2.50 GiB",
}
Command = Callable[[], Coroutine[Any, Any, object]]


def draw(what: Any) -> None:
    """Show what is redrawn on a terminal."""
    _show.error_console().print(what)


def run_in(status: str, place: int | None = None) -> Any:
    """Return a handle that was last seen in a state."""
    return SimpleNamespace(
        id=WORKFLOW_ID, name="fox", status=WorkflowStatus(status), workflow=SimpleNamespace(queue_number=place)
    )


async def run() -> None:
    """One workflow, in the queue and at its end; then one that failed."""
    draw(_run.Screen(COMFY, [Followed(run=run_in("queued", 3))], started=0.0).draw())
    done = Followed(run=run_in("completed"), paths=[Path("outputs/fox-a1b2c3d4-001.png")], ended=True)
    _run._report([done], NOW, "text")
    error = WorkflowFailedError("failed in node 5 (KSampler): CUDA out of memory", id=WORKFLOW_ID, name="fox")
    _run._report_error([Followed(run=run_in("failed"))], error, "text", "get")


async def wait() -> None:
    """Many workflows, and Ctrl-C."""
    states = [run_in("queued", 1)] * 120 + [run_in("running")] * 30 + [run_in("completed")] * 1000
    followed = [Followed(run=state, ended=state.status.terminal) for state in states]
    draw(_run.Screen(COMFY, followed, started=0.0).draw())
    _show.print_note(_run.farewell(followed[119:121], "wait"))


async def map_() -> None:
    """A batch under way, and at its end."""
    table = Table(
        graph=Path("graph.json"),
        rows=Path("my rows.csv"),
        output=Path("out"),
        journal=Path("batch.sqlite"),
        key="id",
        name="{key}",
        template=None,
        tags=[],
        concurrency=100,
        timeout=None,
        max_failures=None,
        retry_failed=False,
    )
    facts: dict[str, Any] = {"read": 3000, "submitted": 2345, "running": 100, "requests": 4711, "rate": 1.9}
    progress = MapProgress(**facts, done=2245, failed=12, eta=400.0, waiting_for_limit=7.2)
    batch = Batch(table, progress, started=0.0, failures=["row 7: it failed"] * 12, files=2233)
    draw(batch.draw())
    _batch._report(batch, "text")


async def demo() -> None:
    """The demo under way, and what it cost."""
    counts: dict[str, Any] = {"total": 60, "submitted": 60, "done": 24, "seconds": 33.3, "requests": 84}
    tally = Tally(**counts, running=36, limit=40, period=10.0, used=40, next_free=7.25, peak=40)
    draw(draw_tally(tally, _show.error_console().width))
    tally.done, tally.paths = 60, [Path("x.png")] * 60
    _demo.report(tally, Path("comfycontrol-demo"))


async def limits() -> None:
    """The live gauge, and what `--once` prints."""
    draw(_limits.draw(LIMIT, _show.error_console().width))
    _show.print_fields(_limits.fields_of(LIMIT))


async def serve() -> None:
    """A server in front of a ComfyUI with a run in progress, and its requests."""
    server: Any = SimpleNamespace(
        url="http://127.0.0.1:8000", token="cfc_TOKEN", limit=40, period=10.0, cooldown=10.0, requests=[]
    )
    _serve.describe(server)
    for at, method, path, status in (
        (0.31, "POST", "/v1/workflow", 201),
        (0.42, "GET", f"/v1/workflow/{WORKFLOW_ID}/subscribe", 200),
        (12.5, "GET", "/v1/workflow", 429),
    ):
        server.requests.append(RequestRecord(at=at, method=method, path=path, query={}, headers={}, status=status))
    task = asyncio.create_task(_serve._log_requests(server))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})


async def check() -> None:
    """A graph's parameters, and what is wrong with it."""
    await _check.check_graph(Path(TXT2IMG), {"sampler": "eulr"}, object_info=None, runner=None, as_json=False)


# What the service answers, and the command that asks.
SCREENS: dict[str, tuple[dict[str, Any], Command]] = {
    "run": ({}, run),
    "wait": ({}, wait),
    "map": ({}, map_),
    "demo": ({}, demo),
    "limits": ({}, limits),
    "serve": ({}, serve),
    "check": ({}, check),
    "whoami": ({"/v1/user": documented.USER}, lambda: _whoami.show_user(as_json=False)),
    "doctor": ({"/v1/user": documented.USER}, lambda: _doctor.examine(as_json=False)),
    "ls": (
        {"/v1/workflow?page=1&per_page=20": documented.WORKFLOWS},
        lambda: _workflows.list_workflows(None, 20, form="text"),
    ),
    "show": ({f"/v1/workflow/{WORKFLOW_ID}": FAILED}, lambda: _workflows.show_workflow(WORKFLOW_ID, as_json=False)),
    "runners-ls": (
        {"/v1/runner?page=1&per_page=100": documented.RUNNERS},
        lambda: _runners.list_runners(None, as_json=False),
    ),
    "runners-show": (
        {f"/v1/runner/{RUNNER_ID}": documented.RUNNER},
        lambda: _runners.show_runner(RUNNER_ID, as_json=False),
    ),
    "runners-history": (
        {f"/v1/runner/{RUNNER_ID}/history": documented.HISTORY},
        lambda: _runners.show_history(RUNNER_ID, managed=False, as_json=False),
    ),
    "managed-ls": (
        {"/v1/managed-runner?page=1&per_page=100": documented.MANAGED_RUNNERS},
        lambda: _runners.list_managed(as_json=False),
    ),
    "managed-show": (
        {f"/v1/managed-runner/{WORKFLOW_ID}": documented.MANAGED_RUNNER},
        lambda: _runners.show_managed(WORKFLOW_ID, as_json=False),
    ),
    "managed-stats": (
        {f"/v1/managed-runner/{WORKFLOW_ID}/stats": documented.STATS},
        lambda: _runners.show_stats(WORKFLOW_ID, as_json=False),
    ),
    "templates-ls": (
        {"/v1/template?page=1&per_page=100": documented.TEMPLATES},
        lambda: _templates.list_templates(as_json=False),
    ),
    "templates-show": (
        {f"/v1/template/{TEMPLATE_ID}": TEMPLATE},
        lambda: _templates.show_template(TEMPLATE_ID, None, as_json=False),
    ),
}


def _returned(console: Console) -> Console:
    return console


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[Command], Coroutine[Any, Any, dict[int, str]]]:
    """Return what runs a command in terminals of all widths, and returns what they show by width."""

    def connect(retry: object = None) -> ComfyControl:
        return ComfyControl(TOKEN, base_url=BASE_URL, limiter=LocalLimiter(40, 10.0))

    async def show(command: Command) -> dict[int, str]:
        found = {}
        for width in WIDTHS:
            screen = io.StringIO()
            # With a height no size is asked of the terminal that the tests run in.
            console = Console(
                file=screen,
                width=width,
                height=25,
                force_terminal=True,
                color_system=None,
                soft_wrap=True,
                get_time=lambda: NOW,
            )
            give = functools.partial(_returned, console)
            patches: dict[str, object] = {"connect": connect, "error_console": give, "is_terminal": lambda: True}
            for module in MODULES:
                for name in patches.keys() & vars(module).keys():
                    monkeypatch.setattr(module, name, patches[name])
            with redirect_stdout(screen), redirect_stderr(screen):
                await command()
            found[width] = MEASURED.sub("after 0.12 s", screen.getvalue())
        return found

    return show


@pytest.mark.parametrize("name", SCREENS)
async def test_screen(name: str, api: ScriptedApi, terminal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The screen is the one that is kept."""
    monkeypatch.setenv("COMFYCONTROL_API_TOKEN", TOKEN)
    monkeypatch.setattr(
        _doctor, "_versions", lambda: [_doctor.Finding("ok", "versions", "Python 3.13.1, aiohttp 3.14.1")]
    )
    monkeypatch.setattr(_doctor, "_PROXIES", ())
    answers, command = SCREENS[name]
    for path, payload in answers.items():
        api.answer("GET", path, payload, times=len(WIDTHS))
    compare(name, await terminal(command))


async def test_journal(terminal: Any, tmp_path: Path) -> None:
    """So is that of a journal's states."""
    file = tmp_path / "batch.sqlite"
    journal = await BatchJournal.open(file, graph="g", origin=BASE_URL)
    for position, state in enumerate([JournalState.DOWNLOADED, JournalState.DOWNLOADED, JournalState.FAILED]):
        await journal.put(JournalEntry(key=str(position), position=position, digest="d", state=state))
    await journal.close()
    compare("journal", await terminal(lambda: _batch.show_journal(file, None, as_json=False)))

"""The worked programs, run as they are against a local server at ten times its speed."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from comfycontrol_async.testing import LocalServer, read_png_text

HERE = Path(__file__).parent
SPEED = 10.0
LIMIT = 40

pytestmark = [pytest.mark.examples, pytest.mark.timeout(300)]


@contextmanager
def serving(speed: float = SPEED, **options: Any) -> Iterator[LocalServer]:
    """Run a server with the limit of the service, ten times as fast unless told otherwise."""
    with LocalServer(speed=speed, limit=LIMIT, period=10.0, **options) as server:
        yield server


def environment(server: LocalServer, folder: Path, limiter: str = "") -> dict[str, str]:
    """Return the environment of a program: the server, and a budget that is its own."""
    chosen = limiter or f"file:{folder / 'budget'}"
    return {
        **os.environ,
        "COMFYCONTROL_API_TOKEN": server.token,
        "COMFYCONTROL_BASE_URL": server.url,
        "COMFYCONTROL_LIMITER": f"{chosen}?limit={LIMIT}&period={10 / server.speed:g}",
        "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]),
        "PYTHONUNBUFFERED": "1",
    }


class Program:
    """A program in a process group of its own, which ends with the test."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self._log = (folder / f"{Path(command[0]).stem}-{time.monotonic_ns()}.log").open("wb")
        self.log = Path(self._log.name)
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=environment,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self._log.close()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the group."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End every process of the group at once."""
        self.signal(signal.SIGKILL)
        self.process.wait()

    async def end(self, seconds: float = 120.0) -> str:
        """Wait until it has ended, and return what it printed."""
        await asyncio.to_thread(self.process.wait, seconds)
        return self.log.read_text(errors="replace")


async def until(condition: Any, what: str, seconds: float = 90.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not in {seconds} s"
        await asyncio.sleep(0.05)


def within_the_limit(server: LocalServer) -> None:
    """See that no request was refused."""
    assert server.refused == 0
    assert server.max_in_window <= LIMIT


def test_short() -> None:
    """Each program can be read at one glance."""
    for path in HERE.glob("*.py"):
        if not path.name.startswith("test_"):
            assert len(path.read_text().splitlines()) < 80, path.name


# service.py

ABSENT = "00000000-0000-4000-a000-000000000000"


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def listening(port: int) -> None:
    """Wait until a port answers."""

    def connects() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    await until(connects, "the service listens")


async def test_service(tmp_path: Path) -> None:
    """Four workers serve a hundred clients at once, each with a key, from one budget, without a 429."""
    await serve_clients(tmp_path, SPEED, keys=True)


@pytest.mark.slow
async def test_service_at_the_real_limit(tmp_path: Path) -> None:
    """Half of a hundred clients have their picture after at most 0.65 of the time that all take.

    Without keys: under saturation a key's second look takes its turn too, which is one window later.
    """
    times = await serve_clients(tmp_path, 1.0, keys=False)
    assert statistics.median(times) <= 0.65 * times[-1]


async def serve_clients(folder: Path, speed: float, *, keys: bool) -> list[float]:
    """Let a hundred clients ask the service at once, and return after how long each had its picture."""
    port = free_port()
    command = ["-m", "uvicorn", "service:app", "--workers", "4", "--port", str(port), "--log-level", "warning"]
    with serving(speed, duration=4.0) as server, Program(command, folder, environment(server, folder)):
        await listening(port)
        began = time.monotonic()
        answers = await asyncio.gather(*(picture_of(port, number, keys) for number in range(100)))
        times = sorted(moment - began for moment, _, _ in answers)
        print(
            f"all after {times[-1]:.1f} s, half after {statistics.median(times):.1f} s, {len(server.requests)} requests"
        )
        for number, (_, states, picture) in enumerate(answers):
            assert f'"color": "{number}"' in read_png_text(picture)["prompt"]
            assert states[-1] == "completed"
        assert len(server.workflows) == 100
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            for path, status in ((ABSENT, 404), ("no-id", 422)):
                async with session.get(f"/pictures/{path}") as response:
                    assert response.status == status
        within_the_limit(server)
    return times


async def picture_of(port: int, number: int, keys: bool) -> tuple[float, list[str], bytes]:
    """Submit a picture, follow it, fetch it, over a connection of one's own."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        wanted = {"color": number, "key": f"client-{number}" if keys else None}
        async with session.post("/pictures", json=wanted) as response:
            assert response.status == 202, await response.text()
            id = (await response.json())["id"]
        states = [state async for state in states_of(session, id)]
        async with session.get(f"/pictures/{id}") as response:
            assert response.status == 200, await response.text()
            assert response.content_type == "image/png"
            return time.monotonic(), states, await response.read()


async def states_of(session: aiohttp.ClientSession, id: str) -> AsyncIterator[str]:
    """Read the events of a picture."""
    async with session.get(f"/pictures/{id}/progress") as response:
        async for line in response.content:
            if line.startswith(b"data: "):
                yield json.loads(line[6:])["status"]


# bot.py


async def test_bot(tmp_path: Path) -> None:
    """Two hundred users at once: each has a picture or cancelled it, with at most one edit a second."""
    with serving(duration=30.0) as server:
        with Program([str(HERE / "bot.py"), "200"], tmp_path, environment(server, tmp_path)) as bot:
            text = await bot.end()
        found = re.search(r"(\d+) pictures, (\d+) cancelled; .* ([\d.]+) s", text)
        assert found is not None, text
        pictures, cancelled, pause = int(found[1]), int(found[2]), float(found[3])
        print(found[0])
        assert pictures + cancelled == 200
        assert cancelled > 0
        assert pause >= 0.99
        assert Counter(str(record.status) for record in server.workflows.values())["cancelled"] == cancelled
        within_the_limit(server)


# batch.py


async def test_batch(tmp_path: Path) -> None:
    """A spreadsheet is stopped by Ctrl-C, killed, and gone on with; what failed is tried again when asked for."""
    rows = 60
    await resumed_batch(tmp_path, rows, stops=[signal.SIGINT, signal.SIGKILL])


async def resumed_batch(tmp_path: Path, rows: int, stops: list[signal.Signals], **options: Any) -> None:
    """Run the batch, stopped in between, with one row that fails on its runner; check what came of it."""
    table, out = tmp_path / "colors.csv", tmp_path / "out"
    lines = [f"id-{number};album {number % 3};{number};note {number}" for number in range(rows)]
    table.write_text("id;album;color;note\n" + "\n".join(lines) + "\n")
    failing = rows // 2

    def outcome(index: int) -> str:
        return "failed" if index == failing else "completed"

    with serving(duration=2.0, outcome=outcome, **options) as server:
        command = [str(HERE / "batch.py"), str(table), str(out)]
        for turn, stop in enumerate(stops, 1):
            with Program(command, tmp_path, environment(server, tmp_path)) as program:
                enough = rows * turn // (len(stops) + 1)
                await until(lambda enough=enough: len(server.workflows) >= enough, "it gets on", 900.0)
                program.signal(stop)
                text = await program.end()
            assert ("start the same command again" in text) == (stop is signal.SIGINT)
        for more in ([], ["--retry-failed"]):
            with Program([*command, *more], tmp_path, environment(server, tmp_path)) as program:
                text = await program.end(900.0)
            assert f"{1 - len(more)} rows without a picture" in text, text[-2000:]
            assert program.process.returncode == 1 - len(more)
        colors = Counter(record.values["$color"] for record in server.workflows.values())
        assert sorted(colors, key=int) == [str(number) for number in range(rows)]
        assert len(server.workflows) == rows + 1
        files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
        assert files == {f"album {number % 3}/id-{number}.png" for number in range(rows)}
        within_the_limit(server)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_batch_of_3000(tmp_path: Path) -> None:
    """3,000 rows: 3,001 workflows, 3,000 files, none doubled, no 429."""
    stops = [signal.SIGINT, signal.SIGKILL, signal.SIGINT, signal.SIGKILL]
    await resumed_batch(tmp_path, 3000, stops)


# worker.py


async def test_worker(tmp_path: Path) -> None:
    """Sixty tasks over three workers, one of them killed, one task delivered twice at a time: none is doubled."""
    from support.redis_server import RedisServer, servers

    tasks = 60
    executable = next(iter(servers().values()))
    # The first workflow runs until the test ends it.
    with RedisServer(executable) as redis, serving(duration=lambda index: 10.0 if index else 1e6) as server:
        redis.settle("comfycontrol", LIMIT, 10 / server.speed)
        pictures = tmp_path / "pictures"
        variables = {
            **environment(server, tmp_path, redis.url),
            "REDIS_URL": redis.url,
            "LONGEST_TASK": "8",
            "PICTURES": str(pictures),
            "COMFYCONTROL_LOG": "info",
        }

        async def send(count: int) -> None:
            with Program([str(HERE / "worker.py"), str(count)], tmp_path, variables) as sender:
                assert await sender.end() == ""

        def logs() -> str:
            return "\n".join(worker.log.read_text(errors="replace") for worker in workers)

        options = ["--workers", "1", "--max-async-tasks", "10", "--max-prefetch", "1"]
        command = ["-m", "taskiq", "worker", "worker:broker", *options]
        workers = [Program(command, tmp_path, variables) for _ in range(3)]
        try:
            await send(1)
            await until(lambda: [record.status for record in server.workflows.values()] == ["running"], "it runs")
            held = next(iter(server.workflows))
            await send(tasks)  # its task too, which is then delivered a second time
            await until(lambda: f"was used before: it is {held}" in logs(), "the second delivery finds the first")
            assert server.workflows[held].status == "running"
            server.finish(held)
            await until(lambda: len(server.workflows) >= 20, "workflows are made")
            workers[0].kill()
            await until(lambda: pictures.exists() and len(list(pictures.glob("*.png"))) >= tasks, "pictures are there")
            await send(3)  # once more, long after
            await until(lambda: pending(redis) == 0, "every task is acknowledged")
        finally:
            for worker in workers:
                worker.__exit__()
        made = Counter(record.values["$color"] for record in server.workflows.values())
        assert made == Counter(str(number) for number in range(tasks)), logs()[-5000:]
        assert {path.name for path in pictures.glob("*.png")} == {f"picture-{number}-1.png" for number in range(tasks)}
        within_the_limit(server)


def pending(redis: Any) -> int:
    """Count the tasks that are not acknowledged, delivered or not."""
    with redis.client() as client:
        (group,) = client.xinfo_groups("taskiq")
        return int(group["pending"]) + int(group["lag"] or 0)


# notebook.ipynb


async def test_notebook(tmp_path: Path) -> None:
    """Every cell runs, and a picture that was read shows itself."""
    for name in ("notebook.ipynb", "picture.json"):
        shutil.copy(HERE / name, tmp_path / name)
    with serving(duration=1.0) as server:
        command = ["-c", "from nbclient.cli import main; main()", "--inplace", "notebook.ipynb"]
        with Program(command, tmp_path, environment(server, tmp_path)) as program:
            text = await program.end()
        assert program.process.returncode == 0, text
        within_the_limit(server)
    cells = json.loads((tmp_path / "notebook.ipynb").read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert "".join(outputs[-1]["data"]["text/plain"]) == "8"

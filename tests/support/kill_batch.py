"""Kill a batch with `kill -9` at random moments, resume it each time, and see that nothing was lost or doubled.

    PYTHONPATH=.:tests python tests/support/kill_batch.py [--kills 50] [--rows 200] [--seed N]

LocalServer runs in this process, the batch in a child that is killed. At the end every row must have been submitted
exactly once, and every output must be on the disk once and whole.
"""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from comfycontrol_async import ComfyControl, LocalLimiter, RetryPolicy, WatchPolicy
from comfycontrol_async.runs import _submit
from comfycontrol_async.testing import LocalServer, read_png_text

GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "color": "$text(color)"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
}
SPEED = 10.0
CONCURRENCY = 4
# Real seconds after its start within which a child is killed.
LATEST = 0.8


async def run_batch(url: str, token: str, directory: Path, rows: int) -> None:
    """Run the batch, or what is left of it: this is the child."""
    # A request of a killed child arrives within 0.06 s here, and is listed at once: looks of 0.3 s in all find it.
    setattr(_submit, "LOOKS_AT", tuple(moment / 100 for moment in _submit.LOOKS_AT))  # noqa: B010 # it is a constant
    async with ComfyControl(
        token,
        base_url=url,
        limiter=LocalLimiter(1000, 1.0),
        retry=RetryPolicy(base_delay=0.005),
        watch=WatchPolicy(min_interval=1 / SPEED, max_interval=10 / SPEED),
    ) as comfy:
        batch = comfy.map(
            GRAPH,
            ({"color": number} for number in range(rows)),
            key="color",
            concurrency=CONCURRENCY,
            journal=directory / "batch.db",
            download_to=directory / "out",
        )
        print("ready", flush=True)
        async for result in batch:
            if result.error is not None:
                raise result.error
            print(result.key, flush=True)


class Killer:
    """A server, and children that run one batch after another on it."""

    def __init__(self, server: LocalServer, directory: Path, rows: int) -> None:
        self.server = server
        self.directory = directory
        self.rows = rows

    async def start(self) -> asyncio.subprocess.Process:
        """Start a child and return it when it has begun."""
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            "--child",
            self.server.url,
            self.server.token,
            str(self.directory),
            "--rows",
            str(self.rows),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert child.stdout is not None
        await child.stdout.readline()
        return child

    async def end(self, child: asyncio.subprocess.Process, sent: signal.Signals | None = None) -> int:
        """Send a child a signal, if any, wait for its end and return its exit code; its stderr goes to ours."""
        if sent is not None and child.returncode is None:
            child.send_signal(sent)
        _, text = await child.communicate()
        sys.stderr.write(text.decode())
        assert child.returncode is not None
        return child.returncode

    def check(self) -> None:
        """See that every row was submitted exactly once, and that its output is on the disk once and whole.

        Raises:
            AssertionError: it is not so.
        """
        made = Counter(record.values["$color"] for record in self.server.workflows.values())
        assert made == Counter(str(number) for number in range(self.rows)), f"submitted: {made - Counter(set(made))}"
        files = sorted(path.name for path in (self.directory / "out").iterdir())
        assert files == sorted(f"{number}-001.png" for number in range(self.rows)), files
        for number in range(self.rows):
            text = read_png_text((self.directory / "out" / f"{number}-001.png").read_bytes())
            assert f'"color": "{number}"' in text["prompt"], number


async def kill_and_resume(
    directory: Path, *, kills: int, rows: int, draw: random.Random, tell: Callable[[str], object] = print
) -> int:
    """Run a batch that is killed so many times, or until it is done, and check it; return how often it was killed."""
    killed = 0
    async with LocalServer(
        speed=SPEED, limit=10_000, duration=1.0, delays=(0.1, 0.1, 0.1), latency=lambda: draw.uniform(0.1, 0.6)
    ) as server:
        killer = Killer(server, directory, rows)
        for number in range(1, kills + 1):
            child = await killer.start()
            pause = draw.uniform(0.0, LATEST)
            await asyncio.sleep(pause)
            code = await killer.end(child, signal.SIGKILL)
            killed += code == -signal.SIGKILL
            tell(f"{number}: killed after {pause:.3f} s with {len(server.workflows)} of {rows} submitted")
            if code == 0:
                break
        code = await killer.end(await killer.start())
        assert code == 0, f"the last run ended with {code}"
        killer.check()
    tell(f"{rows} rows, killed {killed} times: each submitted once, each output on the disk once")
    return killed


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--child", nargs=3, metavar=("URL", "TOKEN", "DIRECTORY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        url, token, directory = arguments.child
        asyncio.run(run_batch(url, token, Path(directory), arguments.rows))
        return
    with tempfile.TemporaryDirectory() as directory:
        draw = random.Random(arguments.seed)
        asyncio.run(kill_and_resume(Path(directory), kills=arguments.kills, rows=arguments.rows, draw=draw))


if __name__ == "__main__":
    main()

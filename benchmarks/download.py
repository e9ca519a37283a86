"""What it takes to download one large output to a file, beside a plain aiohttp loop in the same run.

    python benchmarks/download.py [--megabytes 200] [--rounds 7] [--json FILE]

The storage host is a bare asyncio server in a process of its own. The contenders take turns within every round, in an
order that changes; what is shown is the median over the rounds, and of the ratios within each round. The plain loop is
`session.get` and `file.write` for each chunk, as the tutorials have it: no retries, no check of the length, no file
written aside, and nothing made durable. `with fsync` adds that one call, which a file that must survive a crash needs.
"""

import argparse
import asyncio
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
from _report import machine, save, seconds, table, versions

from comfycontrol_async import ComfyControl, LocalLimiter, OutputFile
from comfycontrol_async.models import Output

GOAL = 1.1

Download = Callable[[Path], Awaitable[object]]


def serve(pipe: Connection, size: int) -> None:
    """Send so many bytes to everyone who asks, until the other end of the pipe closes."""
    lot = os.urandom(1 << 20)
    head = f'HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nContent-Type: video/mp4\r\nETag: "v1"\r\n\r\n'.encode()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(head)
                for start in range(0, size, len(lot)):
                    writer.write(lot[: size - start])
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        pipe.send(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/film.mp4?signature=x")
        await asyncio.to_thread(pipe.poll, None)

    asyncio.run(main())


def output_file(comfy: ComfyControl, url: str) -> OutputFile:
    """Return the handle of an output, without asking the API for it."""
    outputs = [Output(id="output", workflow_id="workflow", src=url)]

    async def refresh() -> list[Output]:
        return outputs

    return comfy._tools.downloader.files(outputs, refresh)[0]


def plain(session: aiohttp.ClientSession, url: str, *, durable: bool) -> Download:
    """Download as the tutorials do."""

    async def fetch(path: Path) -> None:
        async with session.get(url) as response:
            with path.open("wb") as file:
                async for chunk in response.content.iter_chunked(1 << 16):
                    file.write(chunk)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())

    return fetch


async def measure(url: str, rounds: int, size: int) -> dict[str, list[tuple[float, float]]]:
    """Return (seconds, seconds of CPU) of every download, by contender."""
    times: dict[str, list[tuple[float, float]]] = {}
    async with (
        aiohttp.ClientSession() as session,
        ComfyControl("cfc_benchmark", base_url="http://127.0.0.1:1", limiter=LocalLimiter()) as comfy,
    ):
        contenders: dict[str, Download] = {
            "plain aiohttp loop": plain(session, url, durable=False),
            "plain aiohttp loop with fsync": plain(session, url, durable=True),
            "OutputFile.save": output_file(comfy, url).save,
        }
        with tempfile.TemporaryDirectory() as directory:
            for _ in range(rounds + 1):
                for name in random.sample(sorted(contenders), len(contenders)):
                    path = Path(directory) / "film.mp4"
                    started, worked = time.perf_counter(), time.process_time()
                    await contenders[name](path)
                    took = time.perf_counter() - started, time.process_time() - worked
                    assert path.stat().st_size == size
                    path.unlink()
                    times.setdefault(name, []).append(took)
    # The first round warms up what is opened once.
    return {name: several[1:] for name, several in times.items()}


def report(times: dict[str, list[tuple[float, float]]], size: int, rounds: int, json_path: Path | None) -> None:
    """Print and write the table."""
    wall = {name: statistics.median(took for took, _ in several) for name, several in times.items()}
    work = {name: statistics.median(worked for _, worked in several) for name, several in times.items()}
    base = "plain aiohttp loop"
    rows = [
        (
            name,
            seconds(wall[name]),
            f"{size / wall[name] / 1e6:.0f}",
            f"{wall[name] / wall[base]:.2f}",
            seconds(work[name]),
        )
        for name in times
    ]
    ratio = wall["OutputFile.save"] / wall[base]
    text = (
        f"# Download of {size / 1e6:.0f} MB to a file\n\n"
        + table(("way", "median", "MB/s", "ratio", "CPU"), rows)
        + f"\n\nGoal: at most {GOAL} of the plain loop; measured {ratio:.2f}. {rounds} rounds, {machine()}, "
        + ", ".join(f"{name} {found}" for name, found in versions(["aiohttp"]).items())
        + "."
    )
    save("download", text, {"seconds": times, "ratio": ratio, "machine": machine()}, json_path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    size = options.megabytes * 1_000_000
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, size))
    server.start()
    try:
        times = asyncio.run(measure(ours.recv(), options.rounds, size))
    finally:
        server.terminate()
        server.join()
    report(times, size, options.rounds, options.json)


if __name__ == "__main__":
    main()

"""Two that download to one name at once: the file there is the one or the other, and none is overwritten unasked."""

import asyncio
import collections
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from support.download_racer import race
from support.raw_storage import Asked, raw_storage
from support.services import ID, Received, Recorder, recording

SIZE = 300_000
BODIES = {"a": b"A" * SIZE, "b": b"B" * (SIZE - 1000)}


@asynccontextmanager
async def two_services() -> AsyncIterator[list[str]]:
    """Run two APIs whose outputs have other content; a round's two transfers begin together and run side by side."""
    waiting: dict[str, asyncio.Event] = collections.defaultdict(asyncio.Event)
    here: collections.Counter[str] = collections.Counter()

    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
        _, letter, number = asked.target.removesuffix(".png").split("/")
        here[number] += 1
        if here[number] == 2:
            waiting[number].set()
        await waiting[number].wait()
        body = BODIES[letter]
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode())
        for start in range(0, len(body), 100_000):
            writer.write(body[start : start + 100_000])
            await writer.drain()
            await asyncio.sleep(0)

    def api(letter: str) -> AbstractAsyncContextManager[Recorder]:
        rounds: list[int] = []

        def answer(received: Received) -> web.Response:
            rounds.append(1)
            src = f"{storage.url}/{letter}/{len(rounds) - 1}.png"
            return web.json_response([{"id": "o", "workflow_id": ID, "src": src}])

        return recording(answer)

    async with raw_storage(reply) as storage, AsyncExitStack() as stack:
        yield [(await stack.enter_async_context(api(letter))).url for letter in BODIES]


async def in_a_process(api: str, directory: Path, rounds: int, overwrite: bool) -> list[str]:
    """Race from a process of its own."""
    arguments = ["-m", "support.download_racer", api, str(directory), str(rounds), str(overwrite)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, env=environment
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode().split("\n")[:-1]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("where", "rounds"),
    [
        pytest.param("clients", 15, id="clients"),
        pytest.param("clients", 200, id="clients-200", marks=pytest.mark.slow),
        pytest.param("processes", 200, id="processes-200", marks=pytest.mark.slow),
    ],
)
async def test_races(tmp_path: Path, where: str, rounds: int, overwrite: bool) -> None:
    """Every file is whole; with `overwrite` both succeed, without it one does and the other is told."""
    racer = race if where == "clients" else in_a_process
    async with two_services() as urls:
        ends = await asyncio.gather(*(racer(url, tmp_path, rounds, overwrite) for url in urls))
    kinds = collections.Counter(tuple(sorted(pair)) for pair in zip(*ends, strict=True))
    assert kinds == {("saved", "saved") if overwrite else ("refused", "saved"): rounds}
    for number in range(rounds):
        (path,) = (tmp_path / str(number)).iterdir()
        content = path.read_bytes()
        assert content in BODIES.values()
        if not overwrite:
            assert content == BODIES["a" if ends[0][number] == "saved" else "b"]

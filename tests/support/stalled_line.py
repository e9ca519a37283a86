"""Two network namespaces with a link between them that can be taken down, and what runs in each.

python tests/support/stalled_line.py server              answers every request, prints the moments of their arrivals
python tests/support/stalled_line.py client URL ASK      sends 40 requests, and 120 more at a line on its input
"""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch
from uuid import uuid4

from comfycontrol_async import ComfyControl, LocalLimiter
from comfycontrol_async._clock import SYSTEM_CLOCK
from comfycontrol_async._http import _attempt

LIMIT, PERIOD = 40, 4.0
PORT = 8000
SERVER_ADDRESS, CLIENT_ADDRESS = "10.213.77.1", "10.213.77.2"
TOKEN = "cfc_stalledline0000000000"
BODY = b"{}"


class Namespaces:
    """A namespace for the server, one for the client, and the link."""

    def __init__(self) -> None:
        mark = uuid4().hex[:6]
        self.server, self.client = f"cc-s-{mark}", f"cc-c-{mark}"
        self._ends = f"ccs{mark}", f"ccc{mark}"

    def make(self) -> None:
        """Make both and connect them; raises CalledProcessError where that is not allowed."""
        for name in (self.server, self.client):
            _ip("netns", "add", name)
        near, far = self._ends
        _ip("link", "add", near, "netns", self.server, "type", "veth", "peer", "name", far, "netns", self.client)
        for name, end, address in ((self.server, near, SERVER_ADDRESS), (self.client, far, CLIENT_ADDRESS)):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", end)
            _ip("-n", name, "link", "set", end, "up")

    def set_link(self, state: str) -> None:
        """Take the link down or up."""
        _ip("-n", self.server, "link", "set", self._ends[0], state)

    def run(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        """Run this file in a namespace."""
        command = ["ip", "netns", "exec", name, sys.executable, str(Path(__file__)), *arguments]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def remove(self) -> None:
        """Remove both."""
        for name in (self.server, self.client):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def why_not() -> str | None:
    """Return why there can be no namespaces here, None when there can."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        return "no `ip` here"
    namespaces = Namespaces()
    try:
        namespaces.make()
    except subprocess.CalledProcessError as error:
        return f"network namespaces are not allowed here: {error.stderr!r}"
    finally:
        namespaces.remove()
    return None


@contextmanager
def connected() -> Iterator[Namespaces]:
    """Make the namespaces, and remove them at the end."""
    namespaces = Namespaces()
    try:
        namespaces.make()
        yield namespaces
    finally:
        namespaces.remove()


async def serve() -> list[float]:
    """Answer until the input ends; return when each request arrived."""
    arrivals: list[float] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                arrivals.append(SYSTEM_CLOCK.monotonic())
                head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
                writer.write(head.encode() + BODY)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(answer, SERVER_ADDRESS, PORT, backlog=256):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
    return arrivals


async def ask(url: str, word: bool) -> int:
    """Open 40 connections, then want 120 more answers at once; return how many came."""
    silent = nullcontext() if word else patch.object(_attempt, "watch_arrival", lambda *_: None)
    with silent:  # as where TCP cannot be asked
        return await _ask(url)


async def _ask(url: str) -> int:
    async with ComfyControl(TOKEN, base_url=url, limiter=LocalLimiter(LIMIT, PERIOD)) as comfy:
        await asyncio.gather(*(comfy.request("GET", "/v1/user") for _ in range(LIMIT)))
        await asyncio.sleep(PERIOD + 0.5)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        found = await asyncio.gather(
            *(comfy.request("GET", "/v1/user") for _ in range(3 * LIMIT)), return_exceptions=True
        )
    return sum(not isinstance(one, BaseException) for one in found)


if __name__ == "__main__":
    if sys.argv[1] == "server":
        print(json.dumps(asyncio.run(serve())), flush=True)
    else:
        print(asyncio.run(ask(sys.argv[2], sys.argv[3] == "word")), flush=True)

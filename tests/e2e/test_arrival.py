"""TCP's own word whether a request has arrived, on real connections."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from comfycontrol_async._http import _tcp
from comfycontrol_async._http._tcp import Arrived, tcp_state, watch_arrival
from support.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what TCP has acknowledged")

HEADERS = 300


def watch(transport: asyncio.WriteTransport) -> Arrived:
    """Watch a request that is about to be written."""
    state = tcp_state(transport)
    assert state is not None
    return watch_arrival(transport, state, HEADERS)


@asynccontextmanager
async def connection() -> AsyncIterator[tuple[asyncio.StreamWriter, socket.socket]]:
    """Give the writing end of a TCP connection, and the socket at its other end, which reads nothing by itself."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        _, writer = await asyncio.open_connection(*listener.getsockname())
        other, _ = await asyncio.get_running_loop().sock_accept(listener)
        other.setblocking(False)
        try:
            yield writer, other
        finally:
            other.close()
            writer.transport.abort()
            await asyncio.sleep(0)


async def test_acknowledged() -> None:
    """A request has arrived when it is acknowledged, not when it is to be written; a closed connection says nothing."""
    async with connection() as (writer, _):
        arrived = watch(writer.transport)
        assert arrived() is False
        writer.write(b"x" * HEADERS)
        await eventually(lambda: arrived() is True)
        writer.transport.abort()
        await eventually(lambda: arrived() is None)


async def test_kept_alive() -> None:
    """What an earlier request wrote counts for nothing."""
    async with connection() as (writer, _):
        for _ in range(3):
            arrived = watch(writer.transport)
            assert arrived() is False
            writer.write(b"x" * HEADERS)
            await eventually(lambda: arrived() is True)  # noqa: B023 # called before the next round


async def test_without_a_state_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is written at once has arrived when nothing of the connection is outstanding."""
    async with connection() as (writer, other):
        unknown = watch_arrival(writer.transport)
        assert unknown() is None, "a peer on this machine need not be the server"
        monkeypatch.setattr(_tcp, "is_direct", lambda transport: True)
        arrived = watch_arrival(writer.transport)
        writer.write(b"x" * HEADERS)
        await eventually(lambda: arrived() is True)
        writer.write(b"u" * 20_000_000)
        await asyncio.sleep(0.05)
        assert arrived() is False
        other.close()
        writer.transport.abort()
        await eventually(lambda: arrived() is None)


async def test_closed_by_the_other_side() -> None:
    """A connection that the other side has closed is known to be no use, before anything is written."""
    async with connection() as (writer, other):

        def is_open() -> bool | None:
            state = tcp_state(writer.transport)
            return None if state is None else state.is_open

        assert is_open() is True
        other.close()
        await eventually(lambda: is_open() is not True)


async def test_stalled() -> None:
    """While the line does not move, what is written behind its end has not arrived; once it moves, it has."""
    async with connection() as (writer, other):
        writer.write(b"u" * 20_000_000)  # fills all buffers on the way
        behind = watch(writer.transport)
        writer.write(b"x" * HEADERS)
        await asyncio.sleep(0.05)
        assert behind() is False
        loop = asyncio.get_running_loop()

        async def drain() -> None:
            while await loop.sock_recv(other, 2**20):
                pass

        draining = asyncio.ensure_future(drain())
        await eventually(lambda: behind() is True)
        draining.cancel()

"""Faults that a test orders, and the life of connections."""

import asyncio
import gc
import socket
from typing import Any

import aiohttp
import pytest

from comfycontrol_async.testing import LocalServer
from support.bare_api import Api, serving, workflow_form
from support.waiting import eventually

LOST = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)


async def try_create(api: Api) -> int | None:
    """Post a workflow; return the status, or None when no answer came."""
    try:
        return (await api.call("POST", "/v1/workflow", data=workflow_form())).status
    except LOST:
        return None


async def test_failing() -> None:
    """A failure is answered with the envelope, for as many requests as ordered, and nothing is done."""
    async with serving() as api:
        api.server.fail_next("POST", "/v1/workflow", status=503, times=2)
        await api.get("/v1/workflow")
        reply = await api.call("POST", "/v1/workflow", data=workflow_form())
        assert (reply.status, reply.json) == (503, {"status": 503, "message": "service unavailable"})
        assert await try_create(api) == 503
        assert not api.server.workflows
        assert await try_create(api) == 201
        assert [it.status for it in api.server.requests] == [200, 503, 503, 201]


async def test_failing_after_the_effect() -> None:
    """A failure can hide that the request was carried out."""
    async with serving() as api:
        api.server.fail_next("POST", "/v1/workflow", status=500, effect=True)
        assert await try_create(api) == 500
        assert len(api.server.workflows) == 1


async def test_failing_with_a_body() -> None:
    """Body, headers and content type of a failure can be given."""
    async with serving() as api:
        api.server.fail_next(
            "GET", "*", status=502, body="<html>", headers={"Retry-After": "3"}, content_type="text/html"
        )
        reply = await api.call("GET", "/v1/user")
        assert (reply.status, reply.body) == (502, b"<html>")
        assert (reply.headers["Content-Type"], reply.headers["Retry-After"]) == ("text/html", "3")
        api.server.fail_next("*", "/v1/user", status=200, body=b"\xff not json")
        assert (await api.call("GET", "/v1/user")).body == b"\xff not json"
        api.server.fail_next("GET", "/v1/user", status=429)
        assert (await api.call("GET", "/v1/user")).json["status"] == 429
        assert api.server.refused == 1


async def test_paths() -> None:
    """A fault meets an exact path, an endpoint with {id}, or anything, but nothing else."""
    async with serving(delays=(0, 0, 0), duration=0) as api:
        first, second = await api.create(), await api.create()
        api.server.fail_next("GET", "/v1/workflow/{id}/outputs", status=500)
        api.server.fail_next("GET", f"/v1/workflow/{second}", status=503)
        assert (await api.call("GET", f"/v1/workflow/{first}")).status == 200
        assert (await api.call("GET", f"/v1/workflow/{second}")).status == 503
        assert (await api.call("GET", f"/v1/workflow/{second}/outputs")).status == 500
        assert (await api.call("GET", f"/v1/workflow/{second}/outputs")).status == 200


async def test_order_and_counting() -> None:
    """Faults happen in the order of asking, and a request that the edge refuses uses none up."""
    async with serving(limit=3, speed=100.0, period=1000.0, cooldown=50.0) as api:
        api.server.fail_next("GET", "/v1/user", status=500)
        api.server.fail_next("GET", "/v1/user", status=503)
        api.server.consume(4)
        assert (await api.call("GET", "/v1/user")).status == 429
        await asyncio.sleep(0.52)
        assert [(await api.call("GET", "/v1/user")).status for _ in range(4)] == [500, 503, 200, 429]


@pytest.mark.parametrize("after", [False, True])
async def test_dropping(after: bool) -> None:
    """A dropped request gets no answer, whether it was carried out or not."""
    async with serving() as api:
        api.server.drop_next("POST", "/v1/workflow", after=after)
        assert await try_create(api) is None
        assert len(api.server.workflows) == after
        record = api.server.requests[-1]
        assert (record.status, record.dropped) == (None, True)
        assert await try_create(api) == 201


async def test_delaying() -> None:
    """A late answer comes later by server seconds, together with whatever else was ordered."""
    async with serving(speed=10.0) as api:
        api.server.delay_next("GET", "/v1/user", 1.0)
        api.server.fail_next("GET", "/v1/user", status=500)
        before = api.server.now
        assert (await api.call("GET", "/v1/user")).status == 500
        assert api.server.now - before >= 0.95
        assert (await api.call("GET", "/v1/user")).status == 200


async def test_truncating() -> None:
    """A truncated answer has good headers and too little body; a truncated stream ends after its first event."""
    async with serving(speed=1.0) as api:
        api.server.truncate_next("GET", "/v1/user")
        with pytest.raises(aiohttp.ClientPayloadError):
            await api.get("/v1/user")
        id = await api.create()
        api.server.truncate_next("GET", "/v1/workflow/{id}/subscribe")
        with pytest.raises(aiohttp.ClientPayloadError):
            await api.get(f"/v1/workflow/{id}/subscribe")
        assert [it.status for it in api.server.requests] == [200, 201, 200]


BAD_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "never": ({"times": 0}, "times must be a whole number of at least 1, not 0"),
    "times": ({"times": "x"}, "times must be a whole number"),
    "path": ({"path": "v1/user"}, "path must be"),
    "no path": ({"path": 5}, "path must be"),
    "method": ({"method": "get"}, "method must be '[*]' or one such as 'GET', not 'get'"),
    "status": ({"status": 99999}, "status must be a number from 200 to 599"),
    "word": ({"status": "503"}, "status must be a number from 200 to 599"),
    "body": ({"body": {"a": 1}}, "body must be text or bytes, not a dict"),
}


@pytest.mark.parametrize(("options", "text"), BAD_FAULTS.values(), ids=BAD_FAULTS)
async def test_bad_faults(options: dict[str, Any], text: str) -> None:
    """A fault that could never happen is refused."""
    arguments: dict[str, Any] = {"method": "GET", "path": "/v1/user", "status": 503}
    async with serving() as api:
        with pytest.raises(ValueError, match=text):
            api.server.fail_next(**arguments | options)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), "x"])
async def test_bad_delays(seconds: Any) -> None:
    """So is a delay that is none."""
    async with serving() as api:
        with pytest.raises(ValueError, match="seconds must be a finite number"):
            api.server.delay_next("GET", "*", seconds)


async def test_stale_connections() -> None:
    """Idle connections can be closed under the client: a POST on one may fail, the next goes through."""
    async with serving() as api:
        await api.get("/v1/user")
        assert api.server.close_idle() == 1
        assert await try_create(api) in (None, 201)
        assert await try_create(api) == 201
        assert api.server.close_idle() == 1
        assert api.server.close_idle() == 0


async def test_busy_connections_stay() -> None:
    """Closing idle connections leaves requests under way alone."""
    async with serving(speed=10.0) as api:
        api.server.delay_next("GET", "/v1/user", 3.0)
        task = asyncio.create_task(api.get("/v1/user"))
        await eventually(lambda: bool(api.server.requests))
        assert api.server.close_idle() == 0
        assert (await task)["tier"] == "pro"


async def test_keepalive() -> None:
    """The server closes connections that were idle for too long."""
    async with serving(keepalive=0.3) as api:
        await api.get("/v1/user")
        assert len(api.server._ports[0]._server.connections) == 1  # type: ignore[union-attr]
        await eventually(lambda: not api.server._ports[0]._server.connections)  # type: ignore[union-attr]
        await api.get("/v1/user")


async def test_stopping_under_way() -> None:
    """Stopping ends slow requests and open streams at once."""
    async with serving(speed=1.0, latency=None) as api:
        api.server.delay_next("GET", "/v1/user", 60.0)
        id = await api.create()
        tasks = [asyncio.create_task(api.get(path)) for path in ("/v1/user", f"/v1/workflow/{id}/subscribe")]
        await eventually(lambda: api.server.open_streams == 1)
        before = asyncio.get_running_loop().time()
        await api.server.stop()
        assert asyncio.get_running_loop().time() - before < 5.0
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(it, aiohttp.ClientError) for it in results), results
        assert api.server.open_streams == 0


async def test_stopping_during_an_upload() -> None:
    """A client that never ends its upload does not hold up the stop."""
    server = LocalServer()
    await server.start()
    host, port = server.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = ("POST /v1/runner HTTP/1.1", "Host: x", f"Authorization: Bearer {server.token}", "Content-Length: 9", "", "")
    writer.write("\r\n".join(head).encode())
    await eventually(lambda: len(server.requests) == 1)
    before = asyncio.get_running_loop().time()
    await server.stop()
    assert asyncio.get_running_loop().time() - before < 5.0
    writer.close()
    await writer.wait_closed()


async def test_starting_again() -> None:
    """After a stop nothing listens; a second start uses the same ports and remembers everything."""
    async with serving() as api:
        id = await api.create()
        url = api.server.url
        await api.server.stop()
        await api.server.stop()
        with pytest.raises(aiohttp.ClientConnectorError):
            await api.get("/v1/user")
        await api.server.start()
        assert api.server.url == url
        assert (await api.get(f"/v1/workflow/{id}"))["id"] == id


async def test_port_in_use() -> None:
    """A port that is taken is an OSError, and leaves nothing open."""
    async with serving() as api:
        taken = int(api.server.url.rsplit(":", 1)[1])
        with pytest.raises(OSError, match=r"in use|Errno"):
            await LocalServer(port=taken).start()
        with pytest.raises(OSError, match=r"in use|Errno"):
            await LocalServer(storage_port=taken).start()
    gc.collect()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data; boundary=x", b"--x\r\nno colon\r\n\r\n"),
        ("multipart/form-data", b"--x"),
        ("text/plain", b"x"),
    ],
    ids=["header", "boundary", "kind"],
)
async def test_malformed_body(kind: str, body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A body that is no form is refused, and no traceback is logged for it."""
    async with serving() as api:
        headers = {"Authorization": f"Bearer {api.server.token}", "Content-Type": kind}
        reply = await api.call("POST", "/v1/workflow", headers=headers, data=body)
    assert reply.status == 400
    assert not caplog.records


async def test_no_http(caplog: pytest.LogCaptureFixture) -> None:
    """What is no HTTP gets 400, and nothing of it is logged: it may hold a token."""
    async with serving() as api:
        host, port = api.server.url.removeprefix("http://").split(":")
        for sent in (
            b"\x16\x03\x01\x02\x00\r\n\r\n",
            b"GET / HTTP/1.1\r\nAuthorization: Bearer " + b"x" * 9000 + b"\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(sent)
            assert (await reader.readline()).split()[1] == b"400"
            writer.close()
            await writer.wait_closed()
    assert not caplog.records


async def test_stopped_while_connecting() -> None:
    """A connection that was made just before the server stops is closed with the others."""
    for _ in range(3):
        async with LocalServer() as server:
            client = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])))
        with client:
            client.settimeout(5)
            assert client.recv(1) == b""
    gc.collect()  # what is not closed warns now

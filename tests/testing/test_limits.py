"""The rate limit, latency and loss as clients meet them over HTTP."""

import asyncio
import inspect
from typing import Any

import aiohttp
import attrs
import pytest

from comfycontrol_async.testing import LocalServer, ServerOptions
from support.bare_api import Api, form, serving


async def statuses(api: Api, count: int) -> list[int]:
    """Send requests one after the other."""
    return [(await api.call("GET", "/v1/user")).status for _ in range(count)]


@pytest.mark.parametrize("edge", ["exact", "counter", "fixed"])
async def test_limit_and_cooldown(edge: str) -> None:
    """One request too many is refused, then everything for the cooldown, then service is normal again."""
    async with serving(limit=5, period=1000.0, cooldown=50.0, speed=100.0, edge=edge) as api:
        assert await statuses(api, 7) == [200] * 5 + [429] * 2
        assert (await api.call("POST", "/v1/workflow")).status == 429
        assert api.server.refused == 3
        assert api.server.max_in_window == 8
        await asyncio.sleep(0.52)
        assert await statuses(api, 6) == [200] * 5 + [429]
        assert [it.status for it in api.server.requests] == [200] * 5 + [429] * 3 + [200] * 5 + [429]


async def test_exact_window_slides() -> None:
    """With an exact edge a request passes as soon as the one `limit` before it is a period old."""
    async with serving(limit=2, period=10.0, speed=100.0) as api:
        assert await statuses(api, 2) == [200, 200]
        await asyncio.sleep(api.server.period)
        assert await statuses(api, 2) == [200, 200]
        assert api.server.max_in_window == 2


async def test_all_answers_count() -> None:
    """Requests without a token or to nowhere use the budget as any other; downloads do not."""
    async with serving(limit=3, speed=1.0) as api:
        await api.call("GET", "/v1/user", headers={})
        await api.call("GET", "/nowhere")
        await api.call("GET", f"{api.server.storage_url}/outputs/x/y.png")
        assert await statuses(api, 2) == [200, 429]


async def test_real_seconds() -> None:
    """Limit, period and cooldown are given in real seconds, as a limiter needs them."""
    async with serving(limit=7, period=10.0, cooldown=30.0, speed=20.0) as api:
        server = api.server
        assert (server.limit, server.period, server.cooldown, server.speed) == (7, 0.5, 1.5, 20.0)


async def test_outside_client() -> None:
    """Another client behind the address uses up the budget, and can set off the cooldown."""
    async with serving(limit=5, speed=1.0) as api:
        api.server.consume(4)
        assert await statuses(api, 1) == [200]
        api.server.consume()
        assert await statuses(api, 1) == [429]
        assert len(api.server.requests) == 2
        assert api.server.max_in_window == 7


@pytest.mark.parametrize(
    ("refusal", "content_type"),
    [("html", "text/html; charset=UTF-8"), ("problem", "application/problem+json"), ("json", "application/json")],
)
async def test_refusals(refusal: str, content_type: str) -> None:
    """A 429 comes as an edge's page, a problem document or the API's envelope."""
    async with serving(limit=1, speed=10.0, refusal=refusal, retry_after=15.0) as api:
        api.server.consume(2)
        reply = await api.call("GET", "/v1/user")
        assert (reply.status, reply.headers["Content-Type"]) == (429, content_type)
        assert reply.headers["Retry-After"] == "1.5"
        if refusal == "html":
            assert b"1015" in reply.body
        elif refusal == "json":
            assert reply.json == {"status": 429, "message": "too many requests"}
        else:
            assert set(reply.json) == {"title", "status", "detail", "retry_after", "ray_id"}
            assert (reply.json["status"], reply.json["retry_after"]) == (429, 1.5)
            assert reply.json["ray_id"] == reply.headers["cf-ray"]


async def test_refusal_without_header() -> None:
    """Retry-After is sent only when asked for; a problem document has what is left of the cooldown."""
    async with serving(limit=1, speed=10.0, refusal="problem") as api:
        api.server.consume(2)
        reply = await api.call("GET", "/v1/user")
        assert "Retry-After" not in reply.headers
        assert 0 < reply.json["retry_after"] <= 1.0


async def test_refused_upload() -> None:
    """An upload is refused before its body is read, and the connection survives."""
    async with serving(limit=1, speed=1.0) as api:
        api.server.consume(2)
        reply = await api.call("POST", "/v1/workflow", data=form({"$file": b"x" * 900_000}))
        assert reply.status == 429
        assert await statuses(api, 1) == [429]
        record = api.server.requests[0]
        assert (record.parts, record.body_size > 900_000) == ((), True)


async def test_rays_differ() -> None:
    """Each answer has an id of its own."""
    async with serving() as api:
        rays = {(await api.call("GET", "/v1/user")).headers["cf-ray"] for _ in range(5)}
        assert len(rays) == 5


async def test_latency() -> None:
    """Half of the round trip passes before the request arrives, half before its answer is sent."""
    async with serving(speed=10.0, latency=2.0) as api:
        sent = api.server.now
        await api.call("GET", "/v1/user")
        arrived = api.server.requests[0].at
        assert arrived - sent >= 0.95
        assert api.server.now - arrived >= 0.95


async def test_drawn_latency() -> None:
    """The latency can be drawn for every request."""
    drawn = iter([0.0, 1.0, 0.0])
    async with serving(speed=10.0, latency=lambda: next(drawn)) as api:
        times = []
        for _ in range(3):
            before = api.server.now
            await api.call("GET", "/v1/user")
            times.append(api.server.now - before)
        assert times[1] >= 0.95
        assert next(drawn, None) is None


async def outcomes(api: Api, count: int) -> list[bool]:
    """Post to make workflows, which aiohttp never sends twice, and tell which were answered."""
    answered = []
    for _ in range(count):
        try:
            await api.create()
            answered.append(True)
        except aiohttp.ClientError:
            answered.append(False)
    return answered


async def test_loss() -> None:
    """Lost requests get no answer; half of them are lost before they arrive, half after they took effect."""
    async with serving(loss=0.5, seed=3) as api:
        answered = await outcomes(api, 80)
        server = api.server
        assert server.lost == answered.count(False)
        assert 25 < server.lost < 55
        unanswered = [it for it in server.requests if it.status is None]
        assert len(server.requests) == 80 - (server.lost - len(unanswered))
        assert 5 < len(unanswered) < server.lost - 5
        assert len(server.workflows) == len(server.requests)
    async with serving(loss=0.5, seed=3) as api:
        assert await outcomes(api, 80) == answered


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edge": "leaky"}, "edge must be"),
        ({"limit": 0}, "limit must be a whole number of at least 1"),
        ({"limit": 1.5}, "limit must be a whole number"),
        ({"limit": True}, "limit must be a whole number"),
        ({"period": 0}, "period must be more than 0"),
        ({"period": float("nan")}, "period must be a number"),
        ({"cooldown": -1}, "cooldown must be a number of at least 0"),
        ({"speed": 0.0}, "speed must be more than 0"),
        ({"speed": "fast"}, "speed must be a number"),
        ({"refusal": "xml"}, "refusal must be one of html, problem, json"),
        ({"tier": "gold"}, "tier must be one of"),
        ({"loss": 1.1}, "loss must be between 0 and 1"),
        ({"delays": (1, 2)}, "delays must be three numbers"),
        ({"delays": (1, 2, -3)}, "delays must be a number of at least 0"),
        ({"duration": -1.0}, "duration must be a number"),
        ({"latency": -1.0}, "latency must be a number"),
        ({"outcome": "failed"}, "outcome must be a function"),
        ({"sse_updates": 0}, "sse_updates must be a whole number"),
        ({"speed": 5e6}, "speed must be at most 1e\\+06"),
        ({"duration": 1e300}, "duration must be at most 1e\\+09"),
        ({"port": 65536}, "port must be at most 65535"),
        ({"host": ""}, "host must be an address"),
        ({"token": "cfc_a b"}, "token must be printable ASCII"),
        ({"comfyui_headers": {"a b": "x"}}, "'a b' is no name of a header"),
        ({"comfyui_headers": {"a": "x\ny"}}, "the value of 'a' must be text on one line"),
        ({"comfyui_headers": [("a", "b")]}, "comfyui_headers must map names to texts"),
    ],
)
async def test_bad_options(options: dict[str, Any], message: str) -> None:
    """An invalid option is named in the error, before anything listens."""
    with pytest.raises(ValueError, match=message):
        async with serving(**options):
            pass


def test_options_are_listed_by_name() -> None:
    """The constructor shows each option and its default, and refuses names that it does not know."""
    shown = inspect.signature(LocalServer.__init__).parameters
    assert set(shown) - {"self"} == {field.name for field in attrs.fields(ServerOptions)}
    assert (shown["limit"].default, shown["speed"].default) == (40, 1.0)
    with pytest.raises(TypeError, match="limt"):
        LocalServer(limt=3)  # type: ignore[call-arg] # what is tested

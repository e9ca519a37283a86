"""Outputs: signed URLs and downloads."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from comfycontrol_async.testing import read_png_text
from support.bare_api import GRAPH, Api, serving

DONE: dict[str, Any] = {"delays": (0, 0, 0), "duration": 0}


async def urls(api: Api, graph: Any = GRAPH, **fields: Any) -> list[str]:
    """Create a workflow and return the signed URLs of its outputs."""
    id = await api.create(graph, **fields)
    found = await api.get(f"/v1/workflow/{id}/outputs")
    assert all(set(it) == {"id", "workflow_id", "src"} and it["workflow_id"] == id for it in found)
    assert all(it["id"].startswith("output-") for it in found)
    return [it["src"] for it in found]


async def download(api: Api, url: str, **headers: str) -> Any:
    """Fetch without a credential."""
    return await api.call("GET", url, headers=headers)


async def test_outputs_carry_the_graph_that_ran() -> None:
    """Each output node leaves a PNG with the filled-in graph, in the order of the graph."""
    graph = {
        "1": {"class_type": "EmptyLatentImage", "inputs": {"width": "$text(width)", "height": 9000}},
        "7": {"class_type": "SaveImage", "inputs": {}},
        "2": {"class_type": "SaveImage", "inputs": {"filename_prefix": "sub/d\u00e9j\u00e0 vu"}},
    }
    async with serving(**DONE) as api:
        found = await urls(api, graph, **{"$width": "20"})
        assert [url.split("?")[0].rsplit("/", 1)[1] for url in found] == ["ComfyUI_00001_.png", "d_j_vu_00001_.png"]
        for url in found:
            assert url.startswith(f"{api.server.storage_url}/outputs/")
            reply = await download(api, url)
            assert (reply.status, reply.headers["Content-Type"]) == (200, "image/png")
            prompt = json.loads(read_png_text(reply.body)["prompt"])
            assert prompt["1"]["inputs"]["width"] == "20"
            assert prompt["2"]["inputs"]["filename_prefix"] == "sub/d\u00e9j\u00e0 vu"
            assert reply.body[16:24] == (20).to_bytes(4, "big") + (256).to_bytes(4, "big")
        assert not api.server.leaked_credentials
        assert [it.status for it in api.server.storage_requests] == [200, 200]


@pytest.mark.parametrize(
    ("inputs", "size"),
    [({"width": 40, "height": 30, "color": 0xFF0000}, (40, 30)), ({"width": "x"}, (64, 64)), ({"width": -5}, (1, 64))],
)
async def test_sizes(inputs: dict[str, Any], size: tuple[int, int]) -> None:
    """The size follows an empty image in the graph as far as it makes sense."""
    graph = {"1": {"class_type": "EmptyImage", "inputs": inputs}, "2": {"class_type": "SaveImage", "inputs": {}}}
    async with serving(**DONE) as api:
        reply = await download(api, (await urls(api, graph))[0])
        assert (int.from_bytes(reply.body[16:20], "big"), int.from_bytes(reply.body[20:24], "big")) == size


async def test_no_outputs() -> None:
    """A workflow that only shows previews completes with no outputs."""
    async with serving(**DONE) as api:
        assert await urls(api, {"1": {"class_type": "PreviewImage", "inputs": {}}}) == []


async def test_not_completed() -> None:
    """Before completion there are no outputs."""
    async with serving(duration=1e6) as api:
        id = await api.create()
        assert (await api.call("GET", f"/v1/workflow/{id}/outputs")).status == 404


async def test_finished_ui_graph() -> None:
    """Even a graph that could not run can be ended as completed by a test."""
    async with serving(speed=1.0) as api:
        id = await api.create({"nodes": [{"id": 1}], "extra": {"class_type": "SaveImage"}})
        api.server.finish(id)
        found = await api.get(f"/v1/workflow/{id}/outputs")
        assert (await download(api, found[0]["src"])).status == 200


async def test_signatures() -> None:
    """A URL that was changed in any part opens nothing."""
    async with serving(**DONE) as api:
        url = (await urls(api))[0]
        bare, query = url.split("?")
        for wrong in (
            bare,
            url.replace("signature=", "signature=0"),
            url.replace("expires=", "expires=9"),
            f"{bare}x?{query}",
            url.replace("expires=", "expires=nan"),
        ):
            assert (await download(api, wrong)).status == 403, wrong
        assert (await download(api, url)).status == 200
        assert (await api.call("POST", url, headers={})).status == 405


async def test_expiry() -> None:
    """URLs work for their lifetime only, and fresh ones can be had."""
    async with serving(**DONE, speed=100.0, url_lifetime=50.0) as api:
        url = (await urls(api))[0]
        assert (await download(api, url)).status == 200
        await asyncio.sleep(0.52)
        assert (await download(api, url)).status == 403


async def test_expiring_by_hand() -> None:
    """A test can make all URLs given so far worthless."""
    async with serving(**DONE) as api:
        id = await api.create()
        old = (await api.get(f"/v1/workflow/{id}/outputs"))[0]["src"]
        api.server.expire_urls()
        assert (await download(api, old)).status == 403
        fresh = (await api.get(f"/v1/workflow/{id}/outputs"))[0]["src"]
        assert (await download(api, fresh)).status == 200
        api.server.forget(id)
        assert (await download(api, fresh)).status == 404


async def test_ranges() -> None:
    """A download can go on where another ended."""
    async with serving(**DONE, output_size=10_000) as api:
        url = (await urls(api))[0]
        whole = await download(api, url)
        assert len(whole.body) == 10_000
        assert read_png_text(whole.body)["prompt"]
        etag = whole.headers["ETag"]
        for wanted, first, last in (("bytes=4000-", 4000, 9999), ("bytes=5-9", 5, 9), ("bytes=-10", 9990, 9999)):
            part = await download(api, url, Range=wanted, **{"If-Range": etag})
            assert (part.status, part.body) == (206, whole.body[first : last + 1])
            assert part.headers["Content-Range"] == f"bytes {first}-{last}/10000"
            assert part.headers["ETag"] == etag
        changed = await download(api, url, Range="bytes=4000-", **{"If-Range": '"other"'})
        assert (changed.status, len(changed.body)) == (200, 10_000)
        assert (await download(api, url, Range="bytes=-")).status == 200
        beyond = await download(api, url, Range="bytes=10000-")
        assert (beyond.status, beyond.headers["Content-Range"]) == (416, "bytes */10000")
        head = await api.call("HEAD", url, headers={})
        assert (head.status, head.headers["Content-Length"], head.body) == (200, "10000", b"")


async def test_broken_downloads() -> None:
    """Downloads can be cut after some bytes, or fail, so many times in a row."""
    async with serving(**DONE, output_size=100_000) as api:
        url = (await urls(api))[0]
        api.server.cut_download_next(after=40_000, times=2)
        api.server.fail_download_next(status=503)
        for _ in range(2):
            async with api.session.get(url) as response:
                assert response.content_length == 100_000
                assert len(await response.content.readexactly(40_000)) == 40_000
                with pytest.raises(aiohttp.ClientPayloadError):
                    await response.content.read()
        assert (await download(api, url)).status == 503
        assert (await download(api, url)).status == 200


async def test_leaks() -> None:
    """Any credential sent to the storage is noted, with its place and without showing its value."""
    async with serving(**DONE) as api:
        url = (await urls(api))[0]
        await download(api, url, Authorization=f"Bearer {api.server.token}")
        await download(api, url, Cookie="session=1")
        await download(api, url, **{"X-Key": api.server.token})
        await download(api, f"{url}&token={api.server.token}")
        places = [it.place for it in api.server.leaked_credentials]
        assert places == ["header Authorization", "header Cookie", "header X-Key", "url"]
        assert api.server.token in api.server.leaked_credentials[0].value
        assert api.server.token not in repr(api.server.leaked_credentials)

"""Names of downloaded files come from strangers: none leaves its directory."""

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from comfycontrol_async import (
    ComfyControl,
    DownloadError,
    InvalidArgumentError,
    LocalLimiter,
    RetryPolicy,
)
from support.graphs import GRAPH
from support.services import ID, Received, connected, finished, names_in, recording


class TestHostileNames:
    """Names come from strangers: none leaves the directory."""

    @pytest.mark.parametrize(
        "name",
        [
            "../../escape",
            "/etc/passwd",
            "..",
            "a/b/c",
            "a\\..\\b",
            "C:\\windows\\x",
            "con",
            "nul.png",
            "line\nbreak\x00zero",
            "x" * 200,
            "   ",
            ".hidden",
            "~root",
            "$HOME {id} %s",
            "{index}",
            "猫" * 100,
        ],
    )
    async def test_workflow_names(self, tmp_path: Path, name: str) -> None:
        """Whatever the workflow is called, its files lie in the directory, each of one component."""
        out = tmp_path / "out"
        out.mkdir()
        async with connected(delays=(0.0, 0.0, 0.0), duration=0.0) as (server, comfy):
            run = await comfy.run(GRAPH, name="w")
            server.workflows[run.id].name = name
            await run.refresh()
            (path,) = await run.download(out)
        assert path.parent == out
        assert path.is_file()
        assert names_in(tmp_path) == ["out", f"out/{path.name}"]
        assert path.suffix == ".png"
        assert not set(path.name) & set('/\\:\n\x00<>"|?*')
        assert len(path.name.encode()) <= 255

    @pytest.mark.parametrize(
        "template",
        ["../{name}{ext}", "/tmp/{name}{index}", "a/../../{index}", "{ext}", "..", "{name.__class__}{index}", "{id!r}"],
    )
    async def test_templates(self, tmp_path: Path, template: str) -> None:
        """Nor does a template lead out of it."""
        out = tmp_path / "out"
        out.mkdir()
        async with finished() as (_, _, run):
            (path,) = await run.download(out, template=template)
        assert path.parent == out
        assert names_in(tmp_path) == ["out", f"out/{path.name}"]

    @pytest.mark.parametrize(
        "template", ["{nothing}", "{}", "{0}", "{name", "{index:q}", "{name.nothing}", "{name[0]}{"]
    )
    async def test_templates_that_cannot_be_filled_in(self, tmp_path: Path, template: str) -> None:
        """A template with a slip is told before anything is fetched."""
        async with finished() as (server, _, run):
            with pytest.raises(InvalidArgumentError, match="template"):
                await run.download(tmp_path, template=template)
            assert len(server.storage_requests) == 0

    async def test_templates_that_give_one_name(self, tmp_path: Path) -> None:
        """Two outputs cannot have one name."""
        async with finished(2) as (server, _, run):
            with pytest.raises(InvalidArgumentError, match="index"):
                await run.download(tmp_path, template="{name}{ext}")
            assert len(server.storage_requests) == 0

    @pytest.mark.parametrize(
        "src",
        [
            "{url}/a/../../../etc/cron.d/x?signature=s",
            "{url}/%2e%2e%2f%2e%2e%2fescape?signature=s",
            "{url}/a/x.p%2Fng",
            "{url}/a/.%00",
            "{url}/",
            "{url}/a/x.png%20..%2f..%2f",
        ],
    )
    async def test_urls(self, tmp_path: Path, src: str) -> None:
        """Only a harmless extension is taken from a URL."""
        out = tmp_path / "out"

        def answer(received: Received) -> web.Response:
            if received.target.startswith("/v1/"):
                return web.json_response([{"id": "o", "workflow_id": ID, "src": src.format(url=url[0])}])
            return web.Response(body=b"content")

        url: list[str] = []
        async with recording(answer) as other:
            url.append(other.url)
            async with ComfyControl("cfc_x", base_url=other.url, limiter=LocalLimiter(10, 10.0)) as comfy:
                (path,) = await comfy.get_run(ID).download(out)
        assert path.parent == out
        assert path.read_bytes() == b"content"
        assert names_in(tmp_path) == ["out", f"out/{path.name}"]
        assert "Authorization" not in other.received[-1].headers

    @pytest.mark.parametrize("src", ["not a url", "ftp://example.com/x", "file:///etc/passwd", "http://[bad/", ""])
    async def test_urls_that_are_none(self, tmp_path: Path, src: str) -> None:
        """A source that is no http(s) URL is our own error."""

        def answer(received: Received) -> web.Response:
            return web.json_response([{"id": "o", "workflow_id": ID, "src": src}])

        async with recording(answer) as other:
            options: dict[str, Any] = {"retry": RetryPolicy(attempts=1), "limiter": LocalLimiter(10, 10.0)}
            async with ComfyControl("cfc_x", base_url=other.url, **options) as comfy:
                with pytest.raises(DownloadError):
                    await comfy.get_run(ID).download(tmp_path)
        assert names_in(tmp_path) == []

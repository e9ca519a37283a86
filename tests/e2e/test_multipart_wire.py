"""Multipart bodies as they go over the wire, and whole again in every attempt."""

import asyncio
import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from comfycontrol_async import ComfyControl, File, Graph, GraphError, InvalidArgumentError, LocalLimiter
from comfycontrol_async.testing import LocalServer
from support.graphs import FILE_GRAPH, GRAPH
from support.services import Received, client_of, recording, sent, serving

SUMMARY = {
    "id": "a1b2c3d4-e5f6-7890-abcd-ef1234567890",
    "name": "w",
    "status": "accepted",
    "tags": [],
    "created_at": "2024-01-15T14:30:00Z",
    "updated_at": "2024-01-15T14:30:00Z",
}
CONTENT = bytes(range(256)) * 1000


def accept(received: Received) -> web.Response:
    """Answer every request with a workflow that was made."""
    return web.json_response(SUMMARY, status=201)


def parts_of(received: Received) -> list[tuple[bytes, bytes]]:
    """Split a multipart body into its parts, each its headers and its content, byte for byte."""
    kind, _, boundary = received.headers["Content-Type"].partition("; boundary=")
    assert kind == "multipart/form-data"
    first, *parts, last = received.body.split(b"--" + boundary.strip('"').encode())
    assert (first, last) == (b"", b"--\r\n")
    found = []
    for part in parts:
        headers, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        found.append((headers, content.removesuffix(b"\r\n")))
    return found


async def send_form(graph: Any = FILE_GRAPH, **arguments: Any) -> list[tuple[bytes, bytes]]:
    """Send one create to a bare server and return the parts that came."""
    async with (
        recording(accept) as other,
        ComfyControl("cfc_x", base_url=other.url, limiter=LocalLimiter(10, 10.0)) as comfy,
    ):
        await comfy.workflows.create(graph, name=arguments.pop("name", "w"), **arguments)
    (received,) = other.received
    assert int(received.headers["Content-Length"]) == len(received.body)
    return parts_of(received)


def disposition(headers: bytes) -> bytes:
    """Return a part's Content-Disposition."""
    (line,) = [line for line in headers.split(b"\r\n") if line.lower().startswith(b"content-disposition:")]
    return line.partition(b":")[2].strip()


class TestBytes:
    """Byte for byte."""

    async def test_field_names(self) -> None:
        """Names, texts and files stand as the API wants them: `name`, `workflow_json`, `tags`, `$x`, `#x`."""
        parts = await send_form(
            params={"prefix": "a cat", "method": "area", "image": File(b"\x89PNG", filename="cat.png")},
            tags=["production", "gpu-a100"],
            name="Text to Image",
        )
        shown = {disposition(headers): content for headers, content in parts}
        assert json.loads(shown.pop(b'form-data; name="workflow_json"; filename="workflow.json"')) == FILE_GRAPH
        assert shown == {
            b'form-data; name="name"': b"Text to Image",
            b'form-data; name="tags"': b"production,gpu-a100",
            b'form-data; name="$image"; filename="cat.png"': b"\x89PNG",
            b'form-data; name="#method"': b"area",
            b'form-data; name="$prefix"': b"a cat",
        }
        kinds = [headers for headers, _ in parts if b'filename="cat.png"' in headers]
        assert b"Content-Type: image/png" in kinds[0]

    @pytest.mark.parametrize(
        "value", ["", "ünïcödé ✓ 猫", "two\nlines\r\nand -- more", '"quoted" \\ back', "=1+1; a&b=c%20d", 12, 0.5, True]
    )
    async def test_text_values(self, value: object) -> None:
        """A text goes over as it is, in UTF-8, and numbers as text."""
        parts = await send_form(params={"prefix": value, "image": b"x"})
        (content,) = [content for headers, content in parts if disposition(headers) == b'form-data; name="$prefix"']
        expected = str(value).lower() if isinstance(value, bool) else str(value)
        assert content.decode() == expected

    @pytest.mark.parametrize(
        ("filename", "on_the_wire"),
        [
            pytest.param("plain.png", b"plain.png", id="plain"),
            pytest.param("my cat (1).png", b"my cat (1).png", id="spaces"),
            pytest.param("été 猫.png", "été 猫.png".encode(), id="non-ascii"),
            pytest.param('a "b".png', b'a \\"b\\".png', id="quotes"),
            pytest.param("50%20off$#.png", b"50%20off$#.png", id="percent"),
        ],
    )
    async def test_file_names(self, server: LocalServer, tmp_path: Path, filename: str, on_the_wire: bytes) -> None:
        """File names are not percent-encoded, and a server reads them as they were."""
        path = tmp_path / filename
        path.write_bytes(b"x")
        parts = await send_form(params={"prefix": "p", "image": path})
        (shown,) = [disposition(headers) for headers, _ in parts if b'name="$image"' in headers]
        assert shown == b'form-data; name="$image"; filename="' + on_the_wire + b'"'
        async with client_of(server) as comfy:
            await comfy.workflows.create(FILE_GRAPH, name="w", params={"prefix": "p", "image": path})
        (part,) = [part for part in server.requests[0].parts if part.name == "$image"]
        assert part.filename == filename

    async def test_non_ascii_parameter_and_tag(self, server: LocalServer, comfy: ComfyControl) -> None:
        """Parameter names and tags may be any text."""
        graph = Graph(GRAPH).set("2", "filename_prefix", "$text(größe)")
        made = await comfy.workflows.create(graph, name="Größe ✓", params={"größe": "x"}, tags=["grün"])
        record = server.workflows[made.id]
        assert (record.name, record.tags, record.values["$größe"]) == ("Größe ✓", ["grün"], "x")

    async def test_templates(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A template's graph goes as a file; an update sends only what is given."""
        template = await comfy.templates.create("name", "what it does", GRAPH)
        await comfy.templates.update(template.id, description="äöü")
        assert [[part.name for part in record.parts] for record in server.requests] == [
            ["name", "description", "body"],
            ["description"],
        ]
        assert server.templates[template.id]["body"] == GRAPH
        assert (await comfy.templates.get(template.id)).graph == Graph(GRAPH)

    async def test_rerun_without_changes(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A rerun that changes nothing is still a form that the service can read."""
        made = await comfy.workflows.create(GRAPH, name="w")
        again = await comfy.workflows.rerun(made.id)
        assert again.id != made.id
        assert server.workflows[again.id].values == server.workflows[made.id].values

    async def test_rerun_with_changes(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A rerun sends only the values that change, files among them."""
        made = await comfy.workflows.create(
            FILE_GRAPH, name="w", params={"prefix": "a", "image": b"old", "method": "area"}
        )
        again = await comfy.workflows.rerun(made.id, params={"image": File(b"new", filename="n.png"), "prefix": "b"})
        assert sorted(part.name for part in server.requests[-1].parts) == ["$image", "$prefix"]
        record = server.workflows[again.id]
        assert record.values == {"$prefix": "b", "#method": "area"}
        assert (record.files["image"].data, record.files["image"].filename) == (b"new", "n.png")


def _stream(path: Path) -> Any:
    return path.open("rb")


SOURCES: dict[str, Callable[[Path], Any]] = {
    "path": lambda path: path,
    "bytes": lambda path: path.read_bytes(),
    "File-of-str": lambda path: File(str(path)),
    "File-of-path": lambda path: File(path, filename="other.bin"),
    "File-of-bytes": lambda path: File(path.read_bytes()),
    "File-of-stream": lambda path: File(path.open("rb")),
    "File-of-memory": lambda path: File(io.BytesIO(path.read_bytes())),
    "File-of-callable": lambda path: File(lambda: path.open("rb")),
}


class TestEveryAttempt:
    """A form is built again for each attempt, from whatever source."""

    @pytest.mark.parametrize("source", SOURCES)
    async def test_create_after_429(
        self, server: LocalServer, comfy: ComfyControl, tmp_path: Path, source: str
    ) -> None:
        """After a refusal the file part is whole."""
        path = tmp_path / "input.bin"
        path.write_bytes(CONTENT)
        server.fail_next("POST", "/v1/workflow", status=429)
        value = SOURCES[source](path)
        made = await comfy.workflows.create(FILE_GRAPH, name="w", params={"prefix": "p", "image": value})
        assert len(server.requests) == 2
        assert server.workflows[made.id].files["image"].data == CONTENT
        assert len({record.body_size for record in server.requests}) == 1
        if isinstance(value, File) and hasattr(value.source, "close"):
            value.source.close()

    @pytest.mark.parametrize("source", SOURCES)
    async def test_create_after_a_refused_connection(self, tmp_path: Path, source: str) -> None:
        """So it is after attempts that never left."""
        path = tmp_path / "input.bin"
        path.write_bytes(CONTENT)
        async with serving() as server, client_of(server) as comfy:
            await server.stop()
            value = SOURCES[source](path)
            call = asyncio.ensure_future(
                comfy.workflows.create(FILE_GRAPH, name="w", params={"prefix": "p", "image": value})
            )
            await asyncio.sleep(0.02)
            await server.start()
            made = await call
            assert server.workflows[made.id].files["image"].data == CONTENT
            if isinstance(value, File) and hasattr(value.source, "close"):
                value.source.close()

    async def test_template_after_503(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A PUT whose first attempts were answered or dropped sends its file whole again."""
        template = await comfy.templates.create("name", "what it does", GRAPH)
        big = Graph(GRAPH).set("2", "filename_prefix", "x" * 300_000)
        server.fail_next("PUT", "*", status=503)
        server.fail_next("PUT", "*", status=503, effect=True)
        server.drop_next("PUT", "*")
        server.drop_next("PUT", "*", after=True)
        await comfy.templates.update(template.id, graph=big)
        assert sent(server, "PUT") == [f"PUT /v1/template/{template.id}"] * 5
        assert len({record.body_size for record in server.requests[1:]}) == 1
        assert server.templates[template.id]["body"] == big.nodes

    async def test_a_stream_is_sent_from_where_it_stands(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A stream's rest is sent, in every attempt the same, and the stream stays open."""
        stream = io.BytesIO(b"skipped" + CONTENT)
        stream.seek(7)
        server.fail_next("POST", "/v1/workflow", status=429)
        made = await comfy.workflows.create(FILE_GRAPH, name="w", params={"prefix": "p", "image": File(stream)})
        assert server.workflows[made.id].files["image"].data == CONTENT
        assert not stream.closed

    async def test_a_file_that_goes_between_attempts(
        self, server: LocalServer, comfy: ComfyControl, tmp_path: Path
    ) -> None:
        """A file that is gone at the second attempt is our own error, and no slot is lost."""
        path = tmp_path / "input.bin"
        path.write_bytes(CONTENT)
        opened: list[int] = []

        def open_once() -> Any:
            opened.append(1)
            if len(opened) > 2:  # once to learn the size, once to send
                path.unlink(missing_ok=True)
            return path.open("rb")

        server.fail_next("POST", "/v1/workflow", status=429)
        with pytest.raises(InvalidArgumentError, match="cannot be read"):
            await comfy.workflows.create(FILE_GRAPH, name="w", params={"prefix": "p", "image": File(open_once)})
        assert len(server.requests) == 1
        assert comfy.limiter.snapshot().used <= 1
        assert not server.workflows

    async def test_a_callable_that_gives_one_stream(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A function that does not open again is found out: nothing empty is sent."""
        stream = io.BytesIO(CONTENT)
        with pytest.raises(InvalidArgumentError, match="image"):
            await comfy.workflows.create(FILE_GRAPH, name="w", params={"prefix": "p", "image": File(lambda: stream)})
        assert not server.workflows


class TestSize:
    """50 MB at most, and the loop goes on meanwhile."""

    async def test_too_big(self, server: LocalServer, comfy: ComfyControl, tmp_path: Path) -> None:
        """Over 50 MB nothing is sent, whatever the source, and the text says how much it was."""
        path = tmp_path / "big.bin"
        with path.open("wb") as file:
            file.truncate(50_000_001)  # a hole, that takes no space
        sources = [path, File(path), File(lambda: path.open("rb")), bytes(50_000_001)]
        for source in sources:
            with pytest.raises((InvalidArgumentError, GraphError), match="50"):
                await comfy.workflows.create(FILE_GRAPH, name="w", params={"prefix": "p", "image": source})
        with path.open("rb") as stream, pytest.raises((InvalidArgumentError, GraphError), match="50"):
            await comfy.workflows.create(FILE_GRAPH, name="w", params={"prefix": "p", "image": File(stream)})
        assert len(server.requests) == 0
        assert comfy.limiter.snapshot().used == 0

    async def test_sum_of_two(self, server: LocalServer, comfy: ComfyControl, tmp_path: Path) -> None:
        """The request as a whole counts."""
        path = tmp_path / "half.bin"
        with path.open("wb") as file:
            file.truncate(26_000_000)
        graph = Graph({**FILE_GRAPH, "4": {"class_type": "LoadImage", "inputs": {"image": "$file(mask)"}}})
        with pytest.raises((InvalidArgumentError, GraphError), match="50"):
            await comfy.workflows.create(graph, name="w", params={"prefix": "p", "image": path, "mask": path})
        assert len(server.requests) == 0

    async def test_a_big_upload_leaves_the_loop_free(
        self, server: LocalServer, comfy: ComfyControl, tmp_path: Path
    ) -> None:
        """While 8 MB are on their way other tasks run, and the file is opened in another thread."""
        path = tmp_path / "big.bin"
        path.write_bytes(CONTENT * 32)
        threads: set[str] = set()
        turns = 0

        def opening() -> Any:
            threads.add(threading.current_thread().name)
            return path.open("rb")

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        made = await comfy.workflows.create(FILE_GRAPH, name="w", params={"prefix": "p", "image": File(opening)})
        counting.cancel()
        assert len(server.workflows[made.id].files["image"].data) == 8_192_000
        assert threads
        assert threading.main_thread().name not in threads
        assert turns > 50

    async def test_other_requests_pass_it(self, server: LocalServer, comfy: ComfyControl, tmp_path: Path) -> None:
        """Requests beside a big upload are answered before it is."""
        path = tmp_path / "big.bin"
        path.write_bytes(CONTENT * 32)
        server.delay_next("POST", "/v1/workflow", 0.2 * server.speed)
        upload = asyncio.create_task(
            comfy.workflows.create(FILE_GRAPH, name="w", params={"prefix": "p", "image": path})
        )
        await asyncio.gather(*(comfy.user.get() for _ in range(20)))
        assert not upload.done()
        await upload

    async def test_cancelled_upload(self, server: LocalServer, comfy: ComfyControl, tmp_path: Path) -> None:
        """An upload that is cancelled on its way closes its file (a leaked one is a warning, which fails the test)."""
        path = tmp_path / "big.bin"
        path.write_bytes(CONTENT * 32)
        server.delay_next("POST", "/v1/workflow", 10_000.0, times=20)
        for turns in (0, 1, 2, 3, 5, 10, 20, 50, 100, 300, 1000):
            upload = asyncio.create_task(
                comfy.workflows.create(FILE_GRAPH, name="w", params={"prefix": "p", "image": path})
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            upload.cancel()
            with pytest.raises(asyncio.CancelledError):
                await upload
        assert (await comfy.user.get()).name == "Local User"

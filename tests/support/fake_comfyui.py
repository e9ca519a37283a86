"""A ComfyUI for tests: it answers as a recorded 0.3.64 does, and can be killed, restarted and stalled.

It runs one prompt at a time. EmptyImage, ImageBatch, LoadImage, ImageBlur, SaveImage, SaveVideo, PreviewImage,
RegexReplace and PreviewAny do what tests need of them; each ImageBlur takes `blur` seconds, a whole prompt `seconds`.
"""

import asyncio
import itertools
import json
import re
import uuid
from pathlib import Path
from typing import Any, Self

import attrs
from aiohttp import WSMsgType, web

from comfycontrol_async import NodeDefinitions
from comfycontrol_async.graph._validate import Fault, needed_by, output_nodes, validate
from comfycontrol_async.testing._png import write_png

Json = dict[str, Any]
_INFO: Json = json.loads((Path(__file__).parents[1] / "data" / "comfyui" / "object_info.json").read_text())
_TEXTS = {name: ["STRING", {}] for name in ("string", "regex_pattern", "replace")}
_MORE: dict[str, Json] = {
    "ImageBatch": {"input": {"required": {"image1": ["IMAGE"], "image2": ["IMAGE"]}}, "output": ["IMAGE"]},
    "RegexReplace": {"input": {"required": _TEXTS}, "output": ["STRING"]},
}
_DEFINITIONS = NodeDefinitions({**_INFO, **{name: {**info, "output_node": False} for name, info in _MORE.items()}})
_SAVERS = ("SaveImage", "SaveVideo", "PreviewImage")


@attrs.define(eq=False)
class Prompt:
    """One prompt in the queue."""

    number: int
    id: str
    graph: Json
    client_id: str
    outputs: list[str]
    interrupted: bool = False

    @property
    def row(self) -> list[Any]:
        """The prompt as /queue shows it."""
        return [self.number, self.id, self.graph, {"client_id": self.client_id}, self.outputs]


@attrs.define(eq=False, kw_only=True)
class FakeComfyUI:
    """The server; its queue and history are lost by `kill`, its files are not."""

    seconds: float = 0.04
    blur: float = 0.5
    headers: Json = attrs.field(factory=dict)
    ignores_interrupt_id: bool = False
    lost_answers: int = 0
    dead: bool = False
    sockets_closed: bool = False
    files: dict[tuple[str, str, str], bytes] = attrs.field(factory=dict)
    pending: list[Prompt] = attrs.field(factory=list)
    running: Prompt | None = None
    history: dict[str, Json] = attrs.field(factory=dict)
    requests: list[tuple[str, str]] = attrs.field(factory=list)
    posted: list[Json] = attrs.field(factory=list)
    _port: int = 0
    _numbers: Any = attrs.field(factory=itertools.count)
    _cache: dict[str, Json] = attrs.field(factory=dict)
    _sockets: dict[str, web.WebSocketResponse] = attrs.field(factory=dict)
    _more: asyncio.Event = attrs.field(factory=asyncio.Event)
    _answering: asyncio.Event = attrs.field(factory=asyncio.Event)
    _runner: web.AppRunner | None = None
    _worker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Start, or start again on the same port."""
        app = web.Application(middlewares=[self._receive], client_max_size=1 << 28)
        app.add_routes(
            [
                web.get("/ws", self._ws),
                web.post("/prompt", self._prompt),
                web.get("/queue", self._queue),
                web.post("/queue", self._delete),
                web.post("/interrupt", self._interrupt),
                web.get("/history/{id}", self._history),
                web.get("/view", self._view),
                web.post("/upload/image", self._upload),
                web.get("/system_stats", self._stats),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self._answering.set()
        self._worker = asyncio.create_task(self._work())

    async def kill(self) -> None:
        """Die: all connections break, queue and history are gone."""
        self._answering.set()
        runner, self._runner = self._runner, None
        if runner is not None and self._worker is not None:
            self._worker.cancel()
            for socket in list(self._sockets.values()):
                await socket.close()
            await runner.cleanup()
        self.pending.clear()
        self.history.clear()
        self._cache.clear()
        self.running = None

    def stall(self) -> None:
        """Answer nothing until `resume`."""
        self._answering.clear()

    def resume(self) -> None:
        """Answer again."""
        self._answering.set()

    async def close_sockets(self) -> None:
        """Break the websockets, and take no new ones."""
        self.sockets_closed = True
        for socket in list(self._sockets.values()):
            await socket.close()

    # Requests

    @web.middleware
    async def _receive(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        await self._answering.wait()
        if any(request.headers.get(name) != value for name, value in self.headers.items()):
            return web.Response(status=401, text="<html>log in</html>", content_type="text/html")
        response: web.StreamResponse = await handler(request)
        return response

    async def _ws(self, request: web.Request) -> web.StreamResponse:
        if self.sockets_closed:
            raise web.HTTPServiceUnavailable
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        client_id = request.query["clientId"]
        self._sockets[client_id] = socket
        async for message in socket:
            assert message.type is WSMsgType.TEXT
        self._sockets.pop(client_id, None)
        return socket

    async def _prompt(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        graph = body["prompt"]
        error, node_errors, outputs = self._validate(graph)
        if error is not None:
            return web.json_response({"error": error, "node_errors": node_errors}, status=400)
        number = next(self._numbers)
        prompt_id = body.get("prompt_id") or str(uuid.uuid4())
        self.posted.append(body)
        self.pending.append(Prompt(number, prompt_id, graph, body.get("client_id", ""), outputs))
        self._more.set()
        if self.lost_answers:
            self.lost_answers -= 1
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"prompt_id": prompt_id, "number": number, "node_errors": node_errors})

    def _validate(self, graph: Json) -> tuple[Json | None, Json, list[str]]:
        """Return the error of a graph as a whole, those of its nodes, and the outputs that can run."""
        faults = [fault for fault in validate(graph, _DEFINITIONS) if not self._has(fault)]
        for fault in faults:
            if fault.type in ("invalid_prompt", "prompt_no_outputs"):
                return _error(fault), {}, []
        nodes: Json = {}
        for fault in faults:
            node = nodes.setdefault(fault.node, {"errors": [], "dependent_outputs": [], "class_type": fault.class_type})
            node["errors"].append(_error(fault))
        needed = {output: needed_by(graph, _DEFINITIONS, output) for output in output_nodes(graph, _DEFINITIONS)}
        outputs = [output for output, ids in needed.items() if not nodes.keys() & ids]
        whole = {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation"}
        return (None if outputs else {**whole, "details": "", "extra_info": {}}), nodes, outputs

    def _has(self, fault: Fault) -> bool:
        return fault.on_disk and ("input", *_split(str(fault.received))) in self.files

    async def _queue(self, _: web.Request) -> web.StreamResponse:
        running = [self.running.row] if self.running else []
        return web.json_response(
            {"queue_running": running, "queue_pending": [prompt.row for prompt in reversed(self.pending)]}
        )

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        ids = (await request.json())["delete"]
        self.pending = [prompt for prompt in self.pending if prompt.id not in ids]
        return web.Response()

    async def _interrupt(self, request: web.Request) -> web.StreamResponse:
        wanted = (await request.json()).get("prompt_id")
        if self.running and (self.ignores_interrupt_id or wanted in (None, self.running.id)):
            self.running.interrupted = True
        return web.Response()

    async def _history(self, request: web.Request) -> web.StreamResponse:
        id = request.match_info["id"]
        return web.json_response({id: self.history[id]} if id in self.history else {})

    async def _view(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        data = self.files.get((query["type"], query["subfolder"], query["filename"]))
        return web.Response(status=404) if data is None else web.Response(body=data)

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        field: Any = (await request.post())["image"]
        data = field.file.read()
        stem, dot, extension = field.filename.rpartition(".")
        numbered = (f"{stem} ({number}){dot}{extension}" for number in itertools.count(1))
        names = itertools.chain([field.filename], numbered)
        name = next(it for it in names if self.files.get(("input", "", it), data) == data)
        self.files["input", "", name] = data
        return web.json_response({"name": name, "subfolder": "", "type": "input"})

    async def _stats(self, _: web.Request) -> web.StreamResponse:
        system = {"os": "posix", "ram_total": 1 << 34, "ram_free": 1 << 33, "comfyui_version": "0.3.64"}
        device = {"name": "cpu", "type": "cpu", "index": None, "vram_total": 1 << 34, "vram_free": 1 << 33}
        return web.json_response({"system": {**system, "python_version": "3.12.3"}, "devices": [device]})

    # The worker

    async def _work(self) -> None:
        while True:
            if not self.pending:
                self._more.clear()
                await self._more.wait()
                continue
            if self.dead:
                self.running = self.pending.pop(0)
                await asyncio.Event().wait()
            self.pending.sort(key=lambda prompt: prompt.number)
            prompt = self.running = self.pending.pop(0)
            messages: list[Any] = []
            await self._tell(prompt, messages, "execution_start", {})
            cached = json.dumps(prompt.graph, sort_keys=True)
            outputs, ending = await self._run(prompt, self._cache.get(cached))
            if ending[0] == "execution_success":
                self._cache[cached] = outputs
            await self._tell(prompt, messages, *ending)
            failed = ending[0] != "execution_success"
            status = {"status_str": "error" if failed else "success", "completed": not failed, "messages": messages}
            self.history[prompt.id] = {"prompt": prompt.row, "outputs": outputs, "status": status, "meta": {}}
            self.running = None
            await self._tell(prompt, [], "executing", {"node": None})

    async def _tell(self, prompt: Prompt, messages: list[Any], name: str, data: Json) -> None:
        data = {**data, "prompt_id": prompt.id}
        messages.append([name, {**data, "timestamp": 0}])
        socket = self._sockets.get(prompt.client_id)
        if socket is not None and not socket.closed:
            await socket.send_json({"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}}})
            await socket.send_bytes(b"\x00\x00\x00\x01preview")
            await socket.send_json({"type": name, "data": data})

    async def _run(self, prompt: Prompt, cached: Json | None) -> tuple[Json, tuple[str, Json]]:
        outputs: Json = {}
        if cached is not None:
            return cached, ("execution_success", {})
        await asyncio.sleep(self.seconds)
        needed = set().union(*(needed_by(prompt.graph, _DEFINITIONS, output) for output in prompt.outputs))
        for id, node in [(id, node) for id, node in prompt.graph.items() if id in needed]:
            kind = {"node_id": id, "node_type": node["class_type"]}
            for _ in range(int(self.blur / 0.02) if node["class_type"] == "ImageBlur" else 0):
                if not prompt.interrupted:
                    await asyncio.sleep(0.02)
            if prompt.interrupted:
                return outputs, ("execution_interrupted", {**kind, "executed": []})
            try:
                outputs |= self._execute(prompt.graph, id)
            except re.error as error:
                texts = {"exception_type": "re.error", "exception_message": f"{error}\n", "traceback": []}
                return outputs, ("execution_error", {**kind, **texts})
        return outputs, ("execution_success", {})

    def _execute(self, graph: Json, id: str) -> Json:
        node = graph[id]
        kind, inputs = node["class_type"], node["inputs"]
        if kind == "RegexReplace":
            re.compile(inputs["regex_pattern"])
        if kind == "PreviewAny":
            return {id: {"text": ["a text"]}}
        if kind not in _SAVERS:
            return {}
        count = 1 if kind == "SaveVideo" else self._batch(graph, inputs.get("images", ["", 0])[0])
        folder = "temp" if kind == "PreviewImage" else "output"
        prefix = "ComfyUI_temp_abcde" if folder == "temp" else str(inputs.get("filename_prefix", "ComfyUI"))
        subfolder, name = _split(prefix)
        saved = []
        for _ in range(count):
            used = sum(key[:2] == (folder, subfolder) and key[2].startswith(f"{name}_") for key in self.files)
            filename = f"{name}_{used + 1:05}_{'.mp4' if kind == 'SaveVideo' else '.png'}"
            color = (used % 256, 0, 0)
            self.files[folder, subfolder, filename] = write_png(8, 8, color, {"prompt": json.dumps(graph)})
            saved.append({"filename": filename, "subfolder": subfolder, "type": folder})
        return {id: {"images": saved, **({"animated": [True]} if kind == "SaveVideo" else {})}}

    def _batch(self, graph: Json, id: str) -> int:
        inputs = graph.get(id, {"inputs": {}})["inputs"]
        links = [value[0] for value in inputs.values() if isinstance(value, list)]
        return int(inputs.get("batch_size", sum(self._batch(graph, link) for link in links) or 1))


def _error(fault: Fault) -> Json:
    return {"type": fault.type, "message": fault.message, "details": fault.details, "extra_info": {}}


def _split(path: str) -> tuple[str, str]:
    """Return folder and name."""
    folder, _, name = path.rpartition("/")
    return folder, name

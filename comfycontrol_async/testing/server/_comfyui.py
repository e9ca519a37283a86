"""One real ComfyUI: its requests and its websocket, and what may go wrong with them as one sentence."""

import itertools
import json
import math
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import attrs
from yarl import URL

from comfycontrol_async.testing.server._life import Failure

Json = dict[str, Any]

_CONNECTING = 0.8  # seconds: so that an address where nothing is gets its sentence within one
_ANSWERING = 10.0  # seconds without a byte, for anything but the transfer of a large file
_CHUNK = 1 << 18
_FACTS = ("node_id", "node_type", "exception_type", "exception_message")
_OF_NGINX = b"plain HTTP request was sent to HTTPS port"


class ComfyUIError(Exception):
    """A ComfyUI cannot be used; the text is one sentence that says why, and what to do.

    Attributes:
        sent: whether the request may have reached it.
        status: the HTTP status of its answer, None without one.
    """

    def __init__(self, message: str, *, sent: bool = True, status: int | None = None) -> None:
        super().__init__(message)
        self.sent = sent
        self.status = status


class PromptRefusedError(ComfyUIError):
    """ComfyUI refuses a graph; `failure` has its error type, and the node where there is one."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.exception_message or "ComfyUI refuses the graph", status=400)
        self.failure = failure


@attrs.frozen
class Queue:
    """The ids of the prompts that run and of those that wait, in their order."""

    running: tuple[str, ...]
    pending: tuple[str, ...]

    def place(self, prompt_id: str) -> int | None:
        """Return which one in the line a prompt is, 1 when it runs or is next; None when it is not there."""
        if prompt_id in self.running:
            return 1
        if prompt_id in self.pending:
            return self.pending.index(prompt_id) + 1 + len(self.running)
        return None


class ComfyUI:
    """Talks to one ComfyUI; `open` and `close` it on the event loop that uses it.

    Args:
        url: where it is, such as "http://127.0.0.1:8188".
        headers: sent with every request, such as an Authorization; never shown.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._base = url.rstrip("/")
        self._headers = dict(headers)
        self._session: aiohttp.ClientSession | None = None
        shown = URL(url)
        self.shown = str(shown.with_user(None) if shown.user or shown.password else shown).rstrip("/")

    def open(self) -> None:
        """Open a session; harmless when there is one."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECTING, sock_read=_ANSWERING)
            self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout)

    async def close(self) -> None:
        """Close the session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def check(self) -> None:
        """Ensure that a ComfyUI answers there."""
        try:
            await self.stats()
        except ComfyUIError as error:
            if error.sent and error.status is None and self._base.startswith("http:"):
                raise ComfyUIError(f"{error}; if it takes https only, use https://") from error
            raise

    async def stats(self) -> Json:
        """Return what it says of its machine."""
        found = await self._json("GET", "/system_stats")
        if not isinstance(found.get("system"), dict):
            raise ComfyUIError(f"{self.shown} answers, but not as a ComfyUI does: check the address")
        return found

    async def post(self, prompt_id: str, prompt: Json, client_id: str) -> Json:
        """Queue a graph under our own id, and return the answer, whose `prompt_id` counts.

        Raises:
            PromptRefusedError: it is invalid.
            ComfyUIError: see `sent` for whether it may be queued all the same.
        """
        body = {"prompt": prompt, "prompt_id": prompt_id, "client_id": client_id}
        status, data = await self._request("POST", "/prompt", json=body)
        if status == 400:
            raise PromptRefusedError(_refusal(_parsed(data)))
        self._check(status, data)
        return self._object(data)

    async def queue(self) -> Queue:
        """Return what runs and what waits."""
        found = await self._json("GET", "/queue")
        parts = [found.get(key) for key in ("queue_running", "queue_pending")]
        lists = (part if isinstance(part, list) else [] for part in parts)
        running, pending = ([row for row in part if isinstance(row, list) and len(row) > 1] for part in lists)
        # Prompts that wait come in no order: the smallest number is next.
        pending.sort(key=lambda row: row[0] if isinstance(row[0], int | float) else 0)
        return Queue(*(tuple(str(row[1]) for row in part) for part in (running, pending)))

    async def history(self, prompt_id: str) -> Json | None:
        """Return what became of a prompt; None while it is unknown, waits or runs."""
        found = (await self._json("GET", f"/history/{prompt_id}")).get(prompt_id)
        return found if isinstance(found, dict) else None

    async def upload(self, name: str, data: bytes, content_type: str) -> str:
        """Put a file into the input folder, and return the name under which nodes find it."""
        form = aiohttp.FormData()
        form.add_field("image", data, filename=name, content_type=content_type or "application/octet-stream")
        status, body = await self._request("POST", "/upload/image", data=form)
        self._check(status, body)
        answer = self._object(body)
        folder = answer.get("subfolder")
        return f"{folder}/{answer.get('name', name)}" if folder else str(answer.get("name", name))

    async def download(self, file: Mapping[str, Any], target: Path) -> None:
        """Save an output, as `history` describes it."""
        query = urlencode({key: str(file.get(key, "")) for key in ("filename", "subfolder", "type")})
        try:
            async with self._open.get(f"{self._base}/view?{query}", allow_redirects=False) as response:
                if response.status != 200:
                    self._check(response.status, await response.content.read(_CHUNK))
                    raise self._error(f"answers {response.status}", status=response.status)
                with target.open("wb") as stream:
                    async for chunk in response.content.iter_chunked(_CHUNK):
                        stream.write(chunk)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._translate(error) from error

    async def delete(self, prompt_id: str) -> None:
        """Take a prompt that waits out of the queue."""
        status, data = await self._request("POST", "/queue", json={"delete": [prompt_id]})
        self._check(status, data)

    async def interrupt(self, prompt_id: str) -> None:
        """Stop a prompt; ask `queue` first, as older versions stop whatever runs."""
        status, data = await self._request("POST", "/interrupt", json={"prompt_id": prompt_id})
        self._check(status, data)

    async def events(self, client_id: str) -> AsyncIterator[tuple[str, Json]]:
        """Yield (name, data) of what happens to the prompts of a client, until the connection ends."""
        url = f"{self._base}/ws?{urlencode({'clientId': client_id})}"
        try:
            # Previews come as binary messages of any size, and are passed over.
            async with self._open.ws_connect(url, heartbeat=_ANSWERING, max_msg_size=0) as socket:
                yield "connected", {}
                async for message in socket:
                    event = _parsed(message.data.encode()) if message.type is aiohttp.WSMsgType.TEXT else None
                    if isinstance(event, dict) and isinstance(event.get("data"), dict):
                        yield str(event.get("type")), event["data"]
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._translate(error) from error

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise ComfyUIError(f"the connection to {self.shown} is closed", sent=False)
        return self._session

    async def _json(self, method: str, path: str) -> Json:
        status, data = await self._request(method, path)
        self._check(status, data)
        return self._object(data)

    async def _request(self, method: str, path: str, **options: Any) -> tuple[int, bytes]:
        try:
            async with self._open.request(method, self._base + path, allow_redirects=False, **options) as response:
                if response.status in (301, 302, 303, 307, 308):
                    target = response.headers.get("Location", "")
                    raise self._error(
                        "takes https only: use https://"
                        if target.startswith("https:") and self._base.startswith("http:")
                        else "redirects to another address: use that one",
                        status=response.status,
                    )
                return response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise self._translate(error) from error

    def _check(self, status: int, data: bytes) -> None:
        """Refuse an answer that is no success."""
        if 200 <= status < 300:
            return
        if _OF_NGINX in data:
            raise self._error("takes https only: use https://", status=status)
        if status in (401, 403):
            raise self._error(
                f"answers {status}: it needs headers, such as an Authorization; give them as comfyui_headers, or as "
                "headers of its runner",
                status=status,
            )
        raise self._error(f"answers {status}", status=status)

    def _object(self, data: bytes) -> Json:
        found = _parsed(data)
        if isinstance(found, dict):
            return found
        if data.lstrip()[:1] == b"<":
            raise self._error("answers with an HTML page: it is something else, or a login page stands before it")
        raise self._error("answers something else than JSON: check the address")

    def _error(self, what: str, *, sent: bool = True, status: int | None = None) -> ComfyUIError:
        return ComfyUIError(f"the ComfyUI at {self.shown} {what}", sent=sent, status=status)

    def _translate(self, error: Exception) -> ComfyUIError:
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return self._error("has a certificate that is not trusted", sent=False)
        if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
            return self._error("does not speak https: use http://", sent=False)
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return self._error("cannot be reached: check the address, and that it runs", sent=False)
        if isinstance(error, aiohttp.ClientConnectorError):
            number = error.os_error.errno
            reason = os.strerror(number) if number and number > 0 else error.strerror or "no such host"
            return self._error(f"cannot be reached ({reason}): check the address, and that it runs", sent=False)
        if isinstance(error, TimeoutError):
            return self._error(f"gave no answer within {_ANSWERING:g} s")
        if isinstance(error, ValueError):
            return self._error("has an address that cannot be used", sent=False)
        return self._error("closed the connection, or does not answer in HTTP")


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _refusal(answer: Any) -> Failure:
    """Return the first error of a refused graph: that of a node, if there is one, says more than that of the whole."""
    answer = answer if isinstance(answer, dict) else {}
    whole = answer.get("error")
    whole = whole if isinstance(whole, dict) else {"message": whole}
    of_node = first_fault(answer)
    if of_node is not None:
        return of_node
    node_id = str(whole.get("details") or "").partition("#")[2].strip("'") or None  # "Node ID '#3'"
    return Failure(node_id, None, str(whole.get("type") or "invalid_prompt"), _sentence(whole))


def first_fault(answer: Json) -> Failure | None:
    """Return the first error of a node in the answer to a graph: it may run in spite of it, by its other outputs."""
    nodes = answer.get("node_errors")
    for node_id, found in nodes.items() if isinstance(nodes, dict) else ():
        for error in found.get("errors") or () if isinstance(found, dict) else ():
            return Failure(node_id, found.get("class_type"), str(error.get("type")), _sentence(error))
    return None


def _sentence(error: Mapping[str, Any]) -> str:
    parts = [str(error.get(key) or "").strip() for key in ("message", "details")]
    return ": ".join(dict.fromkeys(filter(None, parts))) or "ComfyUI refuses the graph"


def outcome_of(history: Mapping[str, Any]) -> tuple[str, Failure | None]:
    """Return how a prompt ended, from what its history says.

    The messages distinguish an interrupted one from a failed one, `status_str` does not. What a failed one left is no
    output.
    """
    status = history.get("status")
    status = status if isinstance(status, dict) else {}
    messages = {name: data for name, data in status.get("messages") or () if isinstance(data, dict)}
    if "execution_interrupted" in messages:
        return "cancelled", None
    error = messages.get("execution_error")
    if error is not None:
        facts = [str(error.get(key) or "").strip() or None for key in _FACTS]
        return "failed", Failure(*facts)
    if status.get("status_str") == "error":
        return "failed", Failure(None, None, "ExecutionError", "ComfyUI gives no reason")
    return "completed", None


def saved_files(history: Mapping[str, Any], order: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """Return (node id, file) of the outputs in a history: what is saved, not what is temporary or a text."""
    found: list[tuple[str, dict[str, Any]]] = []
    outputs = history.get("outputs")
    for node_id, keys in outputs.items() if isinstance(outputs, dict) else ():
        lists = [files for files in keys.values() if isinstance(files, list)] if isinstance(keys, dict) else []
        found += [(node_id, file) for file in itertools.chain(*lists) if _is_saved(file)]
    places = {node_id: place for place, node_id in enumerate(order)}
    return sorted(found, key=lambda item: places.get(item[0], math.inf))


def _is_saved(file: object) -> bool:
    return isinstance(file, dict) and bool(file.get("filename")) and file.get("type", "output") == "output"

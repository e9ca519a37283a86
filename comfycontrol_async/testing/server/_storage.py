"""The storage port: signed downloads, with ranges, that need no credential and note any they are sent."""

import re
import zlib
from pathlib import Path

import attrs
from aiohttp import web

from comfycontrol_async.testing._png import pad
from comfycontrol_async.testing.server._outputs import MEDIA_TYPES, extension_of
from comfycontrol_async.testing.server._ports import send_and_cut
from comfycontrol_async.testing.server._records import LeakedCredential, RequestRecord
from comfycontrol_async.testing.server._state import State

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_TOKEN = re.compile(r"cfc_[A-Za-z0-9]+")


@attrs.define(eq=False)
class _DownloadFault:
    times: int
    after: int | None = None
    status: int | None = None


class StoragePort:
    """Takes the downloads."""

    def __init__(self, state: State) -> None:
        self.requests: list[RequestRecord] = []
        self.leaks: list[LeakedCredential] = []
        self._state = state
        self._faults: list[_DownloadFault] = []

    def cut_next(self, after: int, times: int) -> None:
        """Close the connections of the next downloads after so many bytes of body."""
        self._faults.append(_DownloadFault(times, after=after))

    def fail_next(self, status: int, times: int) -> None:
        """Answer the next downloads with `status`."""
        self._faults.append(_DownloadFault(times, status=status))

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one download."""
        record = self._record(request)
        fault = self._take_fault()
        if fault is not None and fault.status is not None:
            response: web.StreamResponse = web.Response(status=fault.status)
        else:
            response = self._answer(request, record, whole=fault is not None)
        record.settle(status=response.status)
        if fault is not None and fault.after is not None and isinstance(response, web.Response):
            return await _send_partly(request, response, fault.after)
        return response

    def _answer(self, request: web.BaseRequest, record: RequestRecord, *, whole: bool) -> web.StreamResponse:
        query = record.query
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405)
        if not self._state.signer.valid(record.path, query.get("signature", ""), query.get("expires", "")):
            return web.Response(status=403, text="signature is wrong or has expired\n")
        media_type = MEDIA_TYPES.get(extension_of(record.path), "application/octet-stream")
        file = self._on_disk(record.path)
        # A fault that cuts a download needs the bytes; else a file is sent from the disk, however large.
        if file is not None and not whole:
            return web.FileResponse(file, headers={"Content-Type": media_type})
        data = self._content(record.path) if file is None else file.read_bytes()
        if data is None:
            return web.Response(status=404)
        return _ranged(request, data, media_type)

    def _on_disk(self, path: str) -> Path | None:
        _, _, workflow_id, name = path.split("/", 3)
        record = self._state.workflows.by_id.get(workflow_id)
        return None if record is None else record.files_on_disk.get(name)

    def _content(self, path: str) -> bytes | None:
        _, _, workflow_id, name = path.split("/", 3)
        record = self._state.workflows.by_id.get(workflow_id)
        data = None if record is None else record.content(name)
        size = self._state.options.output_size
        return data if data is None or size is None else pad(data, size)

    def _take_fault(self) -> _DownloadFault | None:
        if not self._faults:
            return None
        fault = self._faults[0]
        fault.times -= 1
        if not fault.times:
            self._faults.pop(0)
        return fault

    def _record(self, request: web.BaseRequest) -> RequestRecord:
        record = RequestRecord(
            at=self._state.time.now(),
            method=request.method,
            path=request.path,
            query=dict(request.query),
            headers=request.headers,
            body_size=request.content_length or 0,
        )
        self.requests.append(record)
        self.leaks += _leaks(request)
        return record


def _leaks(request: web.BaseRequest) -> list[LeakedCredential]:
    found = [
        LeakedCredential(request.path, f"header {name}", value)
        for name, value in request.headers.items()
        if name.lower() in ("authorization", "proxy-authorization", "cookie") or _TOKEN.search(value)
    ]
    found += [LeakedCredential(request.path, "url", token) for token in _TOKEN.findall(request.path_qs)]
    return found


def _ranged(request: web.BaseRequest, data: bytes, media_type: str) -> web.Response:
    etag = f'"{zlib.crc32(data):08x}-{len(data)}"'
    headers = {"Accept-Ranges": "bytes", "ETag": etag, "Content-Type": media_type}
    wanted = _RANGE.fullmatch(request.headers.get("Range", ""))
    if wanted is None or request.headers.get("If-Range", etag) != etag or wanted.group() == "bytes=-":
        return web.Response(body=data, headers=headers)
    size = len(data)
    first, last = _bounds(wanted[1], wanted[2], size)
    if first >= size or last < first:
        return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return web.Response(status=206, body=data[first : last + 1], headers=headers)


def _bounds(first: str, last: str, size: int) -> tuple[int, int]:
    if not first:
        return max(0, size - int(last)), size - 1
    return int(first), min(int(last), size - 1) if last else size - 1


async def _send_partly(request: web.BaseRequest, whole: web.Response, after: int) -> web.StreamResponse:
    body = whole.body if isinstance(whole.body, bytes) else b""
    response = web.StreamResponse(status=whole.status, headers=whole.headers)
    response.content_length = len(body)
    return await send_and_cut(request, response, body[:after])

"""What a handler is given."""

import attrs
from aiohttp import web

from comfycontrol_async.testing.server._records import RequestRecord
from comfycontrol_async.testing.server._state import Executor, State
from comfycontrol_async.testing.server._validation import Form, read_form


@attrs.define(eq=False)
class Call:
    """One request on its way through a handler; `id` is the one in the path, if any."""

    state: State
    executor: Executor
    request: web.BaseRequest
    record: RequestRecord
    id: str

    @property
    def now(self) -> float:
        """The server time."""
        return self.state.time.now()

    async def form(self) -> Form:
        """Read the multipart body."""
        return await read_form(self.request, self.record, self.state.options.upload_limit)

"""Workflows: executions of a graph."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Any

from comfycontrol_async._http._paginate import Pager
from comfycontrol_async.limits import Stage
from comfycontrol_async.models import Output, Workflow, WorkflowStatus, WorkflowSummary, WorkflowUpdate
from comfycontrol_async.resources._calls import GraphSource, Open, Send, command, get, get_one, listing
from comfycontrol_async.resources._checks import check_id
from comfycontrol_async.resources._events import open_events, read_events
from comfycontrol_async.resources._forms import CREATE_PATH, changes_form, make, parameters_of, workflow_form

_Outputs = list[Output]


class WorkflowsResource:
    """`comfy.workflows` (API documentation: endpoints/workflows). One request for each call, and for each page."""

    __slots__ = ("_open", "_send")

    def __init__(self, send: Send, open: Open) -> None:
        self._send = send
        self._open = open

    def list(self, *, status: WorkflowStatus | str | None = None, per_page: int = 100) -> Pager[WorkflowSummary]:
        """List your workflows, newest first.

        `status` keeps only those; the API documents it for completed, running, queued, failed and cancelled.

        Raises:
            InvalidArgumentError: `per_page` is not from 1 to 100.
        """
        return listing(self._send, "/v1/workflow", WorkflowSummary, "workflows", per_page, status)

    async def get(self, id: str) -> Workflow:
        """Fetch one workflow in full.

        Raises:
            NotFoundError: it does not exist, or is someone else's.
        """
        return await self._send(get_one(f"/v1/workflow/{check_id(id)}", Workflow, str(id), stage=Stage.FINISH))

    async def create(
        self, graph: GraphSource, *, name: str, params: Mapping[str, Any] | None = None, tags: Iterable[str] = ()
    ) -> WorkflowSummary:
        """Create a workflow and let it run: one POST. `comfy.submit` also finds out what became of a lost one.

        Args:
            graph: a `Graph`, a `Template`, a mapping, or a path to a JSON file.
            name: 1 to 200 characters.
            params: plain parameter names mapped to values: text or numbers, a choice, a `File`, `Path` or bytes.
            tags: it goes to a runner that has all of them.

        Raises:
            GraphError, InvalidArgumentError: nothing was sent.
            SubmitOutcomeUnknownError: it may or may not have been created.
        """
        form = await asyncio.to_thread(workflow_form, graph, name, params, tags)
        return await make(self._send, CREATE_PATH, form, name)

    async def cancel(self, id: str) -> None:
        """Cancel a queued or running workflow; it takes a few seconds, and one that ends first stays completed.

        Raises:
            BadRequestError: it is finished, or not queued yet: the API cannot cancel it then.
        """
        await self._send(command(f"/v1/workflow/{check_id(id)}/cancel"))

    async def rerun(self, id: str, *, params: Mapping[str, Any] | None = None) -> WorkflowSummary:
        """Run a workflow again as a new one; only the parameters given change.

        One request, and one more to learn the parameters' kinds when any is given.

        Raises:
            GraphError: a parameter is unknown or has a wrong value; nothing was made.
            SubmitOutcomeUnknownError: it may or may not have been created.
        """
        check_id(id)
        parameters = parameters_of(await self.get(id)) if params else ()
        form = await asyncio.to_thread(changes_form, parameters, params or {})
        return await make(self._send, f"/v1/workflow/{id}/rerun", form, f"rerun of {id}")

    async def outputs(self, id: str) -> _Outputs:
        """Fetch the outputs of a completed workflow; their signed URLs work for about five minutes.

        Raises:
            NotFoundError: it is not completed, or (as one page of the documentation has it) completed without any.
        """
        return await self._send(get(f"/v1/workflow/{check_id(id)}/outputs", _Outputs, stage=Stage.FINISH))

    async def subscribe(self, id: str) -> AsyncGenerator[WorkflowUpdate, None]:
        """Give a workflow's updates over one connection, as the API sends them: about one each 2 s, at most 120.

        The server closes after `completed`, `failed` or `cancelled`, but not after `invalid`. Keep-alives, and events
        that are no updates, are passed over.

        Raises:
            NotFoundError: it does not exist, or is someone else's.
            ResponseLostError, RequestTimeoutError: the connection broke.
            ResponseFormatError: the answer is no event stream, or an update is not what the API documents.
        """
        stream = await open_events(self._open, id)
        try:
            async with aclosing(read_events(stream, id)) as updates:
                async for update in updates:
                    yield update
        finally:
            stream.close()

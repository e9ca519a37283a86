"""Workflows: executions of a graph."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

from comfycontrol_async._http._convert import structurer
from comfycontrol_async._http._decode import parse_json
from comfycontrol_async._http._multipart import Form, prepare
from comfycontrol_async._http._paginate import Pager
from comfycontrol_async._http._request import Repeat, Request
from comfycontrol_async._http._sse import EventParser
from comfycontrol_async.errors import (
    RequestTimeoutError,
    ResponseFormatError,
    ResponseLostError,
    ServerError,
    SubmitOutcomeUnknownError,
)
from comfycontrol_async.graph._file import File
from comfycontrol_async.graph._graph import Graph
from comfycontrol_async.graph._issues import raise_errors
from comfycontrol_async.graph._names import NAME_LIMIT
from comfycontrol_async.graph._parameters import fill
from comfycontrol_async.graph._placeholders import Parameter, ParameterKind
from comfycontrol_async.models import Output, Workflow, WorkflowStatus, WorkflowSummary, WorkflowUpdate
from comfycontrol_async.resources._calls import GraphSource, Open, Send, command, get, listing
from comfycontrol_async.resources._checks import check_id, check_text, join_tags

log: logging.Logger = logging.getLogger("comfycontrol_async")

# What leaves it open whether a request that makes a workflow took effect.
OUTCOME_UNKNOWN = (ResponseLostError, RequestTimeoutError, ServerError, ResponseFormatError)


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
        return await self._send(get(f"/v1/workflow/{check_id(id)}", Workflow))

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
        return await self.post(form, name)

    async def post(self, form: Form, name: str) -> WorkflowSummary:
        """Send a form made by `workflow_form`: one POST.

        Raises:
            SubmitOutcomeUnknownError: it may or may not have been created.
        """
        return await self._make("/v1/workflow", form, name)

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
        return await self.rerun_with(id, parameters, params or {})

    async def rerun_with(self, id: str, parameters: Sequence[Parameter], params: Mapping[str, Any]) -> WorkflowSummary:
        """Run a workflow again, whose graph's parameters are known here. One request; errors as `rerun`."""
        path = f"/v1/workflow/{check_id(id)}/rerun"
        form = await asyncio.to_thread(changes_form, parameters, params)
        return await self._make(path, form, f"rerun of {id}")

    async def outputs(self, id: str) -> _Outputs:
        """Fetch the outputs of a completed workflow; their signed URLs work for about five minutes.

        Raises:
            NotFoundError: it is not completed, or (as one page of the documentation has it) completed without any.
        """
        return await self._send(get(f"/v1/workflow/{check_id(id)}/outputs", _Outputs))

    async def subscribe(self, id: str) -> AsyncGenerator[WorkflowUpdate, None]:
        """Give a workflow's updates over one connection, as the API sends them: about one each 2 s, at most 120.

        The server closes after `completed`, `failed` or `cancelled`, but not after `invalid`.

        Raises:
            NotFoundError: it does not exist, or is someone else's.
            ResponseLostError, RequestTimeoutError: the connection broke.
            ResponseFormatError: an event is not what the API documents.
        """
        path = f"/v1/workflow/{check_id(id)}/subscribe"
        request = Request(method="GET", path=path, structure=_update, stream=True)
        stream = await self._open(request)
        parser = EventParser()
        try:
            async with aclosing(stream.chunks()) as chunks:
                async for chunk in chunks:
                    for data in _feed(parser, chunk):
                        yield _update(parse_json(data.encode()))
        finally:
            stream.close()

    async def _make(self, path: str, form: Form, name: str) -> WorkflowSummary:
        request = Request(
            method="POST", path=path, structure=structurer(WorkflowSummary), form=form, repeat=Repeat.NEVER
        )
        try:
            return await self._send(request)
        except OUTCOME_UNKNOWN as error:
            raise SubmitOutcomeUnknownError(name) from error


_update = structurer(WorkflowUpdate)


def _feed(parser: EventParser, chunk: bytes) -> list[str]:
    try:
        return parser.feed(chunk)
    except ValueError as error:
        raise ResponseFormatError(str(error)) from error


def workflow_form(graph: GraphSource, name: str, params: Mapping[str, Any] | None, tags: Iterable[str]) -> Form:
    """Make the form that creates a workflow, with everything checked that costs no request; blocking.

    Raises:
        GraphError, InvalidArgumentError: it cannot be sent.
    """
    name = check_text("a workflow's name", name, NAME_LIMIT)
    joined = join_tags(tags)
    bound = Graph.coerce(graph).bind(params)
    for warning in bound.warnings:
        log.warning("the graph of %r: %s", name, warning)
    body = File(bound.body, filename="workflow.json", content_type="application/json")
    fields: list[tuple[str, str | File]] = [("name", name), ("workflow_json", body)]
    if joined:
        fields.append(("tags", joined))
    return prepare([*fields, *bound.fields])


def changes_form(parameters: Sequence[Parameter], params: Mapping[str, Any]) -> Form:
    """Make the form of a rerun: only the parameters given; blocking.

    Raises:
        GraphError, InvalidArgumentError: it cannot be sent.
    """
    fields, issues = fill(parameters, params, complete=False)
    raise_errors(issues)
    return prepare(fields)


_STORED = re.compile(r"[$#](text|choice|file)\(([^,)]+)", re.ASCII)


def parameters_of(workflow: Workflow) -> tuple[Parameter, ...]:
    """Return the parameters of a stored workflow: from its graph, or else from the pairs the service stored.

    The documentation does not say whether the stored graph still has its placeholders.
    """
    found = {(p.kind, p.name): p for p in Graph(workflow.workflow_json).parameters}
    for pair in workflow.workflow_params:
        match = _STORED.match(str(pair[0])) if pair else None
        if match is not None:
            kind = cast(ParameterKind, match[1])  # the pattern allows no other
            name = match[2].strip()
            found.setdefault((kind, name), Parameter(name=name, kind=kind, places=("workflow_params",)))
    return tuple(found.values())

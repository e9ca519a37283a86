"""What makes a workflow: the forms of create and rerun, and the one POST that sends them."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from comfycontrol_async._http._convert import structurer
from comfycontrol_async._http._multipart import Form, prepare
from comfycontrol_async._http._request import Repeat, Request
from comfycontrol_async.errors import (
    APIError,
    ComfyControlError,
    RequestTimeoutError,
    ResponseFormatError,
    ResponseLostError,
    SubmitOutcomeUnknownError,
)
from comfycontrol_async.graph._file import File
from comfycontrol_async.graph._graph import BoundGraph, Graph
from comfycontrol_async.graph._issues import raise_errors
from comfycontrol_async.graph._names import NAME_LIMIT
from comfycontrol_async.graph._parameters import fill
from comfycontrol_async.graph._placeholders import Parameter, ParameterKind
from comfycontrol_async.limits import Stage
from comfycontrol_async.models import Workflow, WorkflowSummary
from comfycontrol_async.resources._calls import GraphSource, Send
from comfycontrol_async.resources._checks import check_text, is_id, join_tags

log = logging.getLogger("comfycontrol_async")

CREATE_PATH = "/v1/workflow"

# Statuses that say that a request was not acted on (RFC 9110, 15.4 and 15.5; RFC 6585). All others may come from an
# edge whose origin has acted: 408, 425 and 499 from one that gave up waiting, 302 and 303 after a form was taken.
_REFUSED = frozenset({301, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 410, 411, 412, 413, 414, 415, 416, 417})
_REFUSED |= {421, 422, 424, 426, 428, 429, 431, 451}
_summary = structurer(WorkflowSummary)
_STORED = re.compile(r"[$#](text|choice|file)\(([^,)]+)", re.ASCII)


async def make(send: Send, path: str, form: Form, name: str) -> WorkflowSummary:
    """Send a form that makes a workflow: one POST.

    Raises:
        SubmitOutcomeUnknownError: it may or may not have been made; the cause is attached.
    """
    request = Request(
        method="POST",
        path=path,
        structure=_read_made,
        form=form,
        repeat=Repeat.NEVER,
        stage=Stage.CREATE,
    )
    try:
        return await send(request)
    except ComfyControlError as error:
        if outcome_unknown(error):
            raise SubmitOutcomeUnknownError(name) from error
        raise


def outcome_unknown(error: ComfyControlError) -> bool:
    """Tell whether a request that makes a workflow may have taken effect although it ended in this error."""
    if isinstance(error, APIError):
        return error.status not in _REFUSED
    return isinstance(error, (ResponseLostError, RequestTimeoutError, ResponseFormatError))


def _read_made(document: Any) -> WorkflowSummary:
    """Read the answer: a workflow whose id leads nowhere cannot be followed, so it has to be looked for."""
    summary = _summary(document)
    if not is_id(summary.id):
        raise ResponseFormatError(f"the id {summary.id[:60]!r} is none", json_path="$.id")
    return summary


def workflow_form(graph: GraphSource, name: str, params: Mapping[str, Any] | None, tags: Iterable[str]) -> Form:
    """Make the form that creates a workflow, with everything checked that costs no request; blocking.

    Raises:
        GraphError, InvalidArgumentError: it cannot be sent.
    """
    return form_of(Graph.coerce(graph).bind(params), name, tags)


def form_of(bound: BoundGraph, name: str, tags: Iterable[str]) -> Form:
    """Make the form that creates a workflow of a graph whose parameters have their values; blocking, as the above."""
    name = check_text("a workflow's name", name, NAME_LIMIT)
    joined = join_tags(tags)
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


def stored_name(key: object) -> tuple[ParameterKind, str] | None:
    """Read the kind and name of a parameter from the text that the service stores it under, such as `$text(prompt)`."""
    match = _STORED.match(str(key))
    return None if match is None else (cast(ParameterKind, match[1]), match[2].strip())  # the pattern allows no other


def parameters_of(workflow: Workflow) -> tuple[Parameter, ...]:
    """Return the parameters of a stored workflow: from its graph, or else from the pairs the service stored.

    The documentation does not say whether the stored graph still has its placeholders.
    """
    found = {(p.kind, p.name): p for p in Graph(workflow.workflow_json).parameters}
    for pair in workflow.workflow_params:
        stored = stored_name(pair[0]) if pair else None
        if stored is not None:
            kind, name = stored
            found.setdefault(stored, Parameter(name=name, kind=kind, places=("workflow_params",)))
    return tuple(found.values())

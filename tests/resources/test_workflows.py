"""`comfy.workflows`: what is sent, what comes back, what is refused without a request."""

import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest

from comfycontrol_async import (
    APIError,
    BadRequestError,
    ComfyControl,
    File,
    GraphError,
    InvalidArgumentError,
    NotFoundError,
    Output,
    ResponseFormatError,
    ResponseLostError,
    RetryPolicy,
    ServerError,
    SubmitOutcomeUnknownError,
    Workflow,
    WorkflowStatus,
    WorkflowSummary,
    WorkflowUpdate,
)
from comfycontrol_async._http._convert import structurer
from comfycontrol_async.resources._forms import parameters_of
from support import documented
from support.scripted import ScriptedApi, cut

ID = documented.WORKFLOW_ID
GRAPH = documented.GRAPH
PARAMS: dict[str, Any] = {"prompt": "a cät", "input_image": b"png"}
SUMMARY: WorkflowSummary = structurer(WorkflowSummary)(documented.ACCEPTED)


# Reading


@pytest.mark.parametrize(
    ("options", "query"),
    [
        pytest.param({}, "page=1&per_page=100", id="plain"),
        pytest.param({"status": "queued", "per_page": 3}, "page=1&per_page=3&status=queued", id="status"),
        pytest.param({"status": WorkflowStatus.RUNNING}, "page=1&per_page=100&status=running", id="status-enum"),
        pytest.param(
            {"status": WorkflowStatus("archived")}, "page=1&per_page=100&status=archived", id="a-status-new-to-us"
        ),
    ],
)
async def test_list(api: ScriptedApi, comfy: ComfyControl, options: dict[str, Any], query: str) -> None:
    """Workflows are listed page by page, newest first."""
    api.answer("GET", f"/v1/workflow?{query}", documented.WORKFLOWS)
    page = await comfy.workflows.list(**options).page(1)
    assert [item.status for item in page.items] == ["completed", "failed", "running"]


async def test_get(api: ScriptedApi, comfy: ComfyControl) -> None:
    """One workflow is fetched in full."""
    api.answer("GET", f"/v1/workflow/{ID}", documented.WORKFLOW)
    assert await comfy.workflows.get(ID) == structurer(Workflow)(documented.WORKFLOW)


async def test_outputs(api: ScriptedApi, comfy: ComfyControl) -> None:
    """Outputs come as a bare array; their signed URLs are kept and not shown."""
    api.answer("GET", f"/v1/workflow/{ID}/outputs", documented.OUTPUTS)
    outputs = await comfy.workflows.outputs(ID)
    assert outputs == structurer(list[Output])(documented.OUTPUTS)
    assert "secret_signature" not in repr(outputs)


@pytest.mark.parametrize("payload", [[], None], ids=["empty", "null"])
async def test_no_outputs(api: ScriptedApi, comfy: ComfyControl, payload: Any) -> None:
    """A workflow that made nothing has no outputs."""
    api.answer("GET", f"/v1/workflow/{ID}/outputs", body=json.dumps(payload))
    assert await comfy.workflows.outputs(ID) == []


# Creating


async def test_create(api: ScriptedApi, comfy: ComfyControl) -> None:
    """A workflow is one POST of a form: name, graph, tags, and a field for each parameter, defaults filled in."""
    api.answer("POST", "/v1/workflow", documented.ACCEPTED, status=201)
    made = await comfy.workflows.create(GRAPH, name="Text to Image", params=PARAMS, tags=["production", "text2img"])
    assert made == SUMMARY
    data = api.calls[0].data
    name, content_type, content = data.pop("workflow_json")
    assert (name, content_type, json.loads(content)) == ("workflow.json", "application/json", GRAPH)
    assert data == {
        "name": "Text to Image",
        "tags": "production,text2img",
        "$num_steps": "20",
        "#sampler": "euler",
        "$prompt": "a cät",
        "$input_image": ("input_image", "application/octet-stream", b"png"),
    }


async def test_create_with_everything_given(api: ScriptedApi, comfy: ComfyControl, tmp_path: Path) -> None:
    """Values are sent as they are given, and a file under its own name."""
    path = tmp_path / "cät 1.png"
    path.write_bytes(b"png")
    api.answer("POST", "/v1/workflow", documented.ACCEPTED, status=201)
    params = {"prompt": "", "num_steps": 8, "sampler": "dpmpp_2m", "input_image": path}
    await comfy.workflows.create(GRAPH, name="n", params=params)
    data = api.calls[0].data
    assert "tags" not in data
    assert (data["$prompt"], data["$num_steps"], data["#sampler"]) == ("", "8", "dpmpp_2m")
    assert data["$input_image"] == ("cät 1.png", "image/png", b"png")


async def test_create_tells_what_is_odd(
    api: ScriptedApi, comfy: ComfyControl, caplog: pytest.LogCaptureFixture
) -> None:
    """What is odd about a graph and may run is logged, and sent."""
    graph = {"1": {"class_type": "MyCustomNode", "inputs": {}}}
    api.answer("POST", "/v1/workflow", documented.ACCEPTED)
    with caplog.at_level(logging.WARNING, logger="comfycontrol_async"):
        await comfy.workflows.create(graph, name="odd")
    assert "the graph of 'odd': no node looks like an output" in caplog.text


LOST: dict[str, tuple[Callable[[ScriptedApi, str], None], type[Exception]]] = {
    "server-error": (lambda api, path: api.answer("POST", path, status=502), ServerError),
    "disconnected": (lambda api, path: api.fail("POST", path, aiohttp.ServerDisconnectedError()), ResponseLostError),
    "body-cut": (lambda api, path: api.answer("POST", path, documented.ACCEPTED, spoil=cut), ResponseLostError),
    "body-truncated": (lambda api, path: api.answer("POST", path, body=b'{"id": "a1b'), ResponseFormatError),
    "body-empty": (lambda api, path: api.answer("POST", path), ResponseFormatError),
    "id-empty": (lambda api, path: api.answer("POST", path, documented.ACCEPTED | {"id": ""}), ResponseFormatError),
    "id-odd": (lambda api, path: api.answer("POST", path, documented.ACCEPTED | {"id": "../x"}), ResponseFormatError),
    "moved": (lambda api, path: api.answer("POST", path, status=303), APIError),
    "no-workflow": (lambda api, path: api.answer("POST", path, {"ok": True}), ResponseFormatError),
}


@pytest.mark.parametrize("kind", LOST)
@pytest.mark.parametrize("path", ["/v1/workflow", f"/v1/workflow/{ID}/rerun"], ids=["create", "rerun"])
async def test_outcome_unknown(api: ScriptedApi, comfy: ComfyControl, kind: str, path: str) -> None:
    """A workflow that may have been made is not made again: that it is not known is said, with the cause."""
    spoil, cause = LOST[kind]
    spoil(api, path)
    with pytest.raises(SubmitOutcomeUnknownError) as caught:
        await (comfy.workflows.rerun(ID) if "rerun" in path else comfy.workflows.create(GRAPH, name="n", params=PARAMS))
    assert caught.value.name == ("n" if path == "/v1/workflow" else f"rerun of {ID}")
    assert isinstance(caught.value.__cause__, cause)
    assert len(api.calls) == 1


async def test_create_is_repeated_when_it_certainly_was_not_made(api: ScriptedApi, comfy: ComfyControl) -> None:
    """A create that never left is sent again, file and all."""
    api.fail("POST", "/v1/workflow", aiohttp.ClientConnectionError("refused"), sent=False, times=2)
    api.answer("POST", "/v1/workflow", documented.ACCEPTED)
    assert await comfy.workflows.create(GRAPH, name="n", params=PARAMS) == SUMMARY
    assert [call.data["$input_image"][2] for call in api.calls] == [b"png"] * 3


async def test_create_refused(api: ScriptedApi, comfy: ComfyControl) -> None:
    """A 400 is the API's answer: nothing was made."""
    api.answer("POST", "/v1/workflow", {"status": 400, "message": "name cannot be empty"}, status=400)
    with pytest.raises(BadRequestError, match="name cannot be empty"):
        await comfy.workflows.create(GRAPH, name="n", params=PARAMS)


# Cancel and rerun


async def test_cancel(api: ScriptedApi, comfy: ComfyControl) -> None:
    """A cancel has nothing to send and nothing to say, and is repeated when its answer is lost."""
    api.answer("POST", f"/v1/workflow/{ID}/cancel", status=500)
    api.fail("POST", f"/v1/workflow/{ID}/cancel", aiohttp.ServerDisconnectedError())
    api.answer("POST", f"/v1/workflow/{ID}/cancel", body=b"")
    await comfy.workflows.cancel(ID)
    assert [call.data for call in api.calls] == [None] * 3


async def test_cancel_refused(api: ScriptedApi, comfy: ComfyControl) -> None:
    """A workflow that cannot be cancelled is the API's to tell."""
    api.answer("POST", f"/v1/workflow/{ID}/cancel", {"status": 400, "message": "already completed"}, status=400)
    with pytest.raises(BadRequestError, match="already completed"):
        await comfy.workflows.cancel(ID)


@pytest.mark.parametrize("params", [None, {}], ids=["none", "empty"])
async def test_rerun_as_it_was(api: ScriptedApi, comfy: ComfyControl, params: Any) -> None:
    """Without changes a rerun is one request with an empty form."""
    api.answer("POST", f"/v1/workflow/{ID}/rerun", documented.ACCEPTED)
    assert await comfy.workflows.rerun(ID, params=params) == SUMMARY
    assert [call.data for call in api.calls] == [{}]


async def test_rerun_with_changes(api: ScriptedApi, comfy: ComfyControl) -> None:
    """Only what is given is sent, in the field of its kind, which the stored workflow tells."""
    stored = {**documented.WORKFLOW, "workflow_json": GRAPH, "workflow_params": None}
    api.answer("GET", f"/v1/workflow/{ID}", stored)
    api.answer("POST", f"/v1/workflow/{ID}/rerun", documented.ACCEPTED)
    await comfy.workflows.rerun(ID, params={"sampler": "dpmpp_2m", "input_image": File(b"x", filename="new.png")})
    assert api.calls[1].data == {"#sampler": "dpmpp_2m", "$input_image": ("new.png", "image/png", b"x")}


async def test_rerun_of_a_graph_whose_placeholders_were_replaced(api: ScriptedApi, comfy: ComfyControl) -> None:
    """When the stored graph has no placeholders any more, the stored pairs tell the parameters."""
    stored = {
        **documented.WORKFLOW,
        "workflow_params": [["$text(prompt)", "x"], ["#choice(sampler)", "euler"], ["$file( image )", None], []],
    }
    api.answer("GET", f"/v1/workflow/{ID}", stored)
    api.answer("POST", f"/v1/workflow/{ID}/rerun", documented.ACCEPTED)
    await comfy.workflows.rerun(ID, params={"prompt": "y", "sampler": "any", "image": b"z"})
    assert api.calls[1].data == {
        "$prompt": "y",
        "#sampler": "any",
        "$image": ("image", "application/octet-stream", b"z"),
    }


@pytest.mark.parametrize(
    ("params", "message"),
    [
        pytest.param({"promt": "y"}, "no parameter 'promt'; did you mean 'prompt'", id="unknown"),
        pytest.param({"sampler": "nonsense"}, 'choice "sampler" takes', id="out-of-the-list"),
        pytest.param({"input_image": "a.png"}, 'file "input_image" takes no str', id="text-for-a-file"),
    ],
)
async def test_rerun_with_faulty_changes(
    api: ScriptedApi, comfy: ComfyControl, params: dict[str, Any], message: str
) -> None:
    """A faulty change is found before anything is made."""
    api.answer("GET", f"/v1/workflow/{ID}", {**documented.WORKFLOW, "workflow_json": GRAPH})
    with pytest.raises(GraphError, match=message):
        await comfy.workflows.rerun(ID, params=params)
    assert api.asked == [f"GET /v1/workflow/{ID}"]


def test_parameters_of_a_stored_workflow() -> None:
    """The graph's own placeholders come first, and the pairs add what is not there any more."""
    workflow: Workflow = structurer(Workflow)(documented.WORKFLOW)
    assert [(p.kind, p.name) for p in parameters_of(workflow)] == [("text", "prompt"), ("choice", "sampler")]
    workflow = attrs.evolve(workflow, workflow_json=GRAPH)
    found = {p.name: p for p in parameters_of(workflow)}
    assert list(found) == ["num_steps", "sampler", "prompt", "input_image"]
    assert found["sampler"].choices == ("euler", "euler_ancestral", "dpmpp_2m")
    odd = attrs.evolve(workflow, workflow_json={}, workflow_params=[[], ["nonsense", 1], ["$random()", 5], [7, 8]])
    assert parameters_of(odd) == ()


# Subscribing

EVENTS = "text/event-stream"
OTHER = "00000000-0000-4000-a000-000000000000"


def events(*payloads: Any) -> bytes:
    """Write a stream of events."""
    return b": hello\n\n" + b"".join(b"data: " + json.dumps(payload).encode() + b"\n\n" for payload in payloads)


async def subscribed(comfy: ComfyControl) -> list[WorkflowUpdate]:
    """Read a workflow's stream to its end."""
    async with aclosing(comfy.workflows.subscribe(ID)) as updates:
        return [update async for update in updates]


async def test_subscribe(api: ScriptedApi, comfy: ComfyControl) -> None:
    """A stream gives the updates as the API sends them, over one connection."""
    stream = events(*documented.UPDATES) + b'data: {"status": "brok'
    api.answer("GET", f"/v1/workflow/{ID}/subscribe", body=stream, content_type="text/event-stream")
    assert await subscribed(comfy) == [structurer(WorkflowUpdate)(update) for update in documented.UPDATES]
    assert len(api.calls) == 1


@pytest.mark.parametrize(
    ("stream", "message", "path"),
    [
        pytest.param(events({"status": None, "prompt": None}), "expected text, found null", "$.status", id="faulty"),
        pytest.param(events({"status": "done", "outputs": 5}), "expected a list", "$.outputs", id="faulty-list"),
        pytest.param(
            events({"status": "running", "workflow_id": OTHER}), "another workflow", "$", id="another-workflow"
        ),
        pytest.param(
            events({"status": "running", "outputs": [{"id": "o", "workflow_id": OTHER, "src": "https://s.test/1"}]}),
            "another workflow",
            "$",
            id="outputs-of-another-workflow",
        ),
    ],
)
async def test_subscribe_to_nonsense(
    api: ScriptedApi, comfy: ComfyControl, stream: bytes, message: str, path: str
) -> None:
    """An event that is not as documented is an error, after the updates before it."""
    stream = events(documented.UPDATES[0]) + stream
    api.answer("GET", f"/v1/workflow/{ID}/subscribe", body=stream, content_type=EVENTS)
    updates = comfy.workflows.subscribe(ID)
    assert (await anext(updates)).status == "queued"
    with pytest.raises(ResponseFormatError, match=message) as caught:
        await anext(updates)
    assert caught.value.json_path == path


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(b": ping\n\n", id="comment"),
        pytest.param(b"retry: 3000\nid: 7\n\n", id="fields-only"),
        pytest.param(b"data\n\n", id="empty"),
        pytest.param(b"data: \n\n", id="empty-text"),
        pytest.param(b"data: [DONE]\n\n", id="end-mark"),
        pytest.param(b"data: : PROCESSING\n\n", id="words"),
        pytest.param(b"data: {\n\n", id="cut-short"),
        pytest.param(b"data: 7\n\n", id="number"),
        pytest.param(b'event: ping\ndata: {"type": "ping"}\n\n', id="ping"),
        pytest.param(b'event: health\ndata: {"status": "ok"}\n\n', id="status-of-something-else"),
    ],
)
async def test_subscribe_passes_over(api: ScriptedApi, comfy: ComfyControl, extra: bytes) -> None:
    """Keep-alives, and events that are no updates, do not break a stream and are not given."""
    first, *rest = documented.UPDATES
    api.answer("GET", f"/v1/workflow/{ID}/subscribe", body=events(first) + extra + events(*rest), content_type=EVENTS)
    assert await subscribed(comfy) == [structurer(WorkflowUpdate)(update) for update in documented.UPDATES]


@pytest.mark.parametrize("content_type", ["text/html", "application/json", "text/plain; charset=utf-8"])
async def test_subscribe_to_another_media_type(api: ScriptedApi, comfy: ComfyControl, content_type: str) -> None:
    """A success that is no event stream, such as the page of a proxy, is an error that says so."""
    stream = events(*documented.UPDATES)
    api.answer("GET", f"/v1/workflow/{ID}/subscribe", body=stream, content_type=content_type)
    with pytest.raises(ResponseFormatError, match="where text/event-stream is due"):
        await subscribed(comfy)


async def test_subscribe_to_what_is_no_text(api: ScriptedApi, comfy: ComfyControl) -> None:
    """A stream that is no UTF-8 is an error of ours too."""
    api.answer("GET", f"/v1/workflow/{ID}/subscribe", body=b"data: \xff\n\n", content_type=EVENTS)
    with pytest.raises(ResponseFormatError, match="utf-8"):
        await subscribed(comfy)


async def test_subscribe_to_what_is_not_there(api: ScriptedApi, comfy: ComfyControl) -> None:
    """A stream that cannot be had is an error like any other."""
    api.answer("GET", f"/v1/workflow/{ID}/subscribe", {"message": "requested entity not found"}, status=404)
    with pytest.raises(NotFoundError, match="requested entity not found"):
        await subscribed(comfy)


async def test_subscribe_and_leave(api: ScriptedApi, comfy: ComfyControl) -> None:
    """A caller that leaves in the middle closes the connection."""
    closed: list[bool] = []

    def watch(response: aiohttp.ClientResponse) -> None:
        response.close = lambda: closed.append(True)  # type: ignore[method-assign] # to see it called

    api.answer(
        "GET", f"/v1/workflow/{ID}/subscribe", body=events(*documented.UPDATES), content_type=EVENTS, spoil=watch
    )
    async with aclosing(comfy.workflows.subscribe(ID)) as updates:
        await anext(updates)
        assert closed == []
    assert closed == [True]


# What is refused without a request

Call = Callable[[ComfyControl], Awaitable[object]]


def create(name: str = "n", graph: Any = GRAPH, **options: Any) -> Call:
    """Make a call that creates a workflow."""
    return lambda comfy: comfy.workflows.create(graph, name=name, **{"params": PARAMS, **options})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        pytest.param(lambda c: c.workflows.list(per_page=0).all(), InvalidArgumentError, "per_page", id="per-page"),
        pytest.param(lambda c: c.workflows.get("5"), InvalidArgumentError, "an id is", id="get"),
        pytest.param(lambda c: c.workflows.cancel("5"), InvalidArgumentError, "an id is", id="cancel"),
        pytest.param(lambda c: c.workflows.rerun("5"), InvalidArgumentError, "an id is", id="rerun"),
        pytest.param(
            lambda c: c.workflows.rerun("5", params={"a": "b"}), InvalidArgumentError, "an id is", id="rerun-changes"
        ),
        pytest.param(lambda c: c.workflows.outputs("5"), InvalidArgumentError, "an id is", id="outputs"),
        pytest.param(lambda c: anext(c.workflows.subscribe("5")), InvalidArgumentError, "an id is", id="subscribe"),
        pytest.param(create(name=""), InvalidArgumentError, "a workflow's name must not be empty", id="name"),
        pytest.param(create(name="x" * 201), InvalidArgumentError, "at most 200", id="long-name"),
        pytest.param(create(name="\ud800"), InvalidArgumentError, "half a surrogate pair", id="surrogate-name"),
        pytest.param(create(tags="gpu"), InvalidArgumentError, "write tags=", id="tags-as-text"),
        pytest.param(create(tags=["a,b"]), InvalidArgumentError, "has a comma", id="comma"),
        pytest.param(create(tags=["\ud800"]), InvalidArgumentError, "half a surrogate pair", id="surrogate-tag"),
        pytest.param(create(graph="absent.json"), GraphError, "cannot read 'absent.json'", id="no-file"),
        pytest.param(create(graph={"nodes": []}), GraphError, "UI format", id="ui-format"),
        pytest.param(create(params=None), GraphError, 'text "prompt" has no default and is missing', id="no-params"),
        pytest.param(create(params={**PARAMS, "x": 1}), GraphError, "no parameter 'x'", id="unknown"),
        pytest.param(
            create(params={**PARAMS, "input_image": Path("absent.png")}), GraphError, "No such file", id="no-image"
        ),
        pytest.param(
            create(params={**PARAMS, "input_image": b"x" * 50_000_000}), InvalidArgumentError, "50 MB", id="too-large"
        ),
        pytest.param(
            create(params={**PARAMS, "input_image": File(b"x", filename="a\nb")}),
            InvalidArgumentError,
            "must be printable text",
            id="file-name",
        ),
    ],
)
async def test_refused_for_nothing(
    api: ScriptedApi, comfy: ComfyControl, call: Call, error: type[Exception], message: str
) -> None:
    """What the API is known to refuse costs no request."""
    with pytest.raises(error, match=message):
        await call(comfy)
    assert api.calls == []


async def test_no_retry_policy_makes_a_create_twice(api: ScriptedApi, comfy: ComfyControl) -> None:
    """However hard a client tries, a workflow is created once."""
    eager = comfy.with_options(retry=RetryPolicy(attempts=100, base_delay=0.0))
    api.answer("POST", "/v1/workflow", status=503, headers={"Retry-After": "0"})
    with pytest.raises(SubmitOutcomeUnknownError):
        await eager.workflows.create(GRAPH, name="n", params=PARAMS)
    assert len(api.calls) == 1

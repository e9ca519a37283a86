"""Workflows over HTTP: submitted, listed, ended, run again."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from comfycontrol_async.testing import Failure
from support.bare_api import GRAPH, Api, form, serving, workflow_form
from support.waiting import eventually

FILLED: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "$file(image)", "seed": "$random()", "again": "$random()"}},
    "2": {
        "class_type": "KSampler",
        "inputs": {"steps": "$text(steps, 20)", "sampler": "$choice(sampler, euler, ddim)"},
    },
    "3": {"class_type": "SaveImage", "inputs": {"filename_prefix": "$timestamp()", "stamp": "$timestamp()"}},
}
VALUES: dict[str, Any] = {"$image": b"pixels", "$steps": "30", "#sampler": "ddim"}
SLOW = {"speed": 1.0, "delays": (0, 0, 0), "duration": 1000.0}


async def submit(api: Api, graph: Any = GRAPH, **parts: Any) -> Any:
    """Submit a workflow and return the reply."""
    return await api.call("POST", "/v1/workflow", data=workflow_form(graph, **parts))


async def status_of(api: Api, id: str) -> str:
    """Return the status that the API shows."""
    return str((await api.get(f"/v1/workflow/{id}"))["status"])


async def test_summary_of_a_new_workflow() -> None:
    """A submission answers 201 with an accepted workflow."""
    async with serving(speed=1.0) as api:
        reply = await submit(api, name="Text to image", tags=" production, text2img,,")
        assert reply.status == 201
        made = reply.json
        assert made == {
            "id": made["id"],
            "name": "Text to image",
            "status": "accepted",
            "tags": ["production", "text2img"],
            "created_at": made["created_at"],
            "updated_at": made["created_at"],
            "started_at": None,
            "completed_at": None,
        }
        record = api.server.workflows[made["id"]]
        assert (record.name, record.index, record.graph, record.status) == ("Text to image", 0, GRAPH, "accepted")


async def test_life() -> None:
    """A workflow goes through its states on schedule, with no request needed to move it."""
    async with serving(speed=20.0, delays=(1.0, 1.0, 1.0), duration=1.0) as api:
        id = await api.create()
        seen = [await status_of(api, id)]
        async with asyncio.timeout(30):
            while seen[-1] != "completed":  # a busy machine may pass over a state, never go back to one
                status = await status_of(api, id)
                if status != seen[-1]:
                    seen.append(status)
        order = ["accepted", "uploaded", "queued", "running", "completed"]
        assert seen == [status for status in order if status in seen]
        assert (seen[0], seen[-1]) == ("accepted", "completed")
        full = await api.get(f"/v1/workflow/{id}")
        assert full["created_at"] <= full["started_at"] <= full["completed_at"] == full["updated_at"]


async def test_full_form() -> None:
    """One workflow is shown with graph, parameters and place, placeholders kept."""
    async with serving(**SLOW) as api:
        id = await api.create(FILLED, **VALUES)
        full = await api.get(f"/v1/workflow/{id}")
        record = api.server.workflows[id]
        assert full["workflow_json"] == FILLED
        stored = record.files["image"].stored_as
        assert full["workflow_params"] == [
            ["$file(image)", stored],
            ["$text(steps)", "30"],
            ["#choice(sampler)", "ddim"],
        ]
        assert full["user_id"] == api.server.user["id"]
        assert full["user_runner_id"] in api.server.runners
        assert full["managed_runner_id"] is None
        assert (full["queue_number"], full["prompt_id"]) == (1, record.prompt_id)
        assert full["error_node"] is full["exception_type"] is full["exception_message"] is None
        assert record.files["image"].data == b"pixels"
        assert record.params == [tuple(pair) for pair in full["workflow_params"]]


async def test_filling_in() -> None:
    """Texts go in as strings, `$random` differs at each place, `$timestamp` does not."""
    async with serving(**SLOW) as api:
        id = await api.create(FILLED, **VALUES)
        record = api.server.workflows[id]
        inputs = [record.prompt[node]["inputs"] for node in "123"]
        assert inputs[0]["image"] == record.files["image"].stored_as
        assert inputs[0]["seed"] != inputs[0]["again"]
        assert all(isinstance(inputs[0][key], int) for key in ("seed", "again"))
        assert inputs[1] == {"steps": "30", "sampler": "ddim"}
        assert inputs[2]["filename_prefix"] == inputs[2]["stamp"] > 1e12
        assert record.prompt is record.prompt


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"name": None}, "name cannot be empty"),
        ({"name": ""}, "name cannot be empty"),
        ({"name": "n" * 201}, "name cannot be longer than 200 characters"),
        ({"workflow_json": None}, "workflow_json must be a file"),
        ({"workflow_json": json.dumps(GRAPH)}, "workflow_json must be a file"),
        ({"workflow_json": b"{"}, "workflow_json is not valid JSON"),
        ({"workflow_json": b"[]"}, "workflow_json must be a JSON object"),
        ({"$steps": None}, "missing value for $text(steps)"),
        ({"#sampler": None}, "missing value for #choice(sampler)"),
        ({"#sampler": "heun"}, "'heun' is not an option of #choice(sampler)"),
        ({"$image": None}, "missing value for $file(image)"),
        ({"$image": "text"}, "missing value for $file(image)"),
        ({"$steps": b"file"}, "missing value for $text(steps)"),
    ],
)
async def test_refused_submissions(parts: dict[str, Any], message: str) -> None:
    """A submission with a bad or missing part is refused by name, and makes nothing."""
    async with serving() as api:
        reply = await submit(api, FILLED, **{**VALUES, **parts})
        assert (reply.status, reply.json) == (400, {"status": 400, "message": message})
        assert not api.server.workflows


async def test_bodies_that_are_no_forms() -> None:
    """JSON, a form without a boundary, and broken or nameless parts are refused."""
    async with serving() as api:
        token = {"Authorization": f"Bearer {api.server.token}"}
        for kind, body in (
            ("application/json", b"{}"),
            ("multipart/form-data", b""),
            ("multipart/form-data; boundary=x", b"no boundary here"),
            ("multipart/form-data; boundary=x", b"--x\r\nContent-Type: text/plain\r\n\r\nnameless\r\n--x--\r\n"),
            (
                "multipart/form-data; boundary=x",
                b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--x--\r\n',
            ),
        ):
            headers = {**token, "Content-Type": kind}
            reply = await api.call("POST", "/v1/workflow", data=body, headers=headers)
            assert reply.status == 400, (kind, body, reply)


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
async def test_upload_limit(chunked: bool) -> None:
    """A body over the limit is refused, whether or not its size is declared; one below passes."""
    async with serving(upload_limit=100_000) as api:

        async def pieces() -> Any:
            for _ in range(20):
                yield b"x" * 10_000

        data = workflow_form()
        data.add_field("$extra", pieces() if chunked else b"x" * 200_000, filename="extra.bin")
        reply = await api.call("POST", "/v1/workflow", data=data)
        assert (reply.status, reply.json["message"]) == (400, "request body exceeds 100000 bytes")
        await api.create(**{"$extra": b"x" * 90_000})


async def test_unknown_fields_are_ignored() -> None:
    """Fields for placeholders that the graph lacks do no harm."""
    async with serving() as api:
        await api.create(**{"$other": "text", "#choice": "x", "$file": b"data", "plain": "y"})


async def test_client_that_asks_before_it_sends() -> None:
    """A client that waits for leave to send its body gets it, when the request is not refused."""
    async with serving(limit=1) as api:
        reply = await api.call("POST", "/v1/workflow", data=workflow_form(), expect100=True)
        assert reply.status == 201


async def test_recorded_parts() -> None:
    """The record of an upload tells its parts and size."""
    async with serving() as api:
        await api.create(FILLED, **VALUES)
        record = api.server.requests[-1]
        named = {part.name: part for part in record.parts}
        assert list(named) == ["name", "workflow_json", "$image", "$steps", "#sampler"]
        assert (named["$image"].filename, named["$image"].size) == ("image.bin", 6)
        assert named["name"].filename is None
        assert record.body_size > len(json.dumps(FILLED))
        assert record.status == 201


async def test_ui_format_becomes_invalid() -> None:
    """A graph that is not in API format is accepted and then found invalid."""
    async with serving() as api:
        id = await api.create({"nodes": [], "links": [], "version": 0.4})
        await asyncio.sleep(0.05)
        assert await status_of(api, id) == "invalid"
        assert (await api.call("GET", f"/v1/workflow/{id}/outputs")).status == 404


async def test_bad_file_name_fails() -> None:
    """A `$file` name that is not allowed lets the execution fail."""
    async with serving(delays=(0, 0, 0), duration=0) as api:
        graph = {"9": {"class_type": "SaveImage", "inputs": {"image": "$file(in.png)"}}}
        id = await api.create(graph, **{"$in.png": b"data"})
        full = await api.get(f"/v1/workflow/{id}")
        assert (full["status"], full["error_node"], full["exception_type"]) == ("failed", "9", "ValueError")
        assert "'in.png' is not allowed" in full["exception_message"]


async def test_outcomes() -> None:
    """A script decides how each workflow ends; failures carry their cause."""
    ends = ["completed", "failed", "cancelled", "invalid"]
    async with serving(delays=(0, 0, 0), duration=0, outcome=lambda index: ends[index]) as api:
        ids = [await api.create() for _ in ends]
        shown = [await api.get(f"/v1/workflow/{id}") for id in ids]
        assert [it["status"] for it in shown] == ends
        assert shown[1]["error_node"] == "2"
        assert shown[1]["exception_type"]
        assert shown[1]["exception_message"]
        assert [it["completed_at"] is None for it in shown] == [False, False, False, True]
        outputs = [(await api.call("GET", f"/v1/workflow/{id}/outputs")).status for id in ids]
        assert outputs == [200, 404, 404, 404]
        api.server.script(None)
        assert await status_of(api, await api.create()) == "completed"


async def test_durations() -> None:
    """The time a workflow runs can depend on its index."""
    async with serving(delays=(0, 0, 0), duration=lambda index: 0.0 if index else 1e6) as api:
        ids = [await api.create() for _ in range(2)]
        assert [await status_of(api, id) for id in ids] == ["running", "completed"]


async def test_finish_and_forget() -> None:
    """A test ends a workflow at once, or makes it unknown."""
    async with serving(**SLOW) as api:
        ids = [await api.create() for _ in range(2)]
        api.server.finish(ids[0])
        assert await status_of(api, ids[0]) == "completed"
        with pytest.raises(ValueError, match="ended already: completed"):
            api.server.finish(ids[0], "failed")
        with pytest.raises(ValueError, match="status must be one of"):
            api.server.finish(ids[1], "running")
        api.server.finish(ids[1], "failed")
        assert (await api.get(f"/v1/workflow/{ids[1]}"))["error_node"] == "2"
        api.server.forget(ids[0])
        assert (await api.call("GET", f"/v1/workflow/{ids[0]}")).status == 404
        assert list(api.server.workflows) == ids[1:]


async def test_cancelling() -> None:
    """Only what is queued or running can be cancelled; the answer has no body."""
    async with serving(speed=1.0, delays=(0, 0, 1000.0)) as api:
        id = await api.create()
        assert await status_of(api, id) == "queued"
        reply = await api.call("POST", f"/v1/workflow/{id}/cancel")
        assert (reply.status, reply.body) == (200, b"")
        assert await status_of(api, id) == "cancelled"
        again = await api.call("POST", f"/v1/workflow/{id}/cancel")
        assert (again.status, again.json["message"]) == (400, "workflow cannot be cancelled while it is cancelled")


@pytest.mark.parametrize(("delays", "status"), [((1000.0, 0, 0), "accepted"), ((0, 1000.0, 0), "uploaded")])
async def test_too_early_to_cancel(delays: Any, status: str) -> None:
    """What has not been queued cannot be cancelled."""
    async with serving(speed=1.0, delays=delays) as api:
        id = await api.create()
        reply = await api.call("POST", f"/v1/workflow/{id}/cancel")
        assert (reply.status, reply.json["message"]) == (400, f"workflow cannot be cancelled while it is {status}")


async def test_slow_cancel() -> None:
    """With a cancel delay a workflow goes on for a while, and stays completed if it ends first."""
    async with serving(
        speed=10.0, delays=(0, 0, 0), duration=lambda index: 100.0 if index else 5.0, cancel_delay=8
    ) as api:
        first, second = await api.create(), await api.create()
        for id in (first, second):
            assert (await api.call("POST", f"/v1/workflow/{id}/cancel")).status == 200
            assert await status_of(api, id) == "running"
        await asyncio.sleep(0.9)
        assert [await status_of(api, id) for id in (first, second)] == ["completed", "cancelled"]


async def test_interrupt() -> None:
    """An interrupt ends what runs on that runner, and nothing else."""
    async with serving(**SLOW) as api:
        own = next(iter(api.server.runners))
        id = await api.create()
        other = (await api.call("POST", "/v1/runner", json={"name": "x", "endpoint": "http://x"})).json["id"]
        assert (await api.call("POST", f"/v1/runner/{other}/interrupt")).status == 200
        assert await status_of(api, id) == "running"
        reply = await api.call("POST", f"/v1/runner/{own}/interrupt")
        assert (reply.status, reply.body) == (200, b"")
        assert await status_of(api, id) == "cancelled"


async def test_rerun() -> None:
    """A rerun is a new workflow with the old name, tags and graph, and the new values over the old ones."""
    async with serving(delays=(0, 0, 0), duration=0) as api:
        old = await api.create(FILLED, name="again", tags="a,b", **VALUES)
        reply = await api.call("POST", f"/v1/workflow/{old}/rerun", data=form({"$steps": "5", "name": "ignored"}))
        assert reply.status == 201
        assert reply.json["id"] != old
        assert (reply.json["name"], reply.json["tags"]) == ("again", ["a", "b"])
        first, second = api.server.workflows[old], api.server.workflows[reply.json["id"]]
        assert dict(second.params) == {**dict(first.params), "$text(steps)": "5"}
        assert dict(first.params)["$text(steps)"] == "30"
        assert second.prompt["1"]["inputs"]["seed"] != first.prompt["1"]["inputs"]["seed"]
        replaced = await api.call("POST", f"/v1/workflow/{old}/rerun", data=form({"$image": b"other"}))
        assert api.server.workflows[replaced.json["id"]].files["image"].data == b"other"
        refused = await api.call("POST", f"/v1/workflow/{old}/rerun", data=form({"#sampler": "heun"}))
        assert refused.status == 400


async def test_list() -> None:
    """The list is newest first, paged, and filtered by the documented statuses."""
    ends = ["completed", "failed", "completed"]
    async with serving(delays=(0, 0, 0), duration=0, outcome=lambda index: ends[index]) as api:
        ids = [await api.create() for _ in ends]
        page = await api.get("/v1/workflow")
        assert ([it["id"] for it in page["workflows"]], page["total"]) == (ids[::-1], 3)
        page = await api.get("/v1/workflow?per_page=2&page=2")
        assert ([it["id"] for it in page["workflows"]], page["total"]) == (ids[:1], 3)
        page = await api.get("/v1/workflow?status=completed&per_page=1")
        assert ([it["id"] for it in page["workflows"]], page["total"]) == (ids[2:], 2)
        assert (await api.get("/v1/workflow?status=queued")) == {"workflows": [], "total": 0}
        assert (await api.call("GET", "/v1/workflow?status=accepted")).status == 400
        assert (await api.get("/v1/workflow"))["workflows"][0] == {
            key: (await api.get(f"/v1/workflow/{ids[2]}"))[key] for key in page["workflows"][0]
        }


async def test_list_lag() -> None:
    """New workflows appear in lists later than they exist."""
    async with serving(speed=10.0, list_lag=5.0) as api:
        id = await api.create()
        assert (await api.get("/v1/workflow"))["total"] == 0
        await api.get(f"/v1/workflow/{id}")
        await asyncio.sleep(0.55)
        assert (await api.get("/v1/workflow"))["total"] == 1


async def test_history() -> None:
    """The history of a runner is a bare array of its last ten workflows."""
    async with serving() as api:
        ids = [await api.create() for _ in range(12)]
        history = await api.get(f"/v1/runner/{next(iter(api.server.runners))}/history")
        assert [it["id"] for it in history] == ids[:1:-1]


async def test_choice_of_runner() -> None:
    """A tagged runner takes only what it matches; without an own one a managed one does; else the workflow waits."""
    async with serving(**SLOW) as api:
        own = next(iter(api.server.runners))
        await api.call("PUT", f"/v1/runner/{own}", json={"tags": ["gpu", "fast"]})
        records = [api.server.workflows[await api.create(tags=tags)] for tags in ("gpu", "managed,gpu-a100", "GPU", "")]
        assert [it.runner_id == own for it in records] == [True, False, False, True]
        managed = records[1].managed_runner_id
        assert managed is not None
        assert api.server.managed_runners[managed]["runner_type"] == "pro"
        assert [it["id"] for it in await api.get(f"/v1/managed-runner/{managed}/history")] == [records[1].id]
        assert (await api.get(f"/v1/workflow/{records[1].id}"))["managed_runner_id"] == managed
        assert (records[2].status, records[2].managed_runner_id) == ("accepted", None)
        await api.call("PUT", f"/v1/runner/{own}", json={"status": "disabled"})
        assert api.server.workflows[await api.create(tags="gpu")].status == "accepted"


async def test_created_at_never_goes_back() -> None:
    """Creation times follow the order of creation."""
    async with serving(speed=1000.0) as api:
        for _ in range(10):
            await api.create()
            await asyncio.sleep(0.002)
        times = [it["created_at"] for it in (await api.get("/v1/workflow"))["workflows"]]
        assert times == sorted(times, reverse=True)
        assert times[0] > times[-1]


async def test_client_that_leaves_during_an_upload() -> None:
    """An upload that breaks off makes nothing, and the server goes on."""
    async with serving() as api:

        async def pieces() -> Any:
            yield b"some"
            await eventually(lambda: bool(api.server.requests))
            raise RuntimeError("gone")

        data = workflow_form()
        data.add_field("$file", pieces(), filename="x")
        with pytest.raises((aiohttp.ClientError, RuntimeError)):
            await api.call("POST", "/v1/workflow", data=data)
        await asyncio.sleep(0.02)
        assert not api.server.workflows
        assert api.server.requests[-1].status is None
        await api.get("/v1/user")


async def test_precise_failure() -> None:
    """A failure that is given as such is shown with its node, in the workflow and in its last update."""
    failure = Failure("1", "EmptyImage", "OutOfMemoryError", "CUDA out of memory")
    async with serving(outcome=lambda index: failure if index == 0 else "failed", speed=1000.0) as api:
        first, second = [await api.create() for _ in range(2)]
        await eventually(lambda: [it.status for it in api.server.workflows.values()] == ["failed"] * 2)
        full = await api.get(f"/v1/workflow/{first}")
        assert (full["error_node"], full["exception_type"], full["exception_message"]) == (
            "1",
            "OutOfMemoryError",
            "CUDA out of memory",
        )
        assert (await api.get(f"/v1/workflow/{second}"))["error_node"] == "2"
        reply = await api.call("GET", f"/v1/workflow/{first}/subscribe")
        cause = json.loads(reply.body.removeprefix(b"data: "))["cause"]
        assert cause == {
            "node_type": "EmptyImage",
            "exception_type": "OutOfMemoryError",
            "exception_message": "CUDA out of memory",
        }
    async with serving(**SLOW) as api:
        id = await api.create()
        api.server.finish(id, failure)
        assert (await api.get(f"/v1/workflow/{id}"))["exception_type"] == "OutOfMemoryError"


def _fail(index: int) -> Any:
    raise RuntimeError("no plan")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"outcome": lambda index: "done"}, "outcome must return a Failure or one of completed, failed"),
        ({"outcome": _fail}, "no plan"),
        ({"duration": lambda index: "long"}, "duration must return a number of at least 0, not 'long'"),
        ({"duration": lambda index: -1.0}, "duration must return a number of at least 0, not -1.0"),
        ({"duration": _fail}, "no plan"),
    ],
    ids=["outcome", "outcome-raises", "duration", "negative", "duration-raises"],
)
async def test_functions_that_fail(options: dict[str, Any], text: str) -> None:
    """What a function of the test's author does wrong is why its workflow fails, not a 500 without words."""
    async with serving(delays=(0, 0, 0), **options) as api:
        full = await api.get(f"/v1/workflow/{await api.create()}")
    assert full["status"] == "failed"
    assert text in full["exception_message"]

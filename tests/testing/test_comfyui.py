"""LocalServer in front of a ComfyUI: a fake one, or with COMFYUI_URL a real one."""

import asyncio
import gc
import json
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from comfycontrol_async.testing import ComfyUIError, Failure, LocalServer, read_png_text
from comfycontrol_async.testing._png import write_png
from comfycontrol_async.testing.server import _comfyui, _runner
from comfycontrol_async.testing.server._comfyui import ComfyUI, Queue, outcome_of, saved_files
from support.bare_api import Api, serving
from support.fake_comfyui import FakeComfyUI
from support.waiting import eventually

REAL = os.environ.get("COMFYUI_URL")
only_fake = pytest.mark.skipif(REAL is not None, reason="needs a ComfyUI that breaks on demand")


def graph(batch: int = 1, color: int = 255, **prefix: str) -> dict[str, Any]:
    """Return a graph that saves pictures of one colour."""
    size = {"width": 64, "height": 64, "batch_size": batch, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": size},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "pic", **prefix}},
    }


def fresh(**options: Any) -> dict[str, Any]:
    """Return a graph that no ComfyUI has in its cache."""
    return graph(color=uuid.uuid4().int % 0xFFFFFF, **options)


def slow(steps: int = 20) -> dict[str, Any]:
    """Return a graph that takes seconds."""
    made = fresh()
    made["1"]["inputs"] |= {"width": 2048, "height": 2048}
    source = "1"
    for number in range(10, 10 + steps):
        inputs = {"image": [source, 0], "blur_radius": 31, "sigma": 10.0}
        made[str(number)] = {"class_type": "ImageBlur", "inputs": inputs}
        source = str(number)
    made["2"]["inputs"]["images"] = [source, 0]
    return made


SAVE = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "pic"}}
BROKEN = {
    "1": {"class_type": "RegexReplace", "inputs": {"string": "abc", "regex_pattern": "(unclosed", "replace": "x"}},
    "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
}


@pytest.fixture
async def fake() -> AsyncIterator[FakeComfyUI]:
    """Run a fake ComfyUI."""
    async with FakeComfyUI() as server:
        yield server


@pytest.fixture
async def api(fake: FakeComfyUI) -> AsyncIterator[Api]:
    """Serve in front of a ComfyUI, in real time."""
    async with serving(comfyui=REAL or fake.url, speed=1.0) as served:
        yield served


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten what a server waits before it gives up, so that tests need not."""
    for name, seconds in (("_POLL", 0.05), ("_LOST", 0.3), ("_GONE", 0.5), ("_PATIENCE", 1.0), ("_RECONNECT", 0.05)):
        monkeypatch.setattr(_runner, name, seconds)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten what a connection that is opened from now on waits for an answer."""
    monkeypatch.setattr(_comfyui, "_ANSWERING", 0.2)


async def ended(api: Api, id: str) -> dict[str, Any]:
    """Wait for the end of a workflow, and return its full form."""
    await eventually(lambda: api.server.workflows[id].status in ("completed", "failed", "cancelled", "invalid"), 20)
    found: dict[str, Any] = await api.get(f"/v1/workflow/{id}")
    return found


async def becomes(api: Api, id: str, status: str) -> None:
    """Wait until a workflow has a status."""
    await eventually(lambda: api.server.workflows[id].status == status, 20)


async def names(api: Api, id: str) -> list[str]:
    """Return the paths of the outputs."""
    found = await api.get(f"/v1/workflow/{id}/outputs")
    return [output["src"].partition("?")[0].partition(f"{id}/")[2] for output in found]


async def cancel(api: Api, id: str) -> int:
    """Cancel a workflow, and return the status of the answer."""
    return (await api.call("POST", f"/v1/workflow/{id}/cancel")).status


async def test_completed(api: Api) -> None:
    """A workflow runs on it, its files are served by signed URLs, and its temporary ones are not."""
    made = fresh(batch=3)
    made["3"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    made["2"]["inputs"]["filename_prefix"] = "$text(prefix)"
    id = await api.create(made, **{"$prefix": "sub/own"})
    full = await ended(api, id)
    assert full["status"] == "completed"
    assert full["created_at"] <= full["started_at"] <= full["completed_at"]
    found = await api.get(f"/v1/workflow/{id}/outputs")
    assert [name.rpartition("_0000")[0] for name in await names(api, id)] == ["sub/own"] * 3
    for output in found:
        reply = await api.call("GET", output["src"], headers={})
        assert (reply.status, reply.headers["Content-Type"]) == (200, "image/png")
        assert json.loads(read_png_text(reply.body)["prompt"])["2"]["inputs"]["filename_prefix"] == "sub/own"
        part = await api.call("GET", output["src"], headers={"Range": "bytes=8-15"})
        assert (part.status, part.body) == (206, reply.body[8:16])
    api.server.cut_download_next(after=10)
    with pytest.raises(aiohttp.ClientPayloadError):
        await api.call("GET", found[0]["src"], headers={})
    api.server.expire_urls()
    assert (await api.call("GET", found[0]["src"], headers={})).status == 403


async def test_upload(api: Api) -> None:
    """A file goes into its input folder under a name that says where it comes from, the same file only once."""
    picture = write_png(8, 8, (1, 2, 3), {})
    made = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "$file(image)"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "pic"}},
    }
    records = []
    for _ in range(2):
        id = await api.create(made, **{"$image": picture})
        full = await ended(api, id)
        assert full["status"] == "completed"
        records.append(api.server.workflows[id])
        assert full["workflow_params"] == [["$file(image)", records[-1].files["image"].stored_as]]
    first, second = (record.prompt["1"]["inputs"]["image"] for record in records)
    assert first == second
    assert first.startswith("comfycontrol_")


@only_fake
async def test_upload_under_another_name(api: Api, fake: FakeComfyUI) -> None:
    """When ComfyUI keeps a file under another name, that is the one that the graph gets."""
    made = {"1": {"class_type": "LoadImage", "inputs": {"image": "$file(image)"}}}
    made["2"] = SAVE
    first = await api.create(made, **{"$image": b"one"})
    await ended(api, first)
    (key,) = [key for key in fake.files if key[0] == "input"]
    fake.files[key] = b"other bytes"
    second = await api.create(made, **{"$image": b"one"})
    assert (await ended(api, second))["status"] == "completed"
    stored = [api.server.workflows[id].prompt["1"]["inputs"]["image"] for id in (first, second)]
    assert stored == [key[2], key[2].replace(".bin", " (1).bin")]


@pytest.mark.parametrize(
    ("made", "node", "kind", "text"),
    [
        pytest.param({"1": {"class_type": "NoSuch", "inputs": {}}}, "1", "invalid_prompt", "NoSuch", id="class"),
        pytest.param(
            {"2": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}},
            "2",
            "required_input_missing",
            "images",
            id="missing",
        ),
        pytest.param({"1": {"class_type": "EmptyImage", "inputs": {}}}, None, "prompt_no_outputs", "", id="no-output"),
        pytest.param(
            {"2": {"class_type": "SaveImage", "inputs": {"images": ["9", 0], "filename_prefix": "x"}}},
            "2",
            "exception_during_inner_validation",
            "there is no node '9'",
            id="absent",
        ),
        pytest.param(
            {"1": {"class_type": "LoadImage", "inputs": {"image": "absent.png"}}, "2": SAVE},
            "1",
            "custom_validation_failed",
            "absent.png",
            id="file-absent",
        ),
    ],
)
async def test_refused(api: Api, made: Any, node: str | None, kind: str, text: str) -> None:
    """What ComfyUI refuses ends invalid, with its error type, the node and the reason."""
    full = await ended(api, await api.create(made))
    assert (full["status"], full["error_node"], full["exception_type"]) == ("invalid", node, kind)
    assert text in full["exception_message"]


async def test_partly_valid(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """Of two outputs the one that is valid runs, as on ComfyUI, and a warning names the other's fault."""
    made = {**fresh(), "3": {"class_type": "SaveImage", "inputs": {"filename_prefix": "other"}}}
    id = await api.create(made)
    assert (await ended(api, id))["status"] == "completed"
    assert [name.rpartition("_0000")[0] for name in await names(api, id)] == ["pic"]
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert f"workflow {id} runs without what node 3 is needed for: Required input is missing" in record.getMessage()


RECORDED = Path(__file__).parents[1] / "data" / "comfyui" / "refused"


@pytest.mark.parametrize(
    ("name", "node", "kind"),
    [
        ("no_outputs", None, "prompt_no_outputs"),
        ("out_of_range", "1", "value_smaller_than_min"),
        ("required_input_missing", "2", "required_input_missing"),
        ("unknown_node", "3", "invalid_prompt"),
    ],
)
async def test_recorded_refusals(api: Api, name: str, node: str | None, kind: str) -> None:
    """Graphs that a ComfyUI has refused are invalid, with the type and the node of its first error."""
    full = await ended(api, await api.create(json.loads((RECORDED / f"{name}.json").read_text())))
    assert (full["status"], full["error_node"], full["exception_type"]) == ("invalid", node, kind)


@only_fake
@pytest.mark.parametrize(
    "made",
    [
        {**graph(), "9": {"class_type": "EmptyImage"}},
        {**graph(), "9": {"class_type": "EmptyImage", "inputs": {"no_such_input": ["absent", 0]}}},
        {**graph(), "9": {"class_type": "EmptyImage", "inputs": {"no_such_input": ["absent", 0.5]}}},
    ],
    ids=["no-inputs", "absent-node", "float-slot"],
)
async def test_what_kills_its_worker(api: Api, fake: FakeComfyUI, made: Any) -> None:
    """The graphs that ComfyUI accepts and dies of never reach it."""
    assert (await ended(api, await api.create(made)))["status"] == "invalid"
    assert fake.posted == []


async def test_failed(api: Api) -> None:
    """A failure has its node, from the messages of the history; what other branches left is no output."""
    made = {**fresh(), **{f"9{id}": node for id, node in BROKEN.items()}}
    made["92"] = {"class_type": "PreviewAny", "inputs": {"source": ["91", 0]}}
    id = await api.create(made)
    full = await ended(api, id)
    assert (full["status"], full["error_node"], full["exception_type"]) == ("failed", "91", "re.error")
    assert full["exception_message"].startswith("missing ), unterminated subpattern")
    assert (await api.call("GET", f"/v1/workflow/{id}/outputs")).status == 404
    reply = await api.call("GET", f"/v1/workflow/{id}/subscribe")
    assert json.loads(reply.body.removeprefix(b"data: "))["cause"]["node_type"] == "RegexReplace"


async def test_cancel_running(api: Api) -> None:
    """A running workflow is interrupted: cancelled, not failed, though ComfyUI calls both an error."""
    id = await api.create(slow())
    await becomes(api, id, "running")
    assert await cancel(api, id) == 200
    assert (await ended(api, id))["status"] == "cancelled"
    assert await cancel(api, id) == 400


async def test_cancel_waiting(api: Api) -> None:
    """A workflow that waits is taken out of the queue and ends at once, as ComfyUI says nothing of it."""
    first, second = await api.create(slow()), await api.create(fresh())
    await becomes(api, first, "running")
    await becomes(api, second, "queued")
    began = api.server.now
    assert await cancel(api, second) == 200
    assert api.server.workflows[second].status == "cancelled"
    assert api.server.now - began < 0.5
    assert await cancel(api, first) == 200
    assert (await ended(api, first))["status"] == "cancelled"


async def test_place_in_the_queue(api: Api, hasty: None) -> None:
    """The place in ComfyUI's queue is shown: 1 for what runs."""
    ids = [await api.create(slow(4)), *[await api.create(fresh()) for _ in range(2)]]
    records = [api.server.workflows[id] for id in ids]
    await eventually(lambda: [record.place for record in records] == [1, 2, 3], 20)
    shown = [(await api.get(f"/v1/workflow/{id}"))["queue_number"] for id in ids]
    assert shown == [1, 2, 3]
    assert await cancel(api, ids[0]) == 200
    assert [(await ended(api, id))["status"] for id in ids] == ["cancelled", "completed", "completed"]


@only_fake
@pytest.mark.parametrize("older", [False, True], ids=["by-id", "ignores-the-id"])
async def test_used_by_hand(api: Api, fake: FakeComfyUI, older: bool) -> None:
    """Another client's prompt is never stopped: neither by a cancel nor by an interrupt of the runner."""
    fake.ignores_interrupt_id, fake.blur = older, 0.1
    foreign = {"prompt": slow(3), "prompt_id": "11111111-2222-3333-4444-555555555555"}
    async with api.session.post(f"{fake.url}/prompt", json=foreign) as response:
        assert response.status == 200
    ours = await api.create(fresh())
    await becomes(api, ours, "queued")
    (runner,) = api.server.runners
    assert (await api.call("POST", f"/v1/runner/{runner}/interrupt")).status == 200
    assert await cancel(api, ours) == 200
    assert (await ended(api, ours))["status"] == "cancelled"
    await eventually(lambda: foreign["prompt_id"] in fake.history, 20)
    assert fake.history[str(foreign["prompt_id"])]["status"]["status_str"] == "success"


async def test_interrupt_runner(api: Api) -> None:
    """An interrupt of the runner stops what runs there."""
    id = await api.create(slow())
    await becomes(api, id, "running")
    (runner,) = api.server.runners
    assert (await api.call("POST", f"/v1/runner/{runner}/interrupt")).status == 200
    assert (await ended(api, id))["status"] == "cancelled"


@only_fake
async def test_answered_from_the_cache(api: Api, fake: FakeComfyUI) -> None:
    """A prompt that ran before has its old file; when that was removed it fails, and does not complete with nothing."""
    made = graph()
    first, second = [await api.create(made) for _ in range(2)]
    await ended(api, first)
    await ended(api, second)
    assert await names(api, first) == await names(api, second) == ["pic_00001_.png"]
    fake.files = {key: data for key, data in fake.files.items() if key[0] != "output"}
    full = await ended(api, await api.create(made))
    assert (full["status"], full["exception_type"]) == ("failed", "OutputGone")
    assert "node 2 names the output 'pic_00001_.png'" in full["exception_message"]
    assert (await api.call("GET", f"/v1/workflow/{first}/outputs")).status == 200


@only_fake
async def test_without_the_websocket(api: Api, fake: FakeComfyUI, hasty: None) -> None:
    """What ends while the websocket is down is found by the poll."""
    await fake.close_sockets()
    assert (await ended(api, await api.create(fresh())))["status"] == "completed"


@only_fake
async def test_told_at_once(api: Api, fake: FakeComfyUI) -> None:
    """The stream shows a short run when it happens, not at the next tick; the start of it as well."""
    fake.seconds = 0.1
    await ended(api, await api.create(fresh()))  # the websocket is connected
    id = await api.create(fresh())
    async with api.session.get(
        f"{api.server.url}/v1/workflow/{id}/subscribe", headers={"Authorization": f"Bearer {api.server.token}"}
    ) as response:
        seen = [json.loads(line.removeprefix(b"data: "))["status"] async for line in response.content if line.strip()]
    life = api.server.workflows[id].life
    assert "running" in seen
    assert seen[-1] == "completed"
    assert api.server.now - life.ended < 1.0  # the tick is 2 s


@only_fake
async def test_lost_answer(api: Api, fake: FakeComfyUI, hasty: None) -> None:
    """A prompt whose answer was lost is looked up by our own id, and not queued twice."""
    fake.lost_answers = 1
    id = await api.create(fresh())
    assert (await ended(api, id))["status"] == "completed"
    assert [body["prompt_id"] for body in fake.posted] == [api.server.workflows[id].prompt_id]


@only_fake
async def test_restarted(api: Api, fake: FakeComfyUI, hasty: None) -> None:
    """A prompt that was lost in a restart fails with that reason, and the next one completes."""
    id = await api.create(slow())
    await becomes(api, id, "running")
    await fake.kill()
    await fake.start()
    full = await ended(api, id)
    assert (full["status"], full["exception_type"]) == ("failed", "PromptLost")
    assert (await ended(api, await api.create(fresh())))["status"] == "completed"


@only_fake
async def test_killed(api: Api, fake: FakeComfyUI, hasty: None) -> None:
    """While it is down, what it was given fails; what it was not given yet waits, and runs when it is back."""
    id = await api.create(slow())
    await becomes(api, id, "running")
    await fake.kill()
    full = await ended(api, id)
    assert (full["status"], full["exception_type"]) == ("failed", "RunnerUnreachable")
    assert f"the ComfyUI at {fake.url} cannot be reached" in full["exception_message"]
    waiting = await api.create(fresh())
    await fake.start()
    assert (await ended(api, waiting))["status"] == "completed"


@only_fake
async def test_down_for_good(api: Api, fake: FakeComfyUI, hasty: None) -> None:
    """What cannot be given to it for long fails, with the reason; a cancel that cannot reach it is a 500."""
    id = await api.create(slow())
    await becomes(api, id, "running")
    await fake.kill()
    assert await cancel(api, id) == 500
    full = await ended(api, await api.create(fresh()))
    assert (full["status"], full["exception_type"]) == ("failed", "RunnerError")
    assert "cannot be reached" in full["exception_message"]


@only_fake
async def test_dead_worker(fake: FakeComfyUI, hasty: None) -> None:
    """A worker that makes no progress is given up after `comfyui_timeout`, and what waits behind it too."""
    fake.dead = True
    async with serving(comfyui=fake.url, speed=1.0, comfyui_timeout=0.5) as api:
        for id in [await api.create(fresh()) for _ in range(2)]:
            full = await ended(api, id)
            assert (full["status"], full["exception_type"]) == ("failed", "RunnerStalled")
            assert "made no progress" in full["exception_message"]


@only_fake
async def test_stalls(
    hasty: None, impatient: None, api: Api, fake: FakeComfyUI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ComfyUI that takes connections and answers nothing may be busy: it gets more time, and not for ever."""
    monkeypatch.setattr(_runner, "_PATIENCE", 1000.0)
    id = await api.create(slow(4))
    await becomes(api, id, "running")
    fake.stall()
    began = api.server.now
    await eventually(lambda: api.server.now - began > 1.0)  # twice as long as it may be down
    assert api.server.workflows[id].status == "running"
    monkeypatch.setattr(_runner, "_PATIENCE", 1.0)
    full = await ended(api, id)
    assert (full["status"], full["exception_type"]) == ("failed", "RunnerUnreachable")


@only_fake
async def test_in_a_thread(fake: FakeComfyUI) -> None:
    """In a thread of its own the server stands in front of a ComfyUI as well."""
    server = LocalServer(comfyui=fake.url, limit=None)
    await asyncio.to_thread(server.__enter__)
    try:
        async with aiohttp.ClientSession() as session:
            api = Api(server, session)
            assert (await ended(api, await api.create(fresh())))["status"] == "completed"
    finally:
        await asyncio.to_thread(server.__exit__, None, None, None)


@only_fake
async def test_odd_history(api: Api, fake: FakeComfyUI, hasty: None) -> None:
    """A history that cannot be read ends the workflow all the same."""
    id = await api.create(slow())
    await becomes(api, id, "running")
    fake.history[api.server.workflows[id].prompt_id] = {"status": {"messages": 5}}
    fake.running = None
    full = await ended(api, id)
    assert (full["status"], full["exception_type"]) == ("failed", "RunnerError")


@pytest.mark.parametrize("rows", [None, 5, {}, [5, [], [1], None]], ids=["null", "number", "object", "rows"])
async def test_odd_queue(rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no row of a queue is passed over: the history says how a prompt ended."""

    async def answer(self: ComfyUI, method: str, path: str) -> Any:
        return {"queue_running": rows, "queue_pending": [[2, "b"], [1, "a"]]}

    monkeypatch.setattr(ComfyUI, "_json", answer)
    assert await ComfyUI("http://127.0.0.1:8188", {}).queue() == Queue((), ("a", "b"))


async def test_files_are_kept_on_disk(fake: FakeComfyUI) -> None:
    """Outputs are files of a temporary folder, which is gone with the server."""
    server = LocalServer(comfyui=REAL or fake.url, limit=None)
    async with server, aiohttp.ClientSession() as session:
        api = Api(server, session)
        id = await api.create(fresh())
        await ended(api, id)
        (path,) = server.workflows[id].files_on_disk.values()
        assert path.is_file()
    async with server, aiohttp.ClientSession() as session:  # and stay when it is started again
        reply = await Api(server, session).call("GET", f"/v1/workflow/{id}/outputs")
        assert len(reply.json) == 1
    del server, api
    gc.collect()
    assert not path.exists()


@only_fake
async def test_stopped_and_started(fake: FakeComfyUI) -> None:
    """What is open when the server stops is followed again after a start."""
    fake.blur = 0.2
    server = LocalServer(comfyui=fake.url, limit=None)
    async with server, aiohttp.ClientSession() as session:
        api = Api(server, session)
        first, second = await api.create(slow(2)), await api.create(fresh())
        await becomes(api, first, "running")
    async with server, aiohttp.ClientSession() as session:
        api = Api(server, session)
        for id in (first, second):
            assert (await ended(api, id))["status"] == "completed"


async def test_stats(api: Api) -> None:
    """The managed runner's stats are those of the machine that ComfyUI runs on."""
    (id,) = api.server.managed_runners
    stats = await api.get(f"/v1/managed-runner/{id}/stats")
    assert stats["system"]["comfyui_version"] is not None
    assert (stats["dev_mode"], stats["extensions"]) == (False, [])
    assert stats["devices"][0]["name"]


@only_fake
async def test_several_runners(api: Api, fake: FakeComfyUI) -> None:
    """Other ComfyUIs are runners; each workflow goes to one with all its tags, or waits until there is one."""
    async with FakeComfyUI() as other:
        (own,) = api.server.runners
        await api.call("PUT", f"/v1/runner/{own}", json={"tags": ["small"]})
        waiting = await api.create(fresh(), tags="large")
        runner = {"name": "Other", "endpoint": other.url, "tags": ["large", "small"], "headers": {"X-Key": "secret"}}
        reply = await api.call("POST", "/v1/runner", json=runner)
        assert reply.status == 201
        assert (await ended(api, waiting))["user_runner_id"] == reply.json["id"]
        ids = [await api.create(fresh(), tags=tags) for tags in ("large,small", *["small"] * 10)]
        assert {(await ended(api, id))["status"] for id in ids} == {"completed"}
        # Both share what either may take: the one with less to do gets the next.
        assert len(fake.posted) + len(other.posted) == 12
        assert len(fake.posted) >= 4
        assert len(other.posted) >= 4


@only_fake
async def test_one_of_several_is_down(hasty: None, api: Api, fake: FakeComfyUI) -> None:
    """What a runner cannot take goes to another one whose tags fit; when it is back it gets its share again."""
    async with FakeComfyUI() as other:
        await api.call("POST", "/v1/runner", json={"name": "Other", "endpoint": other.url})
        await fake.kill()
        ids = [await api.create(fresh()) for _ in range(6)]
        assert {(await ended(api, id))["status"] for id in ids} == {"completed"}
        assert (len(fake.posted), len(other.posted)) == (0, 6)
        await fake.start()
        sockets = fake.requests.count(("GET", "/ws"))
        await eventually(lambda: fake.requests.count(("GET", "/ws")) > sockets)
        other.seconds = 0.5
        ids = [await api.create(fresh()) for _ in range(6)]
        assert {(await ended(api, id))["status"] for id in ids} == {"completed"}
        assert fake.posted


async def test_real_limit(fake: FakeComfyUI) -> None:
    """The limit of the service holds in front of a ComfyUI as well, and None lifts it."""
    async with serving(comfyui=REAL or fake.url, limit=2, speed=1.0) as api:
        assert [(await api.call("GET", "/v1/user")).status for _ in range(3)] == [200, 200, 429]
    async with serving(comfyui=REAL or fake.url, limit=None, speed=1.0) as api:
        assert {(await api.call("GET", "/v1/user")).status for _ in range(100)} == {200}


# What a history says

ERROR = {"node_id": "2", "node_type": "KSampler", "exception_type": "ValueError", "exception_message": "no\n"}
START = ["execution_start", {"prompt_id": "p"}]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        pytest.param({"status_str": "success", "messages": [START]}, ("completed", None), id="success"),
        pytest.param(
            {"status_str": "error", "messages": [START, ["execution_interrupted", {"node_id": "4"}]]},
            ("cancelled", None),
            id="interrupted",
        ),
        pytest.param(
            {"status_str": "error", "messages": [START, ["execution_error", ERROR]]},
            ("failed", Failure("2", "KSampler", "ValueError", "no")),
            id="error",
        ),
        pytest.param(
            {"status_str": "error", "messages": [["execution_error", {}]]},
            ("failed", Failure(None, None, None, None)),
            id="error-without-facts",
        ),
        pytest.param(
            {"status_str": "error"},
            ("failed", Failure(None, None, "ExecutionError", "ComfyUI gives no reason")),
            id="error-without-messages",
        ),
        pytest.param({"status_str": "success", "messages": None}, ("completed", None), id="no-messages"),
        pytest.param(None, ("completed", None), id="no-status"),
    ],
)
def test_outcomes(status: Any, outcome: Any) -> None:
    """The messages decide how a prompt ended."""
    assert outcome_of({"outputs": {}, "status": status}) == outcome


def test_saved_files() -> None:
    """Outputs are what is saved, in the order of the graph; temporary files, texts and flags are none."""
    file = {"filename": "a.png", "subfolder": "", "type": "output"}
    outputs = {
        "9": {"images": [file, {**file, "filename": "b.png"}], "animated": [True]},
        "2": {"gifs": [{**file, "filename": "c.mp4"}], "text": ["words"], "odd": None},
        "3": {"images": [{**file, "type": "temp"}]},
        "x": None,
    }
    found = saved_files({"outputs": outputs}, ["1", "2", "9"])
    assert [(node, file["filename"]) for node, file in found] == [("2", "c.mp4"), ("9", "a.png"), ("9", "b.png")]
    assert saved_files({"outputs": None}, []) == saved_files({}, []) == []


# A ComfyUI that cannot be used


@asynccontextmanager
async def answering(handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """Serve one answer to everything, and give the address."""
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def page(status: int = 200, text: str = "<html><title>Welcome</title>", **headers: str) -> Any:
    """Make a handler of one answer."""

    async def handle(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, text=text, content_type="text/html", headers=headers)

    return handle


@pytest.mark.parametrize(
    ("handler", "sentence"),
    [
        pytest.param(page(), "answers with an HTML page", id="html"),
        pytest.param(page(text="hello"), "answers something else than JSON", id="no-json"),
        pytest.param(page(text="{}"), "but not as a ComfyUI does", id="other-json"),
        pytest.param(page(401), "answers 401: it needs headers", id="headers"),
        pytest.param(page(403), "answers 403: it needs headers", id="forbidden"),
        pytest.param(page(404), "answers 404", id="absent-path"),
        pytest.param(page(302, Location="https://x/"), "takes https only", id="redirect-to-https"),
        pytest.param(page(302, Location="/login"), "redirects to another address", id="redirect"),
        pytest.param(
            page(400, "<p>The plain HTTP request was sent to HTTPS port"), "takes https only", id="https-of-nginx"
        ),
    ],
)
async def test_unusable(handler: Any, sentence: str) -> None:
    """One sentence says what stands there when the server starts, and nothing is left behind."""
    async with answering(handler) as url:
        await refused(url, sentence)


async def refused(url: str, sentence: str) -> None:
    """Check that a server in front of this address does not start, says why and shows no secret, within a second."""
    address = url.replace("://", "://user:secret@")
    server = LocalServer(comfyui=address, comfyui_headers={"X-Key": "secret"})
    async with asyncio.timeout(1.0):
        with pytest.raises(ComfyUIError, match=sentence) as caught:
            await server.start()
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(server)
    assert url.partition("://")[2] in str(caught.value)


async def test_absent(unused_tcp_port: int) -> None:
    """An address where nothing is, or that no name has, is refused as such."""
    await refused(f"http://127.0.0.1:{unused_tcp_port}", "cannot be reached .*: check the address, and that it runs")


async def test_https_only() -> None:
    """A ComfyUI that takes TLS only closes the connection of a plain request; so is the other way round."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"\x15\x03\x01\x00\x02\x02\x46")  # the alert of TLS for what is no handshake
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        await refused(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "if it takes https only, use https://")
    async with answering(page()) as url:
        await refused(url.replace("http:", "https:"), "does not speak https: use http://")


@only_fake
async def test_headers(fake: FakeComfyUI) -> None:
    """Headers of the ComfyUI go with every request, the websocket's too."""
    fake.headers = {"Authorization": "Bearer of the proxy"}
    async with serving(comfyui=fake.url, comfyui_headers=fake.headers, speed=1.0) as api:
        assert (await ended(api, await api.create(fresh())))["status"] == "completed"
        assert ("GET", "/ws") in fake.requests


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8188", "ftp://host", "http://", "http://host:99999", "ftp://user:secret@host", "", 5]
)
def test_no_address(url: Any) -> None:
    """An address that is none is refused by the constructor."""
    with pytest.raises(ValueError, match="comfyui must be an address such as") as caught:
        LocalServer(comfyui=url)
    assert "secret" not in str(caught.value)


async def test_stalled(fake: FakeComfyUI, impatient: None) -> None:
    """A ComfyUI that never answers is refused as such."""
    fake.stall()
    await refused(fake.url, "gave no answer within 0.2 s")

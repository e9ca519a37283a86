"""Runners, managed runners, templates and the user over HTTP."""

import io
import json
import re
from typing import Any

import pytest

from support.bare_api import Api, form, serving

ABSENT = "00000000-0000-4000-8000-000000000000"
NOT_FOUND = {"status": 404, "message": "requested entity not found"}
RUNNER = {"name": "mine", "endpoint": "https://gpu.example.com", "tags": ["a"], "headers": {"X-Key": "secret"}}
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


async def test_user() -> None:
    """The user has every documented field."""
    async with serving(tier="plus") as api:
        user = await api.get("/v1/user")
        assert set(user) == {"id", "name", "email", "deleted", "tier", "provider", "created_at", "updated_at"}
        assert user["tier"] == "plus"
        assert TIMESTAMP.fullmatch(user["created_at"])
        assert api.server.user == user


@pytest.mark.parametrize("token", ["", "Bearer", "Bearer cfc_other", "Basic {token}", "{token}"])
async def test_bad_token(token: str) -> None:
    """Anything but the token is refused."""
    async with serving() as api:
        header = {"Authorization": token.format(token=api.server.token)} if token else {}
        reply = await api.call("GET", "/v1/user", headers=header)
        assert (reply.status, reply.json) == (401, {"status": 401, "message": "Invalid token"})


async def test_tokens() -> None:
    """A token can be given, and can expire."""
    async with serving(token="cfc_given") as api:
        assert api.server.token == "cfc_given"
        assert "cfc_given" not in repr(api.server)
        await api.get("/v1/user")
        api.server.expire_token()
        reply = await api.call("GET", "/v1/user")
        assert (reply.status, reply.json) == (401, {"status": 401, "message": "Token has expired"})


@pytest.mark.parametrize("resource", ["runner", "managed-runner", "workflow", "template"])
async def test_ids(resource: str) -> None:
    """An id that is no UUID-like text is malformed; one that nothing has is not found."""
    async with serving() as api:
        malformed = await api.call("GET", f"/v1/{resource}/not-an-id")
        assert (malformed.status, malformed.json["status"]) == (400, 400)
        assert "UUID" in malformed.json["message"]
        absent = await api.call("GET", f"/v1/{resource}/{ABSENT}")
        assert (absent.status, absent.json) == (404, NOT_FOUND)
        odd = await api.call("GET", f"/v1/{resource}/t1e2m3p4-l5a6-7890-abcd-ef1234567890")
        assert odd.status == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/v1/nothing", 404), ("DELETE", "/v1/user", 405), ("POST", "/v1/user", 405)],
)
async def test_unknown_endpoints(method: str, path: str, status: int) -> None:
    """What is no endpoint answers the envelope too."""
    async with serving() as api:
        reply = await api.call(method, path)
        assert (reply.status, reply.json["status"]) == (status, status)


@pytest.mark.parametrize(
    "query", ["page=0", "per_page=0", "per_page=101", "page=x", "page=-1", "per_page=", "page=1.5"]
)
@pytest.mark.parametrize("path", ["/v1/runner", "/v1/managed-runner", "/v1/workflow", "/v1/template"])
async def test_page_bounds(path: str, query: str) -> None:
    """Pages outside the documented bounds are refused."""
    async with serving() as api:
        reply = await api.call("GET", f"{path}?{query}")
        assert reply.status == 400, reply


async def test_runner_pages() -> None:
    """Lists are newest first, ten to a page, with the total over all pages."""
    async with serving(runner_limit=30) as api:
        for number in range(24):
            reply = await api.call("POST", "/v1/runner", json={**RUNNER, "name": f"r{number}"})
            assert reply.status == 201
        first = await api.get("/v1/runner")
        assert [it["name"] for it in first["runners"]] == [f"r{number}" for number in range(23, 13, -1)]
        last = await api.get("/v1/runner?page=2&per_page=20")
        assert [it["name"] for it in last["runners"]] == ["r3", "r2", "r1", "r0", "Local runner"]
        assert first["total"] == last["total"] == 25
        assert (await api.get("/v1/runner?page=99"))["runners"] == []


async def test_runner_life() -> None:
    """A runner is made, read, changed in part, and disabled."""
    async with serving() as api:
        made = (await api.call("POST", "/v1/runner", json=RUNNER)).json
        assert {key: made[key] for key in RUNNER} == RUNNER
        assert made["status"] == "active"
        assert set(made) == {*RUNNER, "id", "user_id", "status", "created_at", "updated_at"}
        path = f"/v1/runner/{made['id']}"
        assert await api.get(path) == made
        changed = (await api.call("PUT", path, json={"status": "disabled", "tags": []})).json
        assert changed == {**made, "status": "disabled", "tags": [], "updated_at": changed["updated_at"]}
        assert [it["id"] for it in (await api.get("/v1/runner?status=disabled"))["runners"]] == [made["id"]]
        assert (await api.get("/v1/runner?status=active"))["total"] == 1
        assert api.server.runners[made["id"]] == changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "name cannot be empty"),
        ({"name": None}, "name cannot be empty"),
        ({"name": "n" * 101}, "name cannot be longer than 100 characters"),
        ({"name": 5}, "name must be a string"),
        ({"endpoint": "gpu.example.com"}, "invalid endpoint URL format"),
        ({"endpoint": "ftp://gpu.example.com"}, "invalid endpoint URL format"),
        ({"endpoint": "http://"}, "invalid endpoint URL format"),
        ({"endpoint": "http://[::1"}, "invalid endpoint URL format"),
        ({"endpoint": None}, "invalid endpoint URL format"),
        ({"tags": ["t"] * 11}, "no more than 10 tags are allowed"),
        ({"tags": "a,b"}, "tags must be an array of strings"),
        ({"headers": {"X": 1}}, "headers must be an object of strings"),
        ({"headers": ["X"]}, "headers must be an object of strings"),
    ],
)
async def test_runner_checks(change: dict[str, Any], message: str) -> None:
    """Create and update refuse the same values, with a message that names the field."""
    async with serving() as api:
        made = (await api.call("POST", "/v1/runner", json=RUNNER)).json
        for method, path, body in (
            ("POST", "/v1/runner", {**RUNNER, **change}),
            ("PUT", f"/v1/runner/{made['id']}", change),
        ):
            reply = await api.call(method, path, json=body)
            assert (reply.status, reply.json) == (400, {"status": 400, "message": message})
        assert await api.get(f"/v1/runner/{made['id']}") == made


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"x" * (2 << 20)])
async def test_bad_json_bodies(body: bytes) -> None:
    """A body that is no JSON object is refused."""
    async with serving() as api:
        assert (await api.call("POST", "/v1/runner", data=io.BytesIO(body))).status == 400


async def test_runner_refusals() -> None:
    """Unknown states and runners over the tier's limit are refused."""
    async with serving(runner_limit=2) as api:
        assert (await api.call("GET", "/v1/runner?status=on")).status == 400
        made = (await api.call("POST", "/v1/runner", json=RUNNER)).json
        assert (await api.call("PUT", f"/v1/runner/{made['id']}", json={"status": "on"})).status == 400
        reply = await api.call("POST", "/v1/runner", json=RUNNER)
        assert (reply.status, reply.json["message"]) == (403, "Runner limit exceeded for your tier")


async def test_managed_runners() -> None:
    """Managed runners are listed, read, and asked for their stats and history, without their address."""
    async with serving() as api:
        page = await api.get("/v1/managed-runner")
        assert page["total"] == len(page["runners"]) == 2
        for runner in page["runners"]:
            assert set(runner) == {"id", "name", "runner_type", "status", "tags", "created_at", "updated_at"}
            path = f"/v1/managed-runner/{runner['id']}"
            assert await api.get(path) == runner == api.server.managed_runners[runner["id"]]
            assert await api.get(f"{path}/history") == []
            assert set(await api.get(f"{path}/stats")) == {"system", "devices", "dev_mode", "extensions"}


@pytest.mark.parametrize("rest", ["", f"/{ABSENT}", f"/{ABSENT}/history", f"/{ABSENT}/stats"])
async def test_free_tier(rest: str) -> None:
    """The free tier has no managed runners."""
    async with serving(tier="free") as api:
        reply = await api.call("GET", f"/v1/managed-runner{rest}")
        assert (reply.status, reply.json["message"]) == (403, "Managed runners require Pro or Plus tier")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"/v1/runner/{ABSENT}/interrupt"),
        ("GET", f"/v1/runner/{ABSENT}/history"),
        ("PUT", f"/v1/runner/{ABSENT}"),
        ("GET", f"/v1/managed-runner/{ABSENT}/history"),
        ("GET", f"/v1/managed-runner/{ABSENT}/stats"),
        ("POST", f"/v1/workflow/{ABSENT}/cancel"),
        ("POST", f"/v1/workflow/{ABSENT}/rerun"),
        ("GET", f"/v1/workflow/{ABSENT}/outputs"),
        ("GET", f"/v1/workflow/{ABSENT}/subscribe"),
        ("PUT", f"/v1/template/{ABSENT}"),
    ],
)
async def test_absent_things(method: str, path: str) -> None:
    """Every endpoint of one thing answers 404 when it is not there."""
    async with serving() as api:
        reply = await api.call(method, path)
        assert (reply.status, reply.json) == (404, NOT_FOUND)


async def make_template(api: Api, **parts: Any) -> Any:
    """Create a template and return the reply."""
    body = {"name": "t", "description": "d", "body": b'{"1": {}}', **parts}
    return await api.call("POST", "/v1/template", data=form({k: v for k, v in body.items() if v is not None}))


async def test_template_life() -> None:
    """A template is made, listed without its body, read with it, and changed in part."""
    async with serving() as api:
        reply = await make_template(api)
        assert reply.status == 201
        made = reply.json
        assert set(made) == {"id", "user_id", "name", "description", "body", "created_at", "updated_at"}
        assert made["body"] == {"1": {}}
        bare = {key: value for key, value in made.items() if key != "body"}
        assert await api.get("/v1/template") == {"templates": [bare], "total": 1}
        path = f"/v1/template/{made['id']}"
        assert await api.get(path) == made
        changed = await api.call("PUT", path, data=form({"description": "new"}))
        assert changed.json == {**made, "description": "new", "updated_at": changed.json["updated_at"]}
        changed = await api.call("PUT", path, data=form({"body": json.dumps({"2": {}}).encode()}))
        assert (changed.status, changed.json["body"]) == (200, {"2": {}})
        assert api.server.templates[made["id"]]["description"] == "new"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"name": None}, "name cannot be empty"),
        ({"name": "n" * 101}, "name cannot be longer than 100 characters"),
        ({"description": ""}, "description cannot be empty"),
        ({"description": "d" * 501}, "description cannot be longer than 500 characters"),
        ({"body": None}, "body must be a JSON file"),
        ({"body": "{}"}, "body must be a JSON file"),
        ({"body": b"{"}, "body is not valid JSON"),
        ({"body": b"[]"}, "body must be a JSON object"),
    ],
)
async def test_template_checks(parts: dict[str, Any], message: str) -> None:
    """A template with a bad part is refused by name."""
    async with serving() as api:
        reply = await make_template(api, **parts)
        assert (reply.status, reply.json["message"]) == (400, message)


async def test_template_limit() -> None:
    """The tier limits templates."""
    async with serving(template_limit=1) as api:
        assert (await make_template(api)).status == 201
        reply = await make_template(api)
        assert (reply.status, reply.json["message"]) == (403, "Template limit exceeded for your tier")

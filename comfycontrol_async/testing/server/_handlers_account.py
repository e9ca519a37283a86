"""Endpoints of what an account has besides workflows: the user, runners, managed runners, templates."""

from collections.abc import Callable
from typing import Any

from comfycontrol_async.testing.server._records import Answer, ApiError, json_answer
from comfycontrol_async.testing.server._serializers import summary
from comfycontrol_async.testing.server._state import existing
from comfycontrol_async.testing.server._validation import (
    Call,
    Form,
    check_choice,
    check_endpoint,
    check_headers,
    check_page,
    check_tags,
    check_text,
    parse_object,
    read_object,
)

_STATUSES = ("active", "disabled")
_HISTORY = 10
_CHECKS: dict[str, Callable[[Any], Any]] = {
    "name": lambda value: check_text(value, "name", 100),
    "endpoint": check_endpoint,
    "headers": check_headers,
    "tags": check_tags,
    "status": lambda value: check_choice(value, "status", _STATUSES),
}


async def list_runners(call: Call) -> Answer:
    """GET /v1/runner."""
    query = call.record.query
    status = check_choice(query["status"], "status", _STATUSES) if "status" in query else None
    runners = [runner for runner in call.state.runners.values() if status in (None, runner["status"])]
    return _page_answer(call, "runners", runners)


async def create_runner(call: Call) -> Answer:
    """POST /v1/runner."""
    given = await read_object(call.request, call.record)
    fields = {"name": given.get("name"), "endpoint": given.get("endpoint")}
    fields |= {"headers": given.get("headers", {}), "tags": given.get("tags", [])}
    checked = {name: _CHECKS[name](value) for name, value in fields.items()}
    if len(call.state.runners) >= call.state.options.runner_limit:
        raise ApiError(403, "Runner limit exceeded for your tier")
    runner = call.state.add_runner(checked)
    call.executor.runners_changed()
    return json_answer(runner, 201)


async def get_runner(call: Call) -> Answer:
    """GET /v1/runner/{id}."""
    return json_answer(existing(call.state.runners.get(call.id)))


async def update_runner(call: Call) -> Answer:
    """PUT /v1/runner/{id}: only what is given changes."""
    runner = existing(call.state.runners.get(call.id))
    given = await read_object(call.request, call.record)
    call.state.change(runner, {name: check(given[name]) for name, check in _CHECKS.items() if name in given})
    call.executor.runners_changed()
    return json_answer(runner)


async def interrupt_runner(call: Call) -> Answer:
    """POST /v1/runner/{id}/interrupt: whatever runs there is cancelled."""
    existing(call.state.runners.get(call.id))
    await call.executor.interrupt(call.id)
    return Answer(200)


async def runner_history(call: Call) -> Answer:
    """GET /v1/runner/{id}/history."""
    existing(call.state.runners.get(call.id))
    return _history(call)


async def list_managed_runners(call: Call) -> Answer:
    """GET /v1/managed-runner."""
    _check_tier(call)
    return _page_answer(call, "runners", list(call.state.managed_runners.values()))


async def get_managed_runner(call: Call) -> Answer:
    """GET /v1/managed-runner/{id}."""
    return json_answer(_managed(call))


async def managed_runner_history(call: Call) -> Answer:
    """GET /v1/managed-runner/{id}/history."""
    _managed(call)
    return _history(call)


async def managed_runner_stats(call: Call) -> Answer:
    """GET /v1/managed-runner/{id}/stats."""
    _managed(call)
    return json_answer(await call.executor.stats(call.id))


async def get_user(call: Call) -> Answer:
    """GET /v1/user."""
    return json_answer(call.state.user)


async def list_templates(call: Call) -> Answer:
    """GET /v1/template: without the bodies."""
    bare = [
        {key: value for key, value in template.items() if key != "body"} for template in call.state.templates.values()
    ]
    return _page_answer(call, "templates", bare)


async def create_template(call: Call) -> Answer:
    """POST /v1/template."""
    form = await call.form()
    checked = _checked_template(form, required=True)
    if len(call.state.templates) >= call.state.options.template_limit:
        raise ApiError(403, "Template limit exceeded for your tier")
    return json_answer(call.state.add_template(checked), 201)


async def get_template(call: Call) -> Answer:
    """GET /v1/template/{id}."""
    return json_answer(existing(call.state.templates.get(call.id)))


async def update_template(call: Call) -> Answer:
    """PUT /v1/template/{id}: only what is given changes."""
    template = existing(call.state.templates.get(call.id))
    call.state.change(template, _checked_template(await call.form(), required=False))
    return json_answer(template)


def _page_answer(call: Call, key: str, resources: list[dict[str, Any]]) -> Answer:
    """Return one page of `resources`, given oldest first and shown newest first."""
    number, size = check_page(call.record.query)
    first = (number - 1) * size
    return json_answer({key: resources[::-1][first : first + size], "total": len(resources)})


def _check_tier(call: Call) -> None:
    if call.state.options.tier == "free":
        raise ApiError(403, "Managed runners require Pro or Plus tier")


def _managed(call: Call) -> dict[str, Any]:
    _check_tier(call)
    return existing(call.state.managed_runners.get(call.id))


def _history(call: Call) -> Answer:
    now = call.now
    return json_answer([summary(record, now) for record in call.state.workflows.of_runner(call.id, _HISTORY)])


def _checked_template(form: Form, *, required: bool) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for name, longest in (("name", 100), ("description", 500)):
        if required or name in form.fields:
            checked[name] = check_text(form.fields.get(name), name, longest)
    upload = form.files.get("body")
    if upload is not None:
        checked["body"] = parse_object(upload.data, "body")
    elif required or "body" in form.fields:
        raise ApiError(400, "body must be a JSON file")
    return checked

"""Endpoints of templates."""

from typing import Any

from comfycontrol_async.testing.server._call import Call
from comfycontrol_async.testing.server._handlers_runners import page_answer
from comfycontrol_async.testing.server._records import Answer, ApiError, json_answer
from comfycontrol_async.testing.server._state import existing
from comfycontrol_async.testing.server._validation import Form, check_text, parse_object


async def list_templates(call: Call) -> Answer:
    """GET /v1/template: without the bodies."""
    bare = [
        {key: value for key, value in template.items() if key != "body"} for template in call.state.templates.values()
    ]
    return page_answer(call, "templates", bare)


async def create_template(call: Call) -> Answer:
    """POST /v1/template."""
    form = await call.form()
    checked = _checked(form, required=True)
    if len(call.state.templates) >= call.state.options.template_limit:
        raise ApiError(403, "Template limit exceeded for your tier")
    return json_answer(call.state.add_template(checked), 201)


async def get_template(call: Call) -> Answer:
    """GET /v1/template/{id}."""
    return json_answer(existing(call.state.templates.get(call.id)))


async def update_template(call: Call) -> Answer:
    """PUT /v1/template/{id}: only what is given changes."""
    template = existing(call.state.templates.get(call.id))
    call.state.change(template, _checked(await call.form(), required=False))
    return json_answer(template)


def _checked(form: Form, *, required: bool) -> dict[str, Any]:
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

"""Commands about runners, your own and managed ones. Values of a runner's headers are secrets and never printed."""

from collections.abc import Sequence
from typing import Any

import attrs

from comfycontrol_async import ManagedRunner, Runner, RunnerStatus, WorkflowSummary
from comfycontrol_async.cli._execute import connect
from comfycontrol_async.cli._exit_codes import DONE
from comfycontrol_async.cli._show import print_fields, print_json, print_result, print_table, show_time

_HIDDEN = "***"


async def list_runners(status: RunnerStatus | None, *, as_json: bool) -> int:
    """List your own runners."""
    async with connect() as comfy:
        runners = await comfy.runners.list(status=status).all()
    if as_json:
        print_json([hide_headers(runner) for runner in runners])
    else:
        print_table(
            [_row(runner) for runner in runners],
            empty="there are no runners; add one with: comfycontrol runners add NAME URL",
        )
    return DONE


async def show_runner(id: str, *, as_json: bool) -> int:
    """Show one of your runners."""
    async with connect() as comfy:
        return _print(await comfy.runners.get(id), as_json)


async def add_runner(
    name: str, endpoint: str, headers: dict[str, str] | None, tags: Sequence[str], *, as_json: bool
) -> int:
    """Register a ComfyUI as a runner and print its id."""
    async with connect() as comfy:
        runner = await comfy.runners.create(name, endpoint, headers=headers, tags=tags)
    if as_json:
        print_json(hide_headers(runner))
    else:
        print_result(runner.id)
    return DONE


async def update_runner(id: str, *, as_json: bool, **changes: Any) -> int:
    """Change what is given of a runner."""
    given = {name: value for name, value in changes.items() if value is not None}
    async with connect() as comfy:
        return _print(await comfy.runners.update(id, **given), as_json)


async def interrupt_runner(id: str) -> int:
    """Stop what a runner executes now."""
    async with connect() as comfy:
        await comfy.runners.interrupt(id)
    print_result(id)
    return DONE


async def show_history(id: str, *, managed: bool, as_json: bool) -> int:
    """List the last workflows of a runner."""
    async with connect() as comfy:
        found = await (comfy.managed_runners.history(id) if managed else comfy.runners.history(id))
    if as_json:
        print_json(found)
    else:
        print_table([_workflow_row(one) for one in found], empty="it has run nothing yet")
    return DONE


async def list_managed(*, as_json: bool) -> int:
    """List the managed runners that your tier may use."""
    async with connect() as comfy:
        runners = await comfy.managed_runners.list().all()
    if as_json:
        print_json(runners)
    else:
        print_table([_managed_row(one) for one in runners], empty="there are no managed runners for your tier")
    return DONE


async def show_managed(id: str, *, as_json: bool) -> int:
    """Show one managed runner."""
    async with connect() as comfy:
        runner = await comfy.managed_runners.get(id)
    if as_json:
        print_json(runner)
    else:
        print_fields(_managed_row(runner))
    return DONE


async def show_stats(id: str, *, as_json: bool) -> int:
    """Show the machine behind a managed runner."""
    async with connect() as comfy:
        stats = await comfy.managed_runners.stats(id)
    if as_json:
        print_json(stats)
        return DONE
    system = stats.system
    fields = {
        "system": system.os or "",
        "memory": _memory(system.ram_free, system.ram_total),
        "ComfyUI": system.comfyui_version or "",
        "Python": system.python_version or "",
        "extensions": ", ".join(stats.extensions),
    }
    for number, device in enumerate(stats.devices):
        fields[f"device {number}"] = (
            f"{device.name or device.type or 'unknown'}, {_memory(device.vram_free, device.vram_total)}"
        )
    print_fields({label: text for label, text in fields.items() if text})
    return DONE


def hide_headers(runner: Runner) -> Runner:
    """Return a runner whose headers have names only."""
    return attrs.evolve(runner, headers=dict.fromkeys(runner.headers, _HIDDEN))


def _print(runner: Runner, as_json: bool) -> int:
    if as_json:
        print_json(hide_headers(runner))
        return DONE
    row = _row(runner)
    headers = ", ".join(f"{name}: {_HIDDEN}" for name in runner.headers)
    print_fields({**row, **({"headers": headers} if headers else {}), "created": show_time(runner.created_at)})
    return DONE


def _row(runner: Runner) -> dict[str, str]:
    return {
        "id": runner.id,
        "status": str(runner.status),
        "name": runner.name,
        "endpoint": runner.endpoint,
        "tags": ", ".join(runner.tags) or "-",
    }


def _managed_row(runner: ManagedRunner) -> dict[str, str]:
    return {
        "id": runner.id,
        "status": str(runner.status),
        "type": str(runner.runner_type),
        "name": runner.name,
        "tags": ", ".join(runner.tags) or "-",
    }


def _workflow_row(one: WorkflowSummary) -> dict[str, str]:
    return {"id": one.id, "status": str(one.status), "created": show_time(one.created_at), "name": one.name}


def _memory(free: int | None, total: int | None) -> str:
    if free is None or total is None:
        return "memory unknown"
    return f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"

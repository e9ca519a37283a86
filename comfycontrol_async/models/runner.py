"""Runners: the machines that execute workflows, self-hosted and managed."""

from datetime import datetime

import attrs

from comfycontrol_async.models._enums import RunnerStatus, RunnerType
from comfycontrol_async.models._pydantic import PydanticModel


@attrs.frozen(kw_only=True)
class Runner(PydanticModel):
    """A self-hosted runner (API documentation: endpoints/runners).

    `headers` are sent to the ComfyUI behind it and come back in clear, secrets included: never shown in `repr`.
    """

    id: str
    name: str
    status: RunnerStatus
    endpoint: str
    user_id: str
    tags: list[str] = attrs.field(factory=list)
    headers: dict[str, str] = attrs.field(factory=dict, repr=False)
    created_at: datetime
    updated_at: datetime


@attrs.frozen(kw_only=True)
class ManagedRunner(PydanticModel):
    """A runner of the service's own, open to paying tiers (API documentation: endpoints/managed-runners)."""

    id: str
    name: str
    status: RunnerStatus
    runner_type: RunnerType
    tags: list[str] = attrs.field(factory=list)
    created_at: datetime
    updated_at: datetime


@attrs.frozen(kw_only=True)
class SystemStats(PydanticModel):
    """The machine behind a runner; sizes in bytes, None where the service does not say."""

    os: str | None = None
    ram_total: int | None = None
    ram_free: int | None = None
    comfyui_version: str | None = None
    python_version: str | None = None


@attrs.frozen(kw_only=True)
class DeviceStats(PydanticModel):
    """One compute device; sizes in bytes, None where the service does not say."""

    name: str | None = None
    type: str | None = None
    vram_total: int | None = None
    vram_free: int | None = None


@attrs.frozen(kw_only=True)
class RunnerStats(PydanticModel):
    """What a managed runner's ComfyUI says of itself now (API documentation: endpoints/managed-runners/stats)."""

    system: SystemStats
    devices: list[DeviceStats] = attrs.field(factory=list)
    dev_mode: bool = False
    extensions: list[str] = attrs.field(factory=list)

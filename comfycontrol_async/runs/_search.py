"""Search: which of the listed workflows may be one whose answer was lost, and whether it is ours or a stranger's."""

import json
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any, TypeGuard

import attrs

from comfycontrol_async._http._multipart import Form
from comfycontrol_async.graph._file import File
from comfycontrol_async.models import Workflow, WorkflowStatus, WorkflowSummary
from comfycontrol_async.resources._forms import stored_name
from comfycontrol_async.runs._ledger import Made

# How much earlier a workflow with our key may seem to be created: older ones were known before.
_KEY_SLACK = timedelta(seconds=10)


@attrs.define(eq=False, repr=False, kw_only=True)
class Search:
    """What is looked for, and which candidates were compared already.

    `resumed` says that the names are of an earlier start of a batch: this client may have made and hold its workflows.
    """

    names: set[str]
    form: Form | None = None
    unique: bool = False
    resumed: bool = False
    rivals: Collection[str] | None = None
    since: datetime | None = None
    verdicts: dict[str, bool] = attrs.field(factory=dict)
    # What the last look saw that may be it, although it seems older than the send, or does not tell its name: by id.
    doubtful: dict[str, WorkflowSummary] = attrs.field(factory=dict)
    nameless: set[str] = attrs.field(factory=set)

    @property
    def keyed(self) -> bool:
        """Whether the name has the marks of a key."""
        return self.rivals is not None

    def earliest(self, since: datetime) -> datetime:
        """Return the earliest estimate of the time of the send: each look's answer gives another one."""
        self.since = since if self.since is None else min(self.since, since)
        return self.since

    def is_new(self, id: str, created_at: datetime | None, page: int, since: datetime) -> bool:
        """Return True if it was created since the send, as far as clocks and the name can tell."""
        if id in (self.rivals or ()):
            return False
        slack = _KEY_SLACK if self.keyed else timedelta()
        return not is_time(created_at) or (self.unique and page == 1) or created_at >= earlier(since, slack)

    def passes_over(self, held: Made | None) -> bool:
        """Tell whether a workflow is not what is looked for, as this client holds it."""
        return held is not None and (held.rerun or not self.resumed)

    def doubt(self, item: WorkflowSummary, *, dated: bool) -> None:
        """Keep a workflow of our name that seems older than the send, but may be it if clocks differ by more.

        One that has ended is none, unless nothing told the service's time.
        """
        if not self.unique and (not item.status.terminal or not dated):
            self.doubtful[item.id] = item


def age(summary: WorkflowSummary) -> tuple[datetime, str]:
    """Return what the oldest of several workflows is found by."""
    return summary.created_at, summary.id


def earlier(moment: datetime, by: timedelta) -> datetime:
    """Return a moment before another; the beginning of all times where there is none."""
    try:
        return moment - by
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def is_time(moment: datetime | None) -> TypeGuard[datetime]:
    """Tell whether a time is one: the service writes year 1 for none."""
    return moment is not None and moment.year > 1


def time_of(value: object) -> datetime | None:
    """Read a time of an item that as a whole cannot be read; None when it has none."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def read_leniently(raw: object, now: datetime) -> WorkflowSummary | None:
    """Return what can be read of a listed item that as a whole cannot; None if it has no id or no name."""
    if not isinstance(raw, dict) or not isinstance(raw.get("id"), str) or not isinstance(raw.get("name"), str):
        return None
    created_at = time_of(raw.get("created_at")) or now
    status = WorkflowStatus(str(raw.get("status") or WorkflowStatus.ACCEPTED))
    return WorkflowSummary(id=raw["id"], name=raw["name"], status=status, created_at=created_at, updated_at=created_at)


def tags_of(form: Form) -> list[str]:
    """Return the tags in a form, sorted."""
    tags = dict(form.fields).get("tags")
    return sorted(tags.split(",")) if isinstance(tags, str) else []


def same_content(workflow: Workflow, form: Form) -> bool:
    """Compare a stored workflow with what was sent, by what the service is documented to keep as it was."""
    sent = dict(form.fields)
    for pair in workflow.workflow_params:
        stored = stored_name(pair[0]) if len(pair) > 1 else None
        if stored is None:
            continue
        value = sent.get(("#" if stored[0] == "choice" else "$") + stored[1])
        if isinstance(value, str) and _plain(pair[1]) != _plain(value):
            return False
    body = sent.get("workflow_json")
    if not workflow.workflow_json or not isinstance(body, File) or not isinstance(body.source, bytes):
        return True
    return _classes(workflow.workflow_json) == _classes(json.loads(body.source))


def _plain(value: object) -> str:
    """Return a stored value as text; the service may keep the text "20.0" as a number."""
    try:
        number = float(value) if isinstance(value, (str, int, float)) else None
    except ValueError:
        number = None
    return str(value) if number is None else repr(number)


def _classes(nodes: dict[str, Any]) -> dict[str, Any]:
    """Return the nodes' types by id: what stays of a graph whether or not its placeholders were filled in."""
    return {id: node.get("class_type") for id, node in nodes.items() if isinstance(node, dict)}

"""Open enums: the API's words, where a word that is new to us keeps its own text."""

from enum import StrEnum

from comfycontrol_async.models._pydantic import PydanticWord


class OpenEnum(PydanticWord, StrEnum):
    """A text enum that accepts any text: `WorkflowStatus("archived")` equals `"archived"`."""

    @classmethod
    def _missing_(cls, value: object) -> "OpenEnum | None":
        if not isinstance(value, str):
            return None
        member = str.__new__(cls, value)
        member._name_ = value
        member._value_ = value
        return member

    @property
    def known(self) -> bool:
        """Whether the API documentation lists this value."""
        return self.value in type(self)._value2member_map_


class WorkflowStatus(OpenEnum):
    """The life of a workflow (API documentation: concepts/workflows, endpoints/workflows/get)."""

    ACCEPTED = "accepted"
    UPLOADED = "uploaded"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INVALID = "invalid"

    @property
    def terminal(self) -> bool:
        """Whether it is final. An unknown status is not: it may change."""
        return self in _TERMINAL


# `invalid` is final although the event stream does not close at it (contradiction 5 of the API documentation).
_TERMINAL = frozenset(
    {WorkflowStatus.COMPLETED, WorkflowStatus.FAILED, WorkflowStatus.CANCELLED, WorkflowStatus.INVALID}
)


class RunnerStatus(OpenEnum):
    """Whether a runner gets workflows; `disabled` is what the concept pages call inactive."""

    ACTIVE = "active"
    DISABLED = "disabled"


class RunnerType(OpenEnum):
    """The tier that a managed runner belongs to."""

    PLUS = "plus"
    PRO = "pro"


class UserTier(OpenEnum):
    """What the account pays for."""

    FREE = "free"
    PRO = "pro"
    PLUS = "plus"
    ENTERPRISE = "enterprise"


class UserProvider(OpenEnum):
    """Where the account signs in."""

    GITHUB = "github"
    GOOGLE = "google"

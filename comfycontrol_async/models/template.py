"""Templates: stored graphs with placeholders."""

from datetime import datetime
from typing import Any

import attrs

from comfycontrol_async.graph._graph import Graph
from comfycontrol_async.models._pydantic import PydanticModel


@attrs.frozen(kw_only=True)
class TemplateSummary(PydanticModel):
    """A template as the listing gives it, without its graph (API documentation: endpoints/templates/list)."""

    id: str
    user_id: str
    name: str
    description: str
    created_at: datetime
    updated_at: datetime


@attrs.frozen(kw_only=True)
class Template(TemplateSummary):
    """A template in full (API documentation: endpoints/templates/get). `body` is its graph as the API gives it."""

    body: dict[str, Any] = attrs.field(factory=dict, repr=False)

    @property
    def graph(self) -> Graph:
        """The body as a `Graph`, ready for `submit`."""
        return Graph(self.body)

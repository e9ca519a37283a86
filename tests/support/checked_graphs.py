"""Small graphs, and what a check finds in them."""

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comfycontrol_async.graph import Graph

WORKFLOWS = Path(__file__).parents[1] / "data" / "workflows"
TEMPLATES = sorted(WORKFLOWS.glob("*.template.json"))


class Colour(enum.StrEnum):
    """A text that is an enum."""

    RED = "red"


class Number(enum.IntEnum):
    """A number that is an enum."""

    SEVEN = 7


def node(class_type: str = "SaveImage", **inputs: object) -> dict[str, Any]:
    """Make a node with these inputs."""
    return {"class_type": class_type, "inputs": inputs}


def graph_of(*values: object) -> Graph:
    """Make a graph of one output node, whose inputs a, b, c... have these values."""
    return Graph({"1": {"class_type": "SaveImage", "inputs": dict(zip("abcdefgh", values, strict=False))}})


def found(graph: Graph, params: Mapping[str, object] | None = None) -> list[tuple[str, str]]:
    """List the issues without their texts."""
    return [(issue.severity, issue.place) for issue in graph.check(params)]

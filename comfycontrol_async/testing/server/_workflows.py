"""Workflows: their records, and the store that keeps them in order."""

import itertools
import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from comfycontrol_async.testing._png import write_png
from comfycontrol_async.testing.server._graph import Placeholder, find_placeholders, output_nodes, substitute
from comfycontrol_async.testing.server._life import Failure, Life
from comfycontrol_async.testing.server._time import ServerTime

_LARGEST = 256
_USUAL = 64
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@attrs.frozen
class StoredFile:
    """An uploaded file, under the name it was given on the runner."""

    filename: str
    stored_as: str
    content_type: str
    data: bytes = attrs.field(repr=False)


@attrs.frozen
class OutputFile:
    """An image that a completed workflow wrote."""

    id: str
    node_id: str
    name: str


@attrs.define(eq=False, kw_only=True)
class WorkflowRecord:
    """One workflow as the server knows it.

    `params` are the (name, value) pairs the API shows, `values` the submitted form fields, `files` the submitted
    files by placeholder name, `index` the order of creation, and `created` is in server seconds.
    """

    id: str
    index: int
    name: str
    tags: list[str]
    graph: dict[str, Any]
    values: Mapping[str, str]
    files: Mapping[str, StoredFile]
    params: Sequence[tuple[str, str]]
    created: float
    runner_id: str | None
    managed_runner_id: str | None
    prompt_id: str
    life: Life
    time: ServerTime = attrs.field(repr=False)
    seed: int = attrs.field(repr=False)
    failure: Failure | None = None
    _prompt: dict[str, Any] | None = attrs.field(default=None, init=False, repr=False)
    _outputs: list[OutputFile] | None = attrs.field(default=None, init=False, repr=False)
    _images: dict[str, bytes] = attrs.field(factory=dict, init=False, repr=False)

    @property
    def status(self) -> str:
        """The status now."""
        return self.life.status(self.time.now())

    @property
    def prompt(self) -> dict[str, Any]:
        """The graph as it runs, with every placeholder filled in."""
        if self._prompt is None:
            self._prompt = self._fill_in()
        return self._prompt

    @property
    def outputs(self) -> list[OutputFile]:
        """The files it leaves when it completes: one for each output node."""
        if self._outputs is None:
            rng = random.Random(self.seed + 1)
            nodes = output_nodes(self.prompt)
            self._outputs = [
                OutputFile(f"output-{make_id(rng)}", node_id, f"{_prefix(node)}_{number:05}_.png")
                for number, (node_id, node) in enumerate(nodes, 1)
            ]
        return self._outputs

    def image(self, name: str) -> bytes | None:
        """Return the content of the output called `name`."""
        if name not in self._images and any(output.name == name for output in self.outputs):
            width, height, color = _look(self.prompt, self.seed)
            # ComfyUI writes the graph as ASCII JSON into a tEXt chunk.
            self._images[name] = write_png(width, height, color, {"prompt": json.dumps(self.prompt)})
        return self._images.get(name)

    def _fill_in(self) -> dict[str, Any]:
        rng = random.Random(self.seed)
        started = self.life.started_at(float("inf")) or self.created
        milliseconds = int(self.time.unix(started) * 1000)

        def value_of(placeholder: Placeholder) -> Any:
            if placeholder.kind == "random":
                return rng.getrandbits(64)
            if placeholder.kind == "timestamp":
                return milliseconds
            if placeholder.kind == "file":
                return self.files[placeholder.name].stored_as
            return self.values[placeholder.field]

        filled: dict[str, Any] = substitute(self.graph, value_of)
        return filled


class WorkflowStore:
    """All workflows, oldest first."""

    def __init__(self, time: ServerTime, list_lag: float) -> None:
        self._time = time
        self._lag = list_lag
        self._created = 0
        self.by_id: dict[str, WorkflowRecord] = {}

    def next_index(self) -> int:
        """Return the creation index of the next workflow."""
        self._created += 1
        return self._created - 1

    def add(self, record: WorkflowRecord) -> None:
        """Keep a new workflow."""
        self.by_id[record.id] = record

    def newest_first(self) -> Iterator[WorkflowRecord]:
        """Yield what lists show now: without what is too new to be listed."""
        shown_until = self._time.now() - self._lag
        return itertools.dropwhile(lambda record: record.created > shown_until, reversed(self.by_id.values()))

    def page(self, status: str | None, number: int, size: int) -> tuple[list[WorkflowRecord], int]:
        """Return one page of the list, and how many there are on all pages."""
        shown: Iterable[WorkflowRecord] = self.newest_first()
        if status is not None:
            shown = (record for record in shown if record.status == status)
        everything = list(shown)
        first = (number - 1) * size
        return everything[first : first + size], len(everything)

    def of_runner(self, runner_id: str, most: int) -> list[WorkflowRecord]:
        """Return the newest workflows of one runner."""
        mine = (it for it in self.newest_first() if runner_id in (it.runner_id, it.managed_runner_id))
        return list(itertools.islice(mine, most))


def make_id(rng: random.Random) -> str:
    """Return a random UUID text, version 4."""
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def pair_up(graph: Any, values: Mapping[str, str], files: Mapping[str, StoredFile]) -> list[tuple[str, str]]:
    """Return the (name, value) pairs that the API shows of a workflow."""
    return [
        (item.token, files[item.name].stored_as if item.kind == "file" else values[item.field])
        for item in find_placeholders(graph)
    ]


def failure_of(
    graph: dict[str, Any],
    exception_type: str = "RuntimeError",
    message: str = "the test server was told to let this workflow fail",
) -> Failure:
    """Return a failure of the first output node, or of the first node."""
    nodes: list[tuple[str, Any]] = [*output_nodes(graph), *graph.items(), ("", None)]
    node_id, node = nodes[0]
    node_type = node.get("class_type") if isinstance(node, dict) else None
    return Failure(node_id or None, node_type, exception_type, message)


def safe_name(text: str) -> str:
    """Return `text` fit for a file name."""
    return _UNSAFE.sub("_", text).strip(".") or "file"


def _prefix(node: dict[str, Any]) -> str:
    prefix = _inputs(node).get("filename_prefix", "ComfyUI")
    return safe_name(str(prefix).rsplit("/", 1)[-1])


def _look(prompt: dict[str, Any], seed: int) -> tuple[int, int, tuple[int, int, int]]:
    for node in prompt.values():
        inputs = _inputs(node)
        if inputs and node.get("class_type") in ("EmptyImage", "EmptyLatentImage"):
            color = _number(inputs.get("color"), seed & 0xFFFFFF) & 0xFFFFFF
            return _side(inputs.get("width")), _side(inputs.get("height")), _rgb(color)
    return _USUAL, _USUAL, _rgb(seed & 0xFFFFFF)


def _inputs(node: Any) -> dict[str, Any]:
    inputs = node.get("inputs") if isinstance(node, dict) else None
    return inputs if isinstance(inputs, dict) else {}


def _rgb(color: int) -> tuple[int, int, int]:
    return color >> 16, color >> 8 & 0xFF, color & 0xFF


def _side(value: Any) -> int:
    return min(_LARGEST, max(1, _number(value, _USUAL)))


def _number(value: Any, default: int) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return default

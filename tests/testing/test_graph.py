"""Placeholders and the checks of a graph."""

from typing import Any

import pytest

from comfycontrol_async.testing.server._graph import (
    Placeholder,
    bad_file_names,
    find_placeholders,
    graph_fault,
    output_nodes,
    parse_placeholder,
    substitute,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$text(prompt)", Placeholder("text", "prompt")),
        ("$text( steps , 20)", Placeholder("text", "steps")),
        ("$text(p, a, b)", Placeholder("text", "p")),
        ("$text(p, line\nline)", Placeholder("text", "p")),
        ("$choice(s, euler, ddim)", Placeholder("choice", "s", ("euler", "ddim"))),
        ("$file(image)", Placeholder("file", "image")),
        ("$random()", Placeholder("random")),
        ("$timestamp()", Placeholder("timestamp")),
        ("$random(1)", None),
        ("$text()", None),
        ("prefix_$random()", None),
        ("$text(a) $text(b", None),
        ("$other(x)", None),
        ("plain", None),
        ("", None),
    ],
)
def test_parsing(text: str, expected: Placeholder | None) -> None:
    """Only a whole value is a placeholder."""
    assert parse_placeholder(text) == expected


def test_fields_and_tokens() -> None:
    """Form field and stored name differ for choices, as the API has it."""
    named = [Placeholder("text", "a"), Placeholder("choice", "b", ("x", "y")), Placeholder("file", "c")]
    assert [it.field for it in named] == ["$a", "#b", "$c"]
    assert [it.token for it in named] == ["$text(a)", "#choice(b)", "$file(c)"]


def test_finding_and_filling_in() -> None:
    """Placeholders are found once each, anywhere in the graph, and a copy is filled in."""
    graph = {"1": {"inputs": {"a": "$text(x)", "b": ["$text(x)", {"c": "$choice(y, 1, 2)"}], "d": "$random()", "e": 5}}}
    assert [it.name for it in find_placeholders(graph)] == ["x", "y"]
    filled = substitute(graph, lambda item: f"<{item.kind}>")
    assert filled == {"1": {"inputs": {"a": "<text>", "b": ["<text>", {"c": "<choice>"}], "d": "<random>", "e": 5}}}
    assert graph["1"]["inputs"]["a"] == "$text(x)"


@pytest.mark.parametrize(
    ("graph", "fault"),
    [
        pytest.param({"1": {"class_type": "A", "inputs": {}}}, None, id="good"),
        pytest.param({}, "no nodes", id="empty"),
        pytest.param({"nodes": [], "links": []}, "not in API format", id="ui-format"),
        pytest.param({"1": {"inputs": {}}}, "not in API format", id="no-class"),
        pytest.param({"1": {"class_type": "A"}}, "no inputs", id="no-inputs"),
        pytest.param({"1": {"class_type": "A", "inputs": {"x": "$choice(a, b)"}}}, "2 to 4 options", id="one-option"),
    ],
)
def test_faults(graph: dict[str, Any], fault: str | None) -> None:
    """A graph that cannot run is told by its reason."""
    found = graph_fault(graph)
    assert found == fault if fault is None else fault in str(found)


def test_file_names() -> None:
    """File names hold letters, digits, hyphens and underscores only."""
    graph = {"1": {"inputs": {"a": "$file(good-name_1)", "b": "$file(bad.png)", "c": f"$file({'x' * 256})"}}}
    assert bad_file_names(graph) == ["bad.png", "x" * 256]


def test_output_nodes() -> None:
    """Nodes that save or preview make outputs."""
    kinds = ["SaveImage", "PreviewImage", "SaveAnimatedWEBP", "LoadImage", "PreviewAny"]
    graph: dict[str, Any] = {kind: {"class_type": kind, "inputs": {}} for kind in kinds} | {"nodes": []}
    assert [node_id for node_id, _ in output_nodes(graph)] == kinds[:3]

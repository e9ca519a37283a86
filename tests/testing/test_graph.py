"""Placeholders and the checks of a graph."""

from typing import Any

import pytest

from comfycontrol_async.testing import Failure
from comfycontrol_async.testing.server._graph import (
    Placeholder,
    bad_file_names,
    find_placeholders,
    graph_fault,
    parse_placeholder,
    prompt_fault,
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


def test_titles_are_left_alone() -> None:
    """A placeholder counts in inputs only, as for the client: not in a title."""
    graph = {"1": {"class_type": "A", "inputs": {"x": "$text(a)"}, "_meta": {"title": "$text(b)"}}}
    assert [it.name for it in find_placeholders(graph)] == ["a"]
    assert substitute(graph, lambda _: "filled")["1"] == {
        "class_type": "A",
        "inputs": {"x": "filled"},
        "_meta": {"title": "$text(b)"},
    }


SAVE = {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}
IMAGE = {"class_type": "EmptyImage", "inputs": {"width": 8}}


def node(**inputs: Any) -> dict[str, Any]:
    """Return a node of a class that nothing is known of."""
    return {"class_type": "Custom", "inputs": inputs}


@pytest.mark.parametrize(
    ("graph", "fault"),
    [
        pytest.param({"1": node()}, None, id="good"),
        pytest.param({"nodes": [], "links": []}, ("invalid_prompt", "not in API format"), id="ui-format"),
        pytest.param({"1": {"inputs": {}}}, ("invalid_prompt", "not in API format"), id="no-class"),
        pytest.param({"1": {"class_type": "A"}}, ("exception_during_inner_validation", "no inputs"), id="no-inputs"),
        pytest.param({"1": node(x="$choice(a, b)")}, ("invalid_prompt", "2 to 4 options"), id="one-option"),
    ],
)
def test_faults(graph: dict[str, Any], fault: tuple[str, str] | None) -> None:
    """A graph that cannot run whatever its values is refused with the reason."""
    check(graph_fault(graph), fault)


@pytest.mark.parametrize(
    ("prompt", "fault"),
    [
        pytest.param({"1": IMAGE, "2": SAVE}, None, id="good"),
        pytest.param({"1": IMAGE, "2": node(x=["1", 0], y=["1", 1], z=1)}, None, id="custom-output"),
        pytest.param({}, ("prompt_no_outputs", "no outputs"), id="empty"),
        pytest.param({"1": IMAGE}, ("prompt_no_outputs", "no outputs"), id="no-output"),
        pytest.param({"2": SAVE}, ("exception_during_inner_validation", "images: there is no node '1'"), id="absent"),
        pytest.param({"1": node(x=["1", 0])}, ("dependency_cycle", "1 -> 1"), id="self"),
        pytest.param(
            {"1": node(x=["2", 0]), "2": node(x=["1", 0])}, ("dependency_cycle", "feed each other"), id="loop"
        ),
        pytest.param({"1": node(x=[1, 2, 3])}, ("bad_linked_input", "x: a list must be a link"), id="list-of-three"),
        pytest.param({"1": node(x=[])}, ("bad_linked_input", "x: a list"), id="empty-list"),
        pytest.param({"1": node(x=[1, 0])}, ("exception_during_inner_validation", "x: a list"), id="number-as-id"),
        pytest.param({"1": node(x=["1", 0.5])}, ("exception_during_inner_validation", "x: a list"), id="float-slot"),
        pytest.param({"1": node(x=["1", True])}, ("exception_during_inner_validation", "x: a list"), id="bool-slot"),
    ],
)
def test_prompt_faults(prompt: dict[str, Any], fault: tuple[str, str] | None) -> None:
    """What ComfyUI refuses in a filled graph is refused with its error type, where no definitions are needed."""
    check(prompt_fault(prompt), fault)


def check(found: Failure | None, expected: tuple[str, str] | None) -> None:
    """Compare the type, and a part of the message."""
    if expected is None or found is None:
        assert found is None
        assert expected is None
        return
    assert found.exception_type == expected[0]
    assert expected[1] in str(found.exception_message)


def test_file_names() -> None:
    """File names hold letters, digits, hyphens and underscores only."""
    graph = {"1": {"inputs": {"a": "$file(good-name_1)", "b": "$file(bad.png)", "c": f"$file({'x' * 256})"}}}
    assert bad_file_names(graph) == ["bad.png", "x" * 256]

"""Placeholders and the checks of a graph."""

import json
from pathlib import Path
from typing import Any

import pytest

from comfycontrol_async import NodeDefinitions
from comfycontrol_async.testing import Failure
from comfycontrol_async.testing.server._graph import (
    Placeholder,
    Verdict,
    bad_file_names,
    find_placeholders,
    graph_fault,
    judge,
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


INNER, OUTER = "exception_during_inner_validation", "exception_during_validation"


@pytest.mark.parametrize(
    ("prompt", "fault"),
    [
        pytest.param({"1": IMAGE, "2": SAVE}, None, id="good"),
        pytest.param({"1": IMAGE, "2": node(x=["1", 0], y=["1", 1], z=1)}, None, id="custom-output"),
        pytest.param({}, ("prompt_no_outputs", "no outputs"), id="empty"),
        pytest.param({"1": IMAGE}, ("prompt_no_outputs", "no outputs"), id="no-output"),
        pytest.param({"2": SAVE}, (OUTER, "'1'"), id="absent"),
        pytest.param({"1": node(x=["9", 0]), "2": SAVE}, (INNER, "'9'"), id="absent-further-in"),
        pytest.param({"1": IMAGE, "2": SAVE, "3": node(x=["9", 0])}, (INNER, "no node '9'"), id="absent-aside"),
        pytest.param({"1": node(x=["1", 0]), "2": SAVE}, (INNER, "1 <- 1"), id="self"),
        pytest.param({"1": node(x=["3", 0]), "3": node(x=["1", 0]), "2": SAVE}, (INNER, "recursion"), id="loop"),
        pytest.param({"1": node(x=[1, 2, 3]), "2": SAVE}, ("bad_linked_input", ""), id="list-of-three"),
        pytest.param({"1": IMAGE, "2": SAVE, "3": node(x=[])}, ("bad_linked_input", "x: a list"), id="empty-aside"),
        pytest.param({"1": IMAGE, "2": SAVE, "3": node(x=["1", 0.5])}, (INNER, "x: a list"), id="float-slot-aside"),
        pytest.param({"1": IMAGE, "2": SAVE, "3": node(x=["1", True])}, (INNER, "x: a list"), id="bool-slot-aside"),
    ],
)
def test_refusals_without_definitions(prompt: dict[str, Any], fault: tuple[str, str] | None) -> None:
    """What any ComfyUI refuses, or dies of, is refused with its error type."""
    check(judge(prompt, None, ()).refusal, fault)


DATA = Path(__file__).parents[1] / "data"
DEFINITIONS = NodeDefinitions.load(DATA / "comfyui" / "object_info.json")
FULL = {"width": 8, "height": 8, "batch_size": 1, "color": 0}
FULL_SAVE = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}}
NO_SUCH = {"class_type": "NoSuch", "inputs": {}}


@pytest.mark.parametrize(
    ("prompt", "fault"),
    [
        pytest.param(
            {"1": {"class_type": "EmptyImage", "inputs": {**FULL, "width": 0}}, "2": FULL_SAVE},
            ("value_smaller_than_min", "width"),
            id="range",
        ),
        pytest.param({"1": IMAGE, "2": NO_SUCH}, ("invalid_prompt", "NoSuch"), id="class"),
        pytest.param({"1": node(x=1)}, ("invalid_prompt", "Custom"), id="custom-class"),
    ],
)
def test_refusals_with_definitions(prompt: dict[str, Any], fault: tuple[str, str]) -> None:
    """With definitions everything is refused that the ComfyUI that they come from refuses."""
    check(judge(prompt, DEFINITIONS, ()).refusal, fault)


@pytest.mark.parametrize("path", sorted((DATA / "workflows").glob("[ms]*[a-z0-9].json")), ids=lambda path: path.stem)
def test_graphs_that_ran_are_not_refused(path: Path) -> None:
    """No graph that ran is refused, with definitions or without."""
    graph = json.loads(path.read_text())
    if ".template" not in path.stem:
        assert judge(graph, None, ()) == judge(graph, DEFINITIONS, ()) == Verdict()


def test_outputs_without_faults_run() -> None:
    """Of two outputs the one without a fault runs, and the other is left out."""
    broken = {"class_type": "SaveImage", "inputs": {"filename_prefix": "b"}}
    prompt = {"1": {"class_type": "EmptyImage", "inputs": FULL}, "2": FULL_SAVE, "3": broken}
    assert judge(prompt, DEFINITIONS, ()) == Verdict(None, frozenset({"3"}))


def test_uploaded_files_are_there() -> None:
    """A file that was uploaded with the workflow is no absent file; another one is."""
    load = {"class_type": "LoadImage", "inputs": {"image": "mine.png"}}
    prompt = {"1": load, "2": FULL_SAVE}
    assert judge(prompt, DEFINITIONS, ["mine.png"]) == Verdict()
    check(judge(prompt, DEFINITIONS, ()).refusal, ("custom_validation_failed", "mine.png"))


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

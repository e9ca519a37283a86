"""What the checks of a graph find: other formats, lists, loops, placeholders out of place; and how they scale."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from comfycontrol_async.errors import GraphError
from comfycontrol_async.graph import Graph
from support.numpy_like import numpy_like

CORE: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
}
UI: dict[str, Any] = {"nodes": [{"id": 1}], "links": [], "version": 0.4}


def save(**inputs: object) -> dict[str, Any]:
    """Make an output node."""
    return {"class_type": "SaveImage", "inputs": inputs}


def one(value: object) -> Graph:
    """Make a graph of one node whose input `a` has this value."""
    return Graph({"1": save(a=value)})


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        ({"prompt": CORE, "client_id": "x"}, 'use what is under its "prompt"'),
        ({"input": {"workflow": CORE, "images": []}}, 'use what is under its "input.workflow"'),
        ({"id": "x", "input": {"prompt": CORE}}, 'use what is under its "input.prompt"'),
        ({"data": {"input": {"workflow": {"prompt": CORE}}}}, 'use what is under its "data.input.workflow.prompt"'),
        ({"workflow": CORE}, 'use what is under its "workflow"'),
        ({"workflow": UI, "output": CORE}, 'use what is under its "output"'),
        ({"workflow_json": CORE, "id": "x"}, 'use what is under its "workflow_json"'),
        ({"prompt": [3, "id", CORE, {}, ["2"]], "outputs": {}, "status": {}}, 'use what is under its "prompt[2]"'),
        ({"a1b2": {"prompt": [3, "id", CORE, {}, ["2"]], "outputs": {}}}, 'use what is under its "a1b2.prompt[2]"'),
        (UI, "UI format, which cannot be run"),
        ({"workflow": UI}, 'UI format inside, under "workflow"'),
        ({"extra_pnginfo": {"workflow": UI}}, 'UI format inside, under "extra_pnginfo.workflow"'),
        ({"KSampler": {"input": {"required": {}}, "output": []}}, "/object_info answers"),
        ({"a": 1, "b": {"c": 2}}, "this is no graph: it has 2 entries, but none is a node"),
        ({"error": "not found"}, "this is no graph: it has one entry"),
        (dict.fromkeys(map(str, range(1000)), 1), "this is no graph: it has 1,000 entries"),
        ({f"key{i}": {"inputs": {}} for i in range(1000)}, "this is no graph: it has 1,000 entries"),
        ({f"key{i}": {"a": {"b": i}} for i in range(1000)}, "this is no graph: it has 1,000 entries"),
    ],
    ids=[
        *(
            "request",
            "runpod",
            "input-prompt",
            "deep",
            "workflow",
            "graph-to-prompt",
            "stored",
            "history-entry",
            "history",
        ),
        *(
            "ui",
            "ui-wrapped",
            "ui-in-png-info",
            "object-info",
            "no-graph",
            "an-error",
            "150000-keys",
            "150000-inputs",
            "150000-objects",
        ),
    ],
)
def test_what_is_no_graph_is_one_sentence(nodes: Any, text: str) -> None:
    """It says what this is and what to do, once, with parameters or without."""
    graph = Graph(nodes)
    (issue,) = graph.check({"prompt": "x"})
    assert (issue.severity, issue.place) == ("error", "")
    assert text in issue.message
    assert len(str(issue)) < 300
    with pytest.raises(GraphError):
        graph.bind()


def test_nodes_named_like_a_wrapper_are_nodes() -> None:
    """A node may have the id "prompt", "workflow" or "output"."""
    assert Graph({"prompt": CORE["1"], "output": save(images=["prompt", 0])}).check() == []


@pytest.mark.parametrize("value", [["1", 0], [1, 0]], ids=["text", "number"])
def test_node_ids_of_links_become_texts(value: object) -> None:
    """ComfyUI knows nodes by texts only, so an id that is a number is written as one, as with the nodes' own ids."""
    graph = Graph({1: CORE["1"], 2: save(images=value)})  # type: ignore[dict-item]  # what callers do
    assert graph.nodes["2"]["inputs"]["images"] == ["1", 0]
    assert graph.check() == []
    assert graph == Graph(json.loads(graph.to_json()))


def test_lists_of_numbers_that_are_no_link_stay() -> None:
    """A list whose first number is no node is left as it is, and found."""
    graph = Graph({"1": save(a=[7, 0])})
    assert graph.nodes["1"]["inputs"]["a"] == [7, 0]
    assert "takes every list for a link" in graph.check()[0].message


@pytest.mark.parametrize(
    ("node", "place"),
    [
        ({**save(), "_meta": {"title": "$text(title)"}}, "1._meta.title"),
        ({**save(), "_meta": {"title": "Save $text(title)"}}, "1._meta.title"),
        ({**save(), "class_type": "$choice(class, SaveImage, PreviewImage)"}, "1.class_type"),
        ({**save(), "mode": ["$random()"]}, "1.mode[0]"),
        (save(**{"$text(name)": 1}), "1.$text(name)"),
    ],
    ids=["title", "within-title", "class", "other-key", "input-name"],
)
def test_placeholders_outside_of_inputs_warn(node: Any, place: str) -> None:
    """They are no parameters, and the check says where they stand."""
    graph = Graph({"1": node, "2": save()})
    assert graph.parameters == ()
    (issue,) = graph.check()
    assert (issue.severity, issue.place) == ("warning", place)
    assert "filled in only where it is the value of an input" in issue.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("$prompt", "to ask for a value write $text(prompt)"),
        ("${prompt}", "to ask for a value write $text(prompt)"),
        ("#choice(a, x, y)", "the sign is $: write $choice(...)"),
        ("$prompt, masterpiece", "to ask for a value write $text(prompt)"),
        ("$text", "parentheses missing"),
        ("$random", "parentheses missing"),
        ("$text[a]", "parentheses missing"),
        ("$text(a, false)", 'to say false, send ""'),
        ("$text(a, False)", 'to say false, send ""'),
        ("$text(a, 0)", 'to say false, send ""'),
        ("$choice(a, true, false)", 'to say false, send ""'),
        ("$choice(a, 0, 1)", 'to say false, send ""'),
        ('$text(a, "a cat")', "has quotes around it"),
        ("$text(a, 'a cat')", "has quotes around it"),
        ("$text(a, “a cat”)", "has quotes around it"),
        ('$choice(a, "x", "y")', "has quotes around it"),
        ("$choice(a, x, 'y')", "has quotes around it"),
        ('$choice(a, "x, y", z)', "commas part the options"),
    ],
)
def test_what_is_hardly_meant_warns(text: str, message: str) -> None:
    """A value that can be sent, but is surely a slip, is one warning."""
    (issue,) = one(text).check()
    assert issue.severity == "warning"
    assert message in issue.message


@pytest.mark.parametrize(
    "text",
    [
        '$text(a, "a" and "b")',
        "$text(a, 10)",
        "$text(a,)",
        "$text(a, it's)",
        "$choice(a, x, y's)",
        "$5 bill",
        "$",
        "a $b",
    ],
)
def test_what_may_be_meant_does_not_warn(text: str) -> None:
    """An ordinary text, default or option raises no alarm."""
    assert one(text).check() == []


@pytest.mark.parametrize("value", [False, numpy_like("bool_", int, "0")], ids=["bool", "numpy"])
def test_false_for_a_text_warns(value: object) -> None:
    """It is sent as "false", which ComfyUI takes for true; a text "false" was chosen by the user."""
    graph = one("$text(flag)")
    (issue,) = graph.bind({"flag": value}).warnings
    assert issue.severity == "warning"
    assert 'send ""' in issue.message
    assert graph.bind({"flag": "false"}).warnings == graph.bind({"flag": True}).warnings == ()


@pytest.mark.parametrize(
    ("options", "value", "sent"),
    [
        ("512, 768", 768, "768"),
        ("512, 768", 768.0, "768"),
        ("7.0, 8.5", 7, "7.0"),
        ("7, 8.5", 8.5, "8.5"),
        ("True, False", True, "True"),
        ("true, maybe", True, "true"),
        ("1e3, x", 1000, "1e3"),
    ],
)
def test_numbers_that_are_an_option(options: str, value: object, sent: str) -> None:
    """A number is accepted for a choice that has it, and sent as the option is written."""
    assert one(f"$choice(x, {options})").bind({"x": value}).fields == (("#x", sent),)


@pytest.mark.parametrize("value", [1024, 512.5, True, None, 10**400], ids=["int", "float", "bool", "none", "long"])
def test_numbers_that_are_no_option(value: object) -> None:
    """Any other number is refused with the options."""
    with pytest.raises(GraphError, match="takes '512' or '1_0' or 'nan', but was given"):
        one("$choice(x, 512, 1_0, nan)").bind({"x": value})


def test_keys_that_no_one_reads_may_hold_nan() -> None:
    """What older ComfyUIs leave in a graph is sent as null, but an input must be right."""
    nodes = {"1": {**save(), "is_changed": [float("nan")], "other": {"x": float("inf")}}}
    assert json.loads(Graph(nodes).bind().body) == {"1": {**save(), "is_changed": [None], "other": {"x": None}}}
    with pytest.raises(GraphError, match=r"1\.a: this number cannot stand in JSON"):
        one(float("nan"))


# Size: each goal is half a second; the bounds are CPU time on any machine, under load too.


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: {str(i): save(a=[f"absent{i}", 0]) for i in range(5000)}, id="absent"),
        pytest.param(lambda: {str(i): save(a=f"$foo{i}(x)") for i in range(5000)}, id="functions"),
        pytest.param(lambda: {str(i): save(a=f"$word{i}") for i in range(5000)}, id="words", marks=pytest.mark.slow),
        pytest.param(lambda: {str(i): save(a=f"$text(x, {i})") for i in range(5000)}, id="defaults"),
        pytest.param(
            lambda: {str(i): save(a=f"$text(x{i}") for i in range(5000)}, id="unclosed", marks=pytest.mark.slow
        ),
        pytest.param(
            lambda: {str(i): save(a=f"$file(x{i}.png)") for i in range(5000)}, id="file-names", marks=pytest.mark.slow
        ),
        pytest.param(
            lambda: {str(i): save(a=[i % 7, 0.5]) for i in range(10, 5010)}, id="lists", marks=pytest.mark.slow
        ),
        pytest.param(lambda: {"0": save(), **{str(i): i for i in range(1, 5001)}}, id="no-nodes"),
        pytest.param(lambda: {str(i): save(a=[str((i + 1) % 5000), 0], b=["0", 0]) for i in range(5000)}, id="loops"),
    ],
)
def test_five_thousand_faults(make: Callable[[], dict[str, Any]]) -> None:
    """Every fault is listed, hints are made for the first few only: they take a millisecond each."""
    nodes = make()
    began = time.process_time()
    issues = Graph(nodes).check()
    assert time.process_time() - began < 5
    assert len(issues) >= 4999
    assert sum("did you mean" in issue.message for issue in issues) <= 10
    assert max(len(str(issue)) for issue in issues) < 500


def test_a_large_object_that_is_no_graph() -> None:
    """20,000 keys are one sentence, and quickly."""
    nodes = {f"key{i}": {"a": {"b": i}} for i in range(20_000)}
    began = time.process_time()
    (issue,) = Graph(nodes).check()
    assert time.process_time() - began < 5
    assert "this is no graph: it has 20,000 entries" in str(issue)


def test_five_thousand_parameters_and_names() -> None:
    """Parameters are looked up, not searched, and so are the names in `params`."""
    graph = Graph({str(i): save(a=f"$text(x{i})", b=f"$choice(x{i}, a, b)") for i in range(5000)})
    params = {f"y{i}": i for i in range(5000)}
    began = time.process_time()
    assert len(graph.check(params)) == 15_000
    assert time.process_time() - began < 5


def test_a_long_loop_is_one_short_line() -> None:
    """A loop of 5,000 nodes shows its ends."""
    graph = Graph({"0": save(), **{str(i): save(a=[str(i % 5_000 + 1), 0]) for i in range(1, 5_001)}})
    (issue,) = graph.check()
    assert "1 <- 2 <- 3 <- … <- 5000 <- 1 (5,000 nodes)" in issue.message
    assert len(str(issue)) < 120

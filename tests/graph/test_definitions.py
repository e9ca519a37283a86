"""What a check with node definitions finds: what a real ComfyUI refuses, by its own error types, and nothing else.

`refused/` holds graphs that one refused, `RECORDED` what it answered. `CHANGES` are graphs that ran, each with one
thing changed; what the server says of each follows from its rules: a cast as Python does it, the range, the options,
the type of a link, and an exception where it trips over what it looks at.
"""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfycontrol_async.errors import GraphError, InvalidArgumentError
from comfycontrol_async.graph import Graph, NodeDefinitions
from comfycontrol_async.graph._validate import assume_definitions, needed_by, validate

DATA = Path(__file__).parents[1] / "data"
INFO: dict[str, Any] = json.loads((DATA / "comfyui" / "object_info.json").read_text())
BATCH = {"input": {"required": {"image1": ["IMAGE"], "image2": ["IMAGE"]}}, "output": ["IMAGE"], "output_node": False}
DEFINITIONS = NodeDefinitions({**INFO, "ImageBatch": BATCH})
WORKFLOWS = DATA / "workflows"
RAN = sorted(path for path in WORKFLOWS.glob("[ms]*.json"))

Found = tuple[str, str, str]  # severity, place, ComfyUI's error type


def found(graph: Graph, params: Any = None, definitions: NodeDefinitions = DEFINITIONS) -> list[Found]:
    """List the issues by severity, place and the error type at the end of the text."""
    issues = graph.check(params, node_definitions=definitions)
    return [(issue.severity, issue.place, issue.message.rpartition("(")[2].rstrip(")")) for issue in issues]


RECORDED: dict[str, list[Found]] = {
    "no_outputs": [("error", "", "prompt_no_outputs")],
    "out_of_range": [
        ("error", "1.height", "value_bigger_than_max"),
        ("error", "1.width", "value_smaller_than_min"),
    ],
    "partly_valid": [("error", "5.image", "required_input_missing")],
    "required_input_missing": [
        ("error", "2.crop", "required_input_missing"),
        ("error", "2.width", "required_input_missing"),
    ],
    "unknown_node": [("error", "3", "invalid_prompt")],
}


@pytest.mark.parametrize("name", RECORDED)
def test_refused_graphs(name: str) -> None:
    """The same types at the same nodes and inputs as the server answered."""
    assert sorted(found(Graph.load(DATA / "comfyui" / "refused" / f"{name}.json"))) == RECORDED[name]


@pytest.mark.parametrize("path", RAN, ids=lambda path: path.stem)
def test_graphs_that_ran_have_no_issue(path: Path) -> None:
    """No false alarm, for the graph and for the template made of it, with and without values."""
    graph = Graph.load(path)
    params = {name: value for name, value in (("prompt", "a cat"), ("image", b"png")) if name in repr(graph)}
    assert found(graph) == []
    assert found(graph, params) == []


# graph, node, input (or "class", "inputs", "remove"), new value, what is found; "" for nothing
SD, MF1, MF2, MF3, MF5 = "sd01_txt2img", "mf01_empty_save", "mf02_scale_invert", "mf03_load_blend", "mf05_noise_seed"
ABSENT = object()
INT, LOW, HIGH, OPTION = "invalid_input_type", "value_smaller_than_min", "value_bigger_than_max", "value_not_in_list"
MISSING, TYPE, TRIPPED = "required_input_missing", "return_type_mismatch", "exception_during_inner_validation"
CHANGES: list[tuple[str, str, str, Any, str]] = [
    (SD, "5", "steps", "20", ""),
    (SD, "5", "steps", " 20 ", ""),
    (SD, "5", "steps", 20.9, ""),
    (SD, "5", "steps", True, ""),
    (SD, "5", "steps", "20.0", INT),
    (SD, "5", "steps", "1e2", INT),
    (SD, "5", "steps", "", INT),
    (SD, "5", "steps", None, INT),
    (SD, "5", "steps", "many", INT),
    (SD, "5", "steps", {"a": 1}, INT),
    (SD, "5", "steps", {"__value__": 20}, ""),
    (SD, "5", "steps", 0, LOW),
    (SD, "5", "steps", False, LOW),
    (SD, "5", "steps", 0.9, LOW),
    (SD, "5", "steps", 10_001, HIGH),
    (SD, "5", "steps", ABSENT, MISSING),
    (SD, "5", "seed", 2**64 - 1, ""),
    (SD, "5", "seed", 2**64, HIGH),
    (SD, "5", "seed", str(2**64), HIGH),
    (SD, "5", "seed", -1, LOW),
    (SD, "5", "cfg", "7.5", ""),
    (SD, "5", "cfg", "nan", ""),
    (SD, "5", "cfg", "1e1", ""),
    (SD, "5", "cfg", 7, ""),
    (SD, "5", "cfg", "7,5", INT),
    (SD, "5", "cfg", None, INT),
    (SD, "5", "cfg", 100.1, HIGH),
    (SD, "5", "cfg", "inf", HIGH),
    (SD, "5", "cfg", "-0.1", LOW),
    (SD, "5", "denoise", 1.5, HIGH),
    (SD, "5", "sampler_name", "dpmpp_2m", ""),
    (SD, "5", "sampler_name", "eular", OPTION),
    (SD, "5", "sampler_name", "Euler", OPTION),
    (SD, "5", "sampler_name", "", OPTION),
    (SD, "5", "sampler_name", None, OPTION),
    (SD, "5", "sampler_name", 0, OPTION),
    (SD, "5", "sampler_name", {"a": 1}, OPTION),
    (SD, "5", "sampler_name", ABSENT, MISSING),
    (SD, "5", "model", ["1", 1], TYPE),
    (SD, "5", "model", ["4", 0], TYPE),
    (SD, "5", "model", ["1", 3], TRIPPED),
    (SD, "5", "model", ["1", 0, 0], "bad_linked_input"),
    (SD, "5", "model", ["1"], "bad_linked_input"),
    (SD, "5", "model", [], "bad_linked_input"),
    (SD, "5", "model", ["1", "0"], TRIPPED),
    (SD, "5", "model", ["1", 0.5], TRIPPED),
    (SD, "5", "model", ABSENT, MISSING),
    (SD, "5", "positive", ["4", 0], TYPE),
    (SD, "5", "extra", 7, ""),
    (SD, "2", "text", 7, ""),
    (SD, "2", "text", "", ""),
    (SD, "2", "clip", ["1", 0], TYPE),
    (SD, "4", "width", 8, LOW),
    (SD, "4", "width", "256px", INT),
    (SD, "4", "batch_size", 4097, HIGH),
    (SD, "6", "vae", ["1", 1], TYPE),
    (SD, "7", "images", ["5", 0], TYPE),
    (SD, "7", "images", ["6", 1], "exception_during_validation"),
    (SD, "7", "images", ["6", 0.5], "exception_during_validation"),
    (SD, "7", "filename_prefix", 7, ""),
    (SD, "7", "filename_prefix", ABSENT, MISSING),
    (MF1, "1", "color", 16_777_216, HIGH),
    (MF1, "1", "color", "#ffffff", INT),
    (MF1, "1", "width", 16_385, HIGH),
    (MF2, "2", "upscale_method", "bicubik", OPTION),
    (MF2, "2", "crop", "centre", OPTION),
    (MF2, "2", "crop", ABSENT, MISSING),
    (MF2, "2", "width", 0, ""),
    (MF2, "2", "width", -1, LOW),
    (MF3, "4", "blend_mode", "burn", OPTION),
    (MF3, "4", "blend_mode", ABSENT, MISSING),
    (MF3, "4", "blend_factor", 1.01, HIGH),
    (MF3, "4", "image1", ["1", 1], TYPE),
    (MF5, "2", "strength", "0,5", INT),
    (MF5, "2", "strength", "0.5", ""),
    (MF5, "2", "seed", ABSENT, MISSING),
]


def changed(name: str, node: str, input: str, value: object) -> Graph:
    """Return one of the graphs with an input of a node changed or taken away."""
    nodes = json.loads((WORKFLOWS / f"{name}.json").read_text())
    if value is ABSENT:
        del nodes[node]["inputs"][input]
    else:
        nodes[node]["inputs"][input] = value
    return Graph(nodes)


@pytest.mark.parametrize(
    ("name", "node", "input", "value", "type"),
    CHANGES,
    ids=[f"{n}-{i}-{'absent' if v is ABSENT else str(v)[:12]}" for _, n, i, v, _ in CHANGES],
)
def test_one_change(name: str, node: str, input: str, value: object, type: str) -> None:
    """One thing changed in a graph that ran is that one error, or none where the server takes it."""
    assert found(changed(name, node, input, value)) == ([("error", f"{node}.{input}", type)] if type else [])


@pytest.mark.parametrize(
    ("name", "node", "input", "value", "type"),
    [
        (SD, "1", "ckpt_name", "other.safetensors", OPTION),
        (SD, "1", "ckpt_name", "other", OPTION),
        ("sd02_img2img", "8", "image", "cat.png", "custom_validation_failed"),
    ],
)
def test_what_lies_on_a_disk_is_a_warning(name: str, node: str, input: str, value: object, type: str) -> None:
    """The models and pictures of the runner's machine are not those of the ComfyUI that was asked."""
    assert found(changed(name, node, input, value)) == [("warning", f"{node}.{input}", type)]
    assert found(changed(name, node, input, 7)) == [("error", f"{node}.{input}", OPTION)]


def test_every_class_is_looked_at_but_only_needed_inputs() -> None:
    """A node that no output needs may be wrong, but its class must be there, as on the server."""
    nodes = json.loads((WORKFLOWS / f"{MF1}.json").read_text())
    nodes["8"] = {"class_type": "ImageScale", "inputs": {"width": "x"}}
    assert found(Graph(nodes)) == []
    nodes["9"] = {"class_type": "Nowhere", "inputs": {}}
    assert found(Graph(nodes)) == [("error", "9", "invalid_prompt")]


def test_outputs_are_known_exactly() -> None:
    """A custom saver is an output whatever its name, and a class named like one is none; with definitions no guess."""
    info = {
        "Keep": {"input": {"required": {"i": ["IMAGE"]}}, "output": [], "output_node": True},
        "SaveOptions": {"input": {}, "output": ["IMAGE"], "output_node": False},
    }
    definitions = NodeDefinitions(info)
    last = {"class_type": "SaveOptions", "inputs": {}}
    graph = Graph({"1": last, "2": {"class_type": "Keep", "inputs": {"i": ["1", 0]}}})
    assert found(graph, definitions=definitions) == []
    assert found(Graph({"1": last}), definitions=definitions) == [("error", "", "prompt_no_outputs")]


# Values after placeholders are filled in


@pytest.mark.parametrize(
    ("value", "params", "expected"),
    [
        ("$text(x)", None, []),
        ("$text(x, 20)", None, []),
        ("$text(x, 20.0)", None, [("error", INT)]),
        ("$text(x, 20.0)", {"x": 20.0}, []),
        ("$text(x, 20)", {"x": "20.0"}, [("error", INT)]),
        ("$text(x)", {"x": 20.5}, [("error", INT)]),
        ("$text(x)", {"x": 0}, [("error", LOW)]),
        ("$text(x)", {"x": 2**64}, [("error", HIGH)]),
        ("$text(x, 0)", None, [("error", LOW)]),
        ("$choice(x, 10, 20)", None, []),
        ("$choice(x, 10, many)", None, [("error", INT)]),
        ("$choice(x, 10, many)", {"x": 10}, []),
        ("$choice(x, 10, many)", {"x": "many"}, [("error", INT)]),
        ("$random()", None, [("error", HIGH)]),
        ("$timestamp()", {}, [("error", HIGH)]),
        ("$file(x)", None, [("error", INT)]),
    ],
)
def test_placeholders_for_an_int(value: str, params: Any, expected: list[tuple[str, str]]) -> None:
    """An INT from 1 to 10,000 gets what will be sent, or without params whatever may be sent by default."""
    graph = changed(SD, "5", "steps", value)
    assert [(severity, type) for severity, _, type in found(graph, params)] == expected


@pytest.mark.parametrize(
    ("input", "value", "type"),
    [
        ("seed", "$random()", ""),
        ("seed", "$timestamp()", ""),
        ("cfg", "$random()", HIGH),
        ("sampler_name", "$choice(s, euler, ddim)", ""),
        ("sampler_name", "$choice(s, euler, dimm)", OPTION),
        ("sampler_name", "$text(s, euler)", ""),
        ("sampler_name", "$text(s, eular)", OPTION),
        ("sampler_name", "$random()", OPTION),
    ],
)
def test_placeholders_for_other_types(input: str, value: str, type: str) -> None:
    """What the service draws and what a choice offers is checked like a value."""
    assert found(changed(SD, "5", input, value)) == ([("error", f"5.{input}", type)] if type else [])


def test_one_default_goes_to_every_place() -> None:
    """Of two placeholders of one name the first default is sent to both, so that both are checked with it."""
    graph = changed(SD, "5", "steps", "$text(x)").set("4", "width", "$text(x, 20.0)")
    assert found(graph) == [("error", "5.steps", INT), ("error", "4.width", INT)]
    assert found(graph, {"x": 20}) == []


BOOLEAN = {"1": {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}}}


@pytest.mark.parametrize(
    ("value", "params", "severities"),
    [
        (True, None, []),
        (False, None, []),
        ("", None, []),
        ("false", None, ["error"]),
        ("$text(b, false)", None, ["error"]),
        ("$text(b, true)", None, []),
        ("$text(b, 0)", None, ["error"]),
        ("$choice(b, true, false)", None, ["error"]),
        ("$text(b)", {"b": False}, ["error"]),
        ("$text(b)", {"b": ""}, []),
        ("$text(b)", {"b": "False"}, ["error"]),
    ],
)
def test_booleans(value: object, params: Any, severities: list[str]) -> None:
    """A text that says false counts as true: an error where the input is known to be a BOOLEAN."""
    graph = Graph({**BOOLEAN, "2": {"class_type": "PrimitiveBoolean", "inputs": {"value": value}}})
    issues = graph.check(params, node_definitions=DEFINITIONS)
    assert [issue.severity for issue in issues] == severities
    assert all('send ""' in issue.message for issue in issues)


def test_false_where_no_boolean_is_does_not_warn() -> None:
    """What might be a BOOLEAN warns only as long as the definitions do not show that it is none."""
    graph = changed(MF1, "1", "color", "$text(color, 0)")
    assert [issue.severity for issue in graph.check()] == ["warning"]
    assert graph.check(node_definitions=DEFINITIONS) == []


# Types of links, combos


@pytest.mark.parametrize(
    ("gives", "takes", "fits"),
    [
        ("IMAGE", "IMAGE", True),
        ("IMAGE", "MASK", False),
        ("*", "MASK", True),
        ("IMAGE", "*", True),
        ("INT", "INT,FLOAT", True),
        ("INT,FLOAT", "FLOAT , STRING", True),
        ("INT,STRING", "FLOAT", False),
        ("image", "IMAGE", False),
        ("COMFY_MATCHTYPE_V3", "IMAGE", True),
        ("STRING", ["a", "b"], False),
        (["a", "b"], ["a", "b"], True),
        (["a", "b"], ["a"], False),
        (["a", "b"], "COMBO", True),
        ("COMBO", "COMBO", True),
        ("STRING", "COMBO", False),
    ],
    ids=str,
)
def test_types_of_links(gives: Any, takes: Any, fits: bool) -> None:
    """Equal types, unions with a common name, and any type fit."""
    definitions = NodeDefinitions(
        {
            "From": {"input": {}, "output": [gives], "output_node": False},
            "To": {"input": {"required": {"i": [takes, {}]}}, "output": [], "output_node": True},
        }
    )
    graph = Graph({"1": {"class_type": "From", "inputs": {}}, "2": {"class_type": "To", "inputs": {"i": ["1", 0]}}})
    assert found(graph, definitions=definitions) == ([] if fits else [("error", "2.i", TYPE)])


@pytest.mark.parametrize(
    ("spec", "value", "expected"),
    [
        ([["a", "b"]], "a", ""),
        ([["a", "b"], {}], "c", OPTION),
        ([[1, 2]], 1, ""),
        ([[1, 2]], "1", OPTION),
        (["COMBO", {"options": ["a"]}], "a", ""),
        (["COMBO", {"options": ["a"]}], "b", OPTION),
        (["COMBO", {"options": ["a", "b"], "multiselect": True}], {"__value__": ["a", "b"]}, ""),
        (["COMBO", {"options": ["a", "b"], "multiselect": True}], {"__value__": ["a", "c"]}, OPTION),
        (["COMBO", {"remote": {"route": "/x"}}], "anything", ""),
        (["COMBO", {"remote": {"route": "/x"}, "options": ["a"]}], "anything", ""),
        (["COMBO"], "anything", ""),
        (["COMFY_DYNAMICCOMBO_V3", {"options": []}], "anything", ""),
        (["COMFY_AUTOGROW_V3", {}], {"a": 1}, ""),
        (["COMFY_MATCHTYPE_V3", {}], ["1"], "bad_linked_input"),
        (["WIDGET", {"min": 0}], "anything", "exception_during_validation"),
        (["WIDGET", {"min": 0}], 3, ""),
        ("STRING", "anything", ""),
        ([], "anything", ""),
        (["INT", "odd"], 3, ""),
        (["INT", {"min": None, "max": None}], 3, ""),
    ],
    ids=str,
)
def test_kinds_of_inputs(spec: Any, value: object, expected: str) -> None:
    """Options of old and new definitions, those that come from elsewhere, and what a custom node may say."""
    definitions = NodeDefinitions({"To": {"input": {"required": {"i": spec}}, "output": [], "output_node": True}})
    graph = Graph({"1": {"class_type": "To", "inputs": {"i": value}}})
    assert found(graph, definitions=definitions) == ([("error", "1.i", expected)] if expected else [])


def test_texts_help() -> None:
    """Each text says in plain words what is wrong, and names what is near."""
    texts = {
        changed(SD, "5", "sampler_name", "eular"): "KSampler has no option 'eular'; did you mean 'euler'",
        changed(SD, "5", "steps", "20.0"): "KSampler takes INT here, which '20.0' is not: write 20",
        changed(SD, "5", "cfg", "$random()"): "$random() may give 18446744073709551615: 18446744073709551615 is bigger",
        changed(SD, "5", "model", ["1", 3]): "node 1 (CheckpointLoaderSimple) has no output 3; they count from 0",
        changed(SD, "5", "model", ["1", 1]): "received_type(CLIP) mismatch input_type(MODEL)",
        changed(SD, "1", "ckpt_name", "x.ckpt"): "this ComfyUI has no file 'x.ckpt' for CheckpointLoaderSimple",
    }
    for graph, text in texts.items():
        (issue,) = graph.check(node_definitions=DEFINITIONS)
        assert text in issue.message
        assert len(str(issue)) < 250


# The definitions themselves


def test_definitions_are_small_and_fixed(tmp_path: Path) -> None:
    """They have a size and names, a short repr, and survive copies; a file says the same as its content."""
    path = tmp_path / "object_info.json"
    path.write_text(json.dumps(INFO), encoding="utf-8-sig")
    definitions = NodeDefinitions.load(path)
    assert len(definitions) == len(list(definitions)) == 34
    assert "KSampler" in definitions
    assert "Nowhere" not in definitions
    assert repr(definitions) == "<NodeDefinitions 34 classes>"
    graph = changed(SD, "5", "steps", 0)
    for other in (definitions, copy.deepcopy(definitions), pickle.loads(pickle.dumps(definitions))):
        assert found(graph, definitions=other) == [("error", "5.steps", LOW)]
    with pytest.raises(AttributeError):
        definitions.extra = 1  # type: ignore[attr-defined]  # what must not work


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "check the path"),
        (b"", "is not JSON, or was cut"),
        (b'{"KSampler": {"input": {"requ', "is not JSON, or was cut"),
        (b"[" * 100_000, "is not JSON, or was cut"),
        (b"<!DOCTYPE html><html>", "is an HTML page"),
        (b"\xff\xfe{\0}\0", "is not UTF-8"),
        (b"[]", "map class names to definitions"),
        (b"{}", "map class names to definitions"),
        (b'{"detail": "not found"}', "'detail' is 'not found'"),
        (b'{"KSampler": {"inputs": {}, "outputs": []}}', "is of another version, or something else"),
        (b'{"KSampler": {"input": {}, "output": []}}', "is of another version, or something else"),
        (b'{"1": {"class_type": "SaveImage", "inputs": {}}}', "this is a graph, not node definitions"),
    ],
    ids=["absent", "empty", "cut", "deep", "html", "utf-16", "list", "no-class", "error", "fields", "old", "graph"],
)
def test_what_are_no_definitions(tmp_path: Path, content: bytes | None, text: str) -> None:
    """One sentence that names the file and says where definitions come from."""
    path = tmp_path / "info.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(GraphError) as caught:
        NodeDefinitions.load(path)
    assert text in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 400


def test_other_things_for_definitions_are_refused() -> None:
    """A path or the JSON itself is not taken for definitions."""
    with pytest.raises(InvalidArgumentError, match="node_definitions are NodeDefinitions, but this is"):
        Graph({}).check(node_definitions="object_info.json")  # type: ignore[arg-type]  # what callers may do


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(["INT", "COMBO", "*", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["min", "max", "options", "remote", "__value__", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
SPECS = (
    st.lists(st.sampled_from(["INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "IMAGE", "*"]) | JSON, max_size=3) | JSON
)
CLASSES = st.fixed_dictionaries(
    {
        "input": st.dictionaries(
            st.sampled_from(["required", "optional", "hidden"]),
            st.dictionaries(st.sampled_from("ij"), SPECS, max_size=2) | JSON,
        ),
        "output": st.lists(JSON, max_size=2),
        "output_node": st.booleans(),
    }
)
VALUES = (
    JSON | st.tuples(st.sampled_from("123"), JSON).map(list) | st.sampled_from(["$text(a, 1)", "$random()", "$file(b)"])
)
NODES = st.fixed_dictionaries(
    {
        "class_type": st.sampled_from(["A", "B", "C"]),
        "inputs": st.dictionaries(st.sampled_from("ij"), VALUES, max_size=2) | JSON,
    }
)


@given(
    st.dictionaries(st.sampled_from("AB"), CLASSES, min_size=1),
    st.dictionaries(st.sampled_from("123"), NODES | JSON, min_size=1),
)
def test_any_definitions_judge_any_graph(info: dict[str, Any], nodes: dict[str, Any]) -> None:
    """Whatever a custom node says of itself, and whatever stands in a graph, a check lists issues."""
    definitions = NodeDefinitions(info)
    try:
        graph = Graph(nodes)
    except GraphError:
        return
    for params in (None, {"b": b"png"}):
        assert all(issue.message for issue in graph.check(params, node_definitions=definitions))
    for fault in validate(json.loads(graph.to_json()), definitions):
        assert fault.type
    validate(json.loads(graph.to_json()), assume_definitions(json.loads(graph.to_json())))


def test_five_thousand_faults_with_definitions() -> None:
    """Each is listed, with hints for the first few."""
    sampler = json.loads((WORKFLOWS / f"{SD}.json").read_text())["5"]["inputs"]
    nodes: dict[str, Any] = {}
    for i in range(2500):
        links = {name: ["absent", 0] for name in ("model", "positive", "negative", "latent_image")}
        inputs = {**sampler, **links, "sampler_name": f"euler{i}"}
        nodes[f"k{i}"] = {"class_type": "KSampler", "inputs": {**inputs, "scheduler": f"normal{i}"}}
        for name in links:
            del inputs[name], nodes[f"k{i}"]["inputs"][name]
        nodes[f"s{i}"] = {"class_type": "SaveLatent", "inputs": {"samples": [f"k{i}", 0], "filename_prefix": "x"}}
    issues = Graph(nodes).check(node_definitions=DEFINITIONS)
    assert len(issues) == 2500 * 6
    assert sum("did you mean" in issue.message for issue in issues) <= 5


# What the server's side uses


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ({"1": {"class_type": "EmptyImage", "inputs": {}}}, [("", "", "prompt_no_outputs")]),
        ({"1": {"class_type": "Odd", "inputs": {}}}, []),
        ({"1": {"class_type": "SaveImage", "inputs": {"i": ["2", 0]}}}, [("1", "i", "exception_during_validation")]),
        ({"1": {"class_type": "SaveImage", "inputs": {"i": ["2"]}}}, [("1", "i", "bad_linked_input")]),
        ({"1": {"class_type": "SaveImage", "inputs": {"i": ["1", 0]}}}, [("1", "i", TRIPPED)]),
        ({"1": {"class_type": "SaveImage"}}, [("1", "", "exception_during_validation")]),
        ({"1": {"inputs": {}}}, [("1", "", "invalid_prompt")]),
        ({"1": 3}, [("1", "", "invalid_prompt")]),
        (
            {
                "1": {"class_type": "SaveImage", "inputs": {"i": ["2", 4], "anything": "x"}},
                "2": {"class_type": "Odd", "inputs": {"j": ["9", 0]}},
                "3": {"class_type": "Odd", "inputs": {"j": ["9", 0]}},
            },
            [("2", "j", TRIPPED)],
        ),
        ({}, [("", "", "prompt_no_outputs")]),
    ],
    ids=["no-output", "odd-output", "absent", "no-link", "loop", "no-inputs", "no-class", "no-node", "inner", "empty"],
)
def test_without_definitions(nodes: dict[str, Any], expected: list[tuple[str, str, str]]) -> None:
    """Assumed definitions find just what is wrong on any ComfyUI."""
    faults = validate(nodes, assume_definitions(nodes))
    assert [(fault.node, fault.input, fault.type) for fault in faults] == expected


def test_which_nodes_an_output_needs() -> None:
    """A server answers which outputs depend on a faulty node."""
    nodes = json.loads((DATA / "comfyui" / "refused" / "partly_valid.json").read_text())
    assert needed_by(nodes, DEFINITIONS, "4") == {"1", "2", "3", "4"}
    assert needed_by(nodes, DEFINITIONS, "6") == {"5", "6"}


def test_a_long_chain_is_no_recursion() -> None:
    """5,000 nodes in a row are looked at, and so is a loop of them."""
    chain: dict[str, Any] = {
        str(i): {"class_type": "ImageInvert", "inputs": {"image": [str(i + 1), 0]}} for i in range(5000)
    }
    chain["out"] = {"class_type": "SaveImage", "inputs": {"images": ["0", 0], "filename_prefix": "x"}}
    ends = {"class_type": "EmptyImage", "inputs": {"width": 0, "height": 1, "batch_size": 1, "color": 0}}
    assert found(Graph({**chain, "5000": ends})) == [("error", "5000.width", LOW)]
    loop = {**chain, "5000": {"class_type": "ImageInvert", "inputs": {"image": ["0", 0]}}}
    assert [(fault.node, fault.type) for fault in validate(loop, DEFINITIONS)] == [("5000", TRIPPED)]

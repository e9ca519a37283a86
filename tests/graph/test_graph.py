"""What a graph is: what it reads, holds and refuses, and what the checks of its structure find."""

import copy
import fractions
import json
import math
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfycontrol_async.errors import GraphError
from comfycontrol_async.graph import Graph, name_of
from support.checked_graphs import TEMPLATES, WORKFLOWS, Colour, Number, found, graph_of, node

PLAIN = sorted(path for path in WORKFLOWS.glob("[ms]*.json") if path not in TEMPLATES)


# Reading


@pytest.mark.parametrize("path", [*PLAIN, *TEMPLATES], ids=lambda path: path.stem)
def test_real_graphs_load_check_and_round_trip(path: Path) -> None:
    """A graph from ComfyUI has no issue, and its JSON loads back to an equal one."""
    graph = Graph.load(str(path))
    assert graph.check() == []
    assert Graph(json.loads(graph.to_json())) == graph
    assert json.loads(graph.to_json()) == json.loads(path.read_text())


def test_load_takes_a_byte_order_mark(tmp_path: Path) -> None:
    """A file saved by a Windows editor loads."""
    path = tmp_path / "bom.json"
    path.write_bytes(b'\xef\xbb\xbf{"1": {"class_type": "SaveImage", "inputs": {}}}')
    assert Graph.load(path).check() == []


@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param(None, "check the path", id="missing"),
        pytest.param(b"{not json", "is not JSON", id="not-json"),
        pytest.param(b"", "is not JSON", id="empty-file"),
        pytest.param(b"[" * 100_000, "is not JSON", id="deep-json"),
        pytest.param(b"[1, 2]", "holds a list, not a JSON object", id="not-an-object"),
        pytest.param(b'{"1": "\xff"}', "is not UTF-8", id="not-utf8"),
        pytest.param(b'{"1": {"inputs": {"cfg": NaN}}}', "1.cfg: this number cannot stand in JSON", id="nan"),
        pytest.param(b'{"1": {"inputs": {"t": "\\ud800"}}}', "1.t: half a surrogate pair", id="surrogate"),
        pytest.param(b'{"1": ' + b"9" * 5000 + b"}", "is not JSON", id="5000-digits"),
    ],
)
def test_load_says_which_file_and_what_to_do(tmp_path: Path, content: bytes | None, text: str) -> None:
    """A file that is no graph is a `GraphError` on one line, with the path and, where there is one, its cause."""
    path = tmp_path / "graph.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(GraphError) as caught:
        Graph.load(path)
    assert text in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None or "not a JSON object" in text


def test_load_refuses_a_directory(tmp_path: Path) -> None:
    """A directory is refused like a missing file."""
    with pytest.raises(GraphError, match="check the path") as caught:
        Graph.load(tmp_path)
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param([1], "maps node ids to nodes", id="list"),
        pytest.param({"1": node(a=math.inf)}, "1.a: this number cannot stand in JSON", id="infinity"),
        pytest.param({"1": node(a=10**5000)}, "1.a: this number cannot stand in JSON", id="5001-digits"),
        pytest.param({"1": node(a=fractions.Fraction(10**400))}, "1.a: this number", id="overflow"),
        pytest.param(
            {"1": node(a=[0, {"b": Path("x")}])},
            r"1\.a\[1\]\.b: a value of type \w*Path cannot stand in JSON; put \$file",
            id="path",
        ),
        pytest.param({"1": node(a=object())}, "1.a: a value of type object cannot stand in JSON", id="object"),
        pytest.param({"1": {None: 1}}, "1: a key must be a str, but None is not", id="key"),
        pytest.param({"1": {"\ud800": 1}}, "1: half a surrogate pair", id="key-surrogate"),
        pytest.param({1: node(), "1": node()}, "the key '1' is there twice", id="key-twice"),
    ],
)
def test_what_json_cannot_say_is_refused(value: Any, text: str) -> None:
    """A graph is refused when made, with the place, if it holds what could not be sent."""
    with pytest.raises(GraphError, match=text):
        Graph(value)


def test_what_holds_itself_is_refused() -> None:
    """A cyclic value ends in a `GraphError`, not in a `RecursionError`."""
    inputs: dict[str, object] = {}
    inputs["a"] = inputs
    with pytest.raises(GraphError, match="holds itself"):
        Graph({"1": {"class_type": "SaveImage", "inputs": inputs}})


def test_numbers_of_other_types_become_json() -> None:
    """Number types like numpy's, enums, tuples and whole-number ids are written as JSON writes them."""
    nodes: Any = {5: node(a=Number.SEVEN, b=fractions.Fraction(1, 2), c=Colour.RED, d=(1, 2), e=2**70)}
    assert json.loads(Graph(nodes).to_json())["5"]["inputs"] == {"a": 7, "b": 0.5, "c": "red", "d": [1, 2], "e": 2**70}
    assert repr(Graph(nodes).nodes["5"]["inputs"]["a"]) == "7"


# The value


def test_a_graph_never_changes() -> None:
    """Neither the mapping it was made of nor what it shows leads into it."""
    nodes = {"1": node(a=["2", 0], b={"c": [1]}), "2": node("EmptyImage")}
    graph = Graph(nodes)
    before = graph.to_json()
    nodes["1"]["inputs"]["a"].append(1)
    graph.nodes["1"]["inputs"]["a"].append(1)
    with pytest.raises(TypeError):
        graph.nodes["1"]["inputs"]["a"] = 1
    with pytest.raises(TypeError):
        graph.nodes["3"] = {}  # type: ignore[index]  # what must not work
    with pytest.raises(AttributeError):
        graph.parameters = ()  # type: ignore[misc]  # what must not work
    with pytest.raises(AttributeError):
        graph.extra = 1  # type: ignore[attr-defined]  # what must not work
    assert graph.to_json() == before
    assert graph.nodes == {"1": node(a=["2", 0], b={"c": [1]}), "2": node("EmptyImage")}


def test_equality_is_that_of_the_json() -> None:
    """Key order does not count; 1, 1.0 and true differ, as they do in JSON."""
    assert Graph({"1": node(a=1, b=2)}) == Graph({"1": node(b=2, a=1)})
    assert len({graph_of(1), graph_of(1), graph_of(1.0), graph_of(True)}) == 3
    assert graph_of(1) != {"1": node(a=1)}


def test_copies_and_pickles_are_equal() -> None:
    """A graph can go to another process."""
    graph = Graph.load(TEMPLATES[0])
    assert copy.deepcopy(graph) == copy.copy(graph) == pickle.loads(pickle.dumps(graph)) == graph


@pytest.mark.parametrize(
    ("graph", "text"),
    [
        (Graph({}), "<Graph 0 nodes>"),
        (graph_of(1), "<Graph 1 node>"),
        (Graph({"1": node(a="$text(prompt)", b="$choice(prompt, x, y)"), "2": node()}), "parameters: prompt>"),
    ],
    ids=["empty", "plain", "parameters"],
)
def test_repr_is_short(graph: Graph, text: str) -> None:
    """The repr says how big it is and what it asks for."""
    assert repr(graph).endswith(text)


def test_set_makes_another_graph() -> None:
    """A node is found by id, title or class type, and the first graph stays as it was."""
    graph = Graph.load(WORKFLOWS / "sd01_txt2img.json")
    for name in ("5", 5, "Sampler", "KSampler"):
        changed = graph.set(name, "steps", "$text(steps, 20)")
        assert changed.nodes["5"]["inputs"]["steps"] == "$text(steps, 20)"
        assert [parameter.name for parameter in changed.parameters] == ["steps"]
    assert graph.nodes["5"]["inputs"]["steps"] == 4
    assert graph.parameters == ()


def test_set_prefers_the_id() -> None:
    """An id counts before a title, and a title before a class type."""
    nodes = {
        "1": {**node("A", x=0), "_meta": {"title": "2"}},
        "2": {**node("B", x=0), "_meta": {"title": "A"}},
    }
    assert Graph(nodes).set("2", "x", 1).nodes["2"]["inputs"]["x"] == 1
    assert Graph(nodes).set("A", "x", 1).nodes["2"]["inputs"]["x"] == 1


@pytest.mark.parametrize(
    ("where", "text"),
    [
        (("99", "steps", 1), "no node '99'"),
        (("Samplr", "steps", 1), "no node 'Samplr'; did you mean 'Sampler'"),
        (("CLIPTextEncode", "text", ""), "any of the nodes 2, 3: give the id"),
        (("5", "stesp", 1), r"node 5 \(KSampler\) has no input 'stesp'; did you mean 'steps'"),
        (("5", "zzz", 1), "has no input 'zzz'; there are seed, steps"),
        (("", "text", ""), "no node ''"),
        (("5", "cfg", math.nan), "5.cfg: this number cannot stand in JSON"),
    ],
    ids=["unknown", "close-node", "ambiguous", "close-input", "inputs", "empty", "nan"],
)
def test_set_refuses_slips(where: tuple[str, str, object], text: str) -> None:
    """An unknown or ambiguous place is an error that names the candidates."""
    with pytest.raises(GraphError, match=text):
        Graph.load(WORKFLOWS / "sd01_txt2img.json").set(*where)


def test_coerce_takes_what_the_verbs_take() -> None:
    """A graph, a mapping, a path as text or `Path`, and an object with a graph all make a graph."""
    path = PLAIN[0]
    graph = Graph.load(path)
    for value in (graph, json.loads(path.read_text()), path, str(path), SimpleNamespace(graph=graph)):
        assert Graph.coerce(value) == graph


@pytest.mark.parametrize("value", [None, 3, SimpleNamespace(graph=None), ' {"1": {}}', b"x", "no/such/file"])
def test_coerce_refuses_the_rest(value: object) -> None:
    """Anything else is a `GraphError`, JSON text among it."""
    with pytest.raises(GraphError, match=r"a graph is a Graph|JSON, not a path|cannot read"):
        Graph.coerce(value)


@pytest.mark.parametrize(
    ("source", "name"),
    [("out/cat.json", "cat"), (Path("a.b.json"), "a.b"), ("", "workflow"), ({}, "workflow"), ("x" * 300, "x" * 200)],
    ids=["text", "path", "empty", "mapping", "long"],
)
def test_name_of(source: object, name: str) -> None:
    """A workflow is named after its file, within the API's limit."""
    assert name_of(source) == name


# Structure

CORE = {"1": node("EmptyImage"), "2": node("ImageInvert", image=["1", 0])}


@pytest.mark.parametrize(
    ("nodes", "issues", "message"),
    [
        pytest.param({}, [("error", "")], "is empty", id="empty"),
        pytest.param({"prompt": CORE, "client_id": "x"}, [("error", "")], 'under its "prompt"', id="request-body"),
        pytest.param({"1": node(), "v": 0.4}, [("error", "v")], "a node is an object", id="not-a-node"),
        pytest.param({"1": node(), "2": {"inputs": {}}}, [("error", "2")], "has no class_type", id="no-class-type"),
        pytest.param({"1": {"class_type": "SaveImage"}}, [("error", "1")], "no inputs object", id="no-inputs"),
        pytest.param({"1": {**node(), "inputs": []}}, [("error", "1")], "no inputs object", id="list-inputs"),
        pytest.param({"1": node(i=["2", 0])}, [("error", "1.i")], "node '2', which is absent", id="absent"),
        pytest.param({"1": node(i=["2", -1]), "2": node()}, [("error", "1.i")], "count from 0", id="slot"),
        pytest.param({"1": node(i=["1", 0])}, [("error", "1.i")], "themselves: 1 <- 1", id="self-link"),
        pytest.param(
            {"1": node(i=["2", 0]), "2": node(i=["3", 0]), "3": node(i=["2", 1])},
            [("error", "3.i")],
            "themselves: 2 <- 3 <- 2",
            id="loop",
        ),
        pytest.param(CORE, [("error", "")], "no output node", id="no-output"),
        pytest.param({"1": node("LoadImageOutput")}, [("error", "")], "no output node", id="output-in-name"),
        pytest.param({**CORE, "3": node("Odd", i=["2", 0])}, [("warning", "")], "one of 3?", id="odd-output"),
    ],
)
def test_structural_faults_are_found(nodes: Any, issues: list[tuple[str, str]], message: str) -> None:
    """Each fault of the graph itself is one issue, with its place, and says what to do."""
    assert found(Graph(nodes)) == issues
    assert message in str(Graph(nodes).check()[0])


@pytest.mark.parametrize(
    "values",
    [[9, 0], ["a", "b"], ["9", 0, 1], ["9", True], ["9", 0.5], [["9", 0]]],
    ids=["numbers", "texts", "three", "bool", "float", "nested"],
)
def test_lists_that_are_no_links(values: list[object]) -> None:
    """Only a list of a text and a whole number is a link; ComfyUI refuses any other list, so it is a warning."""
    assert found(graph_of(values)) == [("warning", "1.a")]
    assert found(graph_of({"within": values})) == []


@pytest.mark.parametrize("class_type", ["PreviewImage", "VHS_VideoCombine", "ShowText|pysssss", "SaveImageWebsocket"])
def test_custom_outputs_are_known_by_name(class_type: str) -> None:
    """A node named like an output is one, wherever it comes from."""
    assert Graph({**CORE, "3": node(class_type, i=["2", 0])}).check() == []


def test_a_ui_export_is_refused_with_advice() -> None:
    """The format that the editor saves is one issue, which names the menu entry, whatever the parameters."""
    graph = Graph.load(WORKFLOWS / "ui_format_export.json")
    assert found(graph) == found(graph, {"prompt": "x"}) == [("error", "")]
    with pytest.raises(GraphError, match=r'UI format.*"Export \(API\)".*"Save \(API Format\)"'):
        graph.bind()


def test_a_long_chain_is_no_recursion() -> None:
    """A chain longer than Python's stack is checked, closed to a loop or not."""
    nodes = {str(i): node("ImageInvert", image=[str(i + 1), 0]) for i in range(5000)}
    nodes["0"] = node(images=["1", 0])
    assert found(Graph({**nodes, "5000": node("EmptyImage")})) == []
    assert found(Graph({**nodes, "5000": node("ImageInvert", image=["1", 0])})) == [("error", "5000.image")]


# Properties

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
    | st.sampled_from(["$text(a)", "$text(a, 1)", "$choice(a, x, y)", "$file(a)", "$random()", "x$file(a)"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip
NODES = st.fixed_dictionaries(
    {"class_type": st.sampled_from(["SaveImage", "KSampler", "Odd"]) | JSON},
    optional={"inputs": st.dictionaries(st.text(max_size=4), JSON | st.tuples(st.sampled_from("123"), st.integers()))},
)
GRAPHS = st.dictionaries(st.sampled_from(["1", "2", "3", "nodes", "prompt"]) | st.text(max_size=3), NODES | JSON)
PARAMS = st.dictionaries(st.sampled_from(["a", "b", "$a"]), JSON | st.binary() | st.floats())


@given(GRAPHS, PARAMS)
def test_any_json_is_judged(nodes: dict[str, object], params: dict[str, object]) -> None:
    """Whatever JSON comes, the graph loads back equal, and it binds just when its check has no error."""
    graph = Graph(nodes)
    assert Graph(json.loads(graph.to_json())) == graph
    assert repr(graph).startswith("<Graph ")
    issues = graph.check(params)
    if any(issue.severity == "error" for issue in issues):
        with pytest.raises(GraphError) as caught:
            graph.bind(params)
        assert caught.value.issues == tuple(issues)
    else:
        bound = graph.bind(params)
        assert bound.warnings == tuple(issues)
        assert Graph(json.loads(bound.body)) == graph
        assert [name for name, _ in bound.fields] == [parameter.field for parameter in graph.parameters]

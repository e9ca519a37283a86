"""What `Graph` promises: what it reads, what it finds before a request is spent, and what it sends."""

import copy
import enum
import fractions
import io
import json
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfycontrol_async.errors import GraphError
from comfycontrol_async.graph import File, Graph, GraphIssue, Parameter, name_of

WORKFLOWS = Path(__file__).parents[1] / "data" / "workflows"
TEMPLATES = sorted(WORKFLOWS.glob("*.template.json"))
PLAIN = sorted(path for path in WORKFLOWS.glob("[ms]*.json") if path not in TEMPLATES)
IMAGE = {"image": b"png"}


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


# Placeholders


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$text(prompt)", {"name": "prompt", "kind": "text"}),
        ("$text( my prompt )", {"name": "my prompt", "kind": "text"}),
        ("$text(a, b (c), d )", {"name": "a", "kind": "text", "default": "b (c), d"}),
        ("$text(a, :) or :()", {"name": "a", "kind": "text", "default": ":) or :("}),
        ("$text(a,)", {"name": "a", "kind": "text", "default": ""}),
        ("$text(a, b\nc)", {"name": "a", "kind": "text", "default": "b\nc"}),
        ("$choice(s, x,y)", {"name": "s", "kind": "choice", "default": "x", "choices": ("x", "y")}),
        ("$choice(s, x (1), y)", {"name": "s", "kind": "choice", "default": "x (1)", "choices": ("x (1)", "y")}),
        ("$file(in_put-1)", {"name": "in_put-1", "kind": "file"}),
        (f"$file({'f' * 255})", {"name": "f" * 255, "kind": "file"}),
    ],
)
def test_placeholders_are_read(text: str, expected: dict[str, Any]) -> None:
    """Each documented form makes one parameter and no issue."""
    graph = graph_of(text)
    assert graph.parameters == (Parameter(**expected, places=("1.a",)),)
    assert graph.parameters[0].required == ("default" not in expected)
    assert graph.check() == []


@pytest.mark.parametrize(
    "text",
    [
        "$random()",
        "$timestamp()",
        "$random( )",
        "",
        "$",
        "a $5 (note)",
        "see $foo(x) here",
        "text(prompt)",
        "$ text",
    ],
)
def test_other_strings_ask_for_nothing(text: str) -> None:
    """What the service fills in by itself, and ordinary text, is no parameter and no issue."""
    assert graph_of(text).parameters == ()
    assert graph_of(text).check() == []


@pytest.mark.parametrize(
    ("text", "severity", "message"),
    [
        ("prefix_$random()", "error", "must be the whole value"),
        ("$text(a), masterpiece", "error", "must be the whole value"),
        (" $text(a)", "error", "must be the whole value"),
        ("$text(a) and $text(b)", "error", "must be the whole value"),
        ("$text(a) and (b)", "error", "must be the whole value"),
        ("$text(a, $random())", "error", "must be the whole value"),
        ("$random() (x)", "error", "must be the whole value"),
        ("$choice(a, b, c) or (d)", "error", "must be the whole value"),
        ("$foo($text(a))", "error", "must be the whole value"),
        ("$text(", "error", "no closing parenthesis"),
        ("$text()", "error", "needs a name"),
        ("$text(, x)", "error", "needs a name"),
        ('$text("a")', "error", "which no form field can have"),
        ("$text(a\nb)", "error", "which no form field can have"),
        ("$text(a(b)", "error", "which no form field can have"),
        ("$choice()", "error", "needs a name"),
        ("$choice(a)", "error", "needs 2 to 4 options, but has 0"),
        ("$choice(a, b)", "error", "needs 2 to 4 options, but has 1"),
        ("$choice(a, b, c, d, e, f)", "error", "needs 2 to 4 options, but has 5"),
        ("$choice(a, b, )", "error", "empty option"),
        ("$choice(a, b, b)", "warning", "an option twice"),
        ("$file()", "error", "needs a name"),
        ("$file(input_image.png)", "error", "such as $file(input_image_png)"),
        ("$file(a, b)", "error", "letters, digits"),
        ("$file(изображение)", "error", "such as $file(image)"),
        (f"$file({'f' * 256})", "error", "at most 255"),
        ("$random(5)", "error", "nothing between"),
        ("$timestamp(ms)", "error", "nothing between"),
        ("$foo(x)", "warning", "$foo(...) is no placeholder of the service; there are text, choice"),
        ("$Text(x)", "warning", "did you mean 'text'"),
    ],
)
def test_faulty_placeholders_are_found(text: str, severity: str, message: str) -> None:
    """Each faulty placeholder is one issue, with its place."""
    (issue,) = graph_of(0, {"k": [text]}).check()
    assert (issue.severity, issue.place) == (severity, "1.b.k[0]")
    assert message in issue.message


def test_places_are_listed_in_order() -> None:
    """A parameter lists everywhere that it stands, within lists and objects too; order is that of first appearance."""
    graph = Graph({"3": node(z="$text(b)", y={"l": ["x", {"k": "$text(a)"}]}), "1": node(o={"p": "$text(b, 1)"})})
    places = [(parameter.name, parameter.default, parameter.places) for parameter in graph.parameters]
    assert places == [("b", "1", ("3.z", "1.o.p")), ("a", None, ("3.y.l[1].k",))]
    assert graph.check() == []


@pytest.mark.parametrize(
    ("first", "second", "issues"),
    [
        ("$text(x)", "$text(x)", []),
        ("$text(x)", "$text(x, 1)", []),
        ("$text(x, 1)", "$text(x, 2)", [("warning", "1.b")]),
        ("$choice(x, a, b)", "$choice(x, a, c)", [("warning", "1.b")]),
        ("$choice(x, a, b)", "$text(x)", [("warning", "1.b")]),
        ("$text(x)", "$file(x)", [("error", "1.b")]),
        ("$file(x)", "$text(x)", [("error", "1.b")]),
        ("$file(x)", "$choice(x, a, b)", [("error", "1.b")]),
    ],
)
def test_one_name_used_twice(first: str, second: str, issues: list[tuple[str, str]]) -> None:
    """Placeholders of one name that disagree are found; a file shares its name with nothing else."""
    assert found(graph_of(first, second)) == issues
    assert graph_of(first, second).parameters[0].places[0] == "1.a"


def test_the_first_of_two_defaults_counts() -> None:
    """Where two placeholders disagree, the first one is sent."""
    assert graph_of("$text(x, 1)", "$text(x, 2)").bind().fields == (("$x", "1"),)


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


# Parameters

ASKING = ("$text(prompt)", "$text(steps, 20)", "$choice(sampler, euler, ddim)", "$file(image)")


@pytest.mark.parametrize(
    ("params", "place", "message"),
    [
        pytest.param({}, "1.a", 'text "prompt" has no default and is missing', id="missing"),
        pytest.param({"prompt": None}, "1.a", "given None: leave it out instead", id="none"),
        pytest.param({"prompt": b"x"}, "1.a", "takes a str, int, float or bool, but was given bytes b'x'", id="bytes"),
        pytest.param({"prompt": ["x"]}, "1.a", "but was given list ['x']", id="list"),
        pytest.param({"prompt": math.nan}, "1.a", "takes no nan", id="nan"),
        pytest.param({"prompt": -math.inf}, "1.a", "takes no -inf", id="infinity"),
        pytest.param({"prompt": 10**5000}, "1.a", "too long to write out", id="5001-digits"),
        pytest.param({"prompt": fractions.Fraction(10**400)}, "1.a", "too long to write out", id="overflow"),
        pytest.param({"prompt": "\ud800"}, "1.a", "half a surrogate pair", id="surrogate"),
        pytest.param({"sampler": "eular"}, "1.c", "takes 'euler' or 'ddim', but was given 'eular'", id="option"),
        pytest.param({"sampler": 1}, "1.c", "takes 'euler' or 'ddim', but was given int 1", id="choice-type"),
        pytest.param({"sampler": 10**5000}, "1.c", "but was given int <int>", id="choice-5001-digits"),
        pytest.param({"image": "cat.png"}, "1.d", "Path('cat.png') or File('cat.png')", id="file-as-text"),
        pytest.param({"image": 3}, "1.d", "takes a File, Path or bytes, but was given int 3", id="file-type"),
        pytest.param({"image": Path("no/such.png")}, "1.d", "No such file", id="absent-file"),
        pytest.param({"image": File("no/such.png")}, "1.d", "No such file", id="absent-file-text"),
        pytest.param({"image": Path(__file__).parent}, "1.d", "is the directory", id="directory"),
        pytest.param({"image": Path("a\0b")}, "1.d", "cannot be read", id="null-byte"),
        pytest.param({"promt": "x"}, "", "no parameter 'promt'; did you mean 'prompt'?", id="close"),
        pytest.param({"zzz": "x"}, "", "there are prompt, steps, sampler, image", id="unknown"),
        pytest.param({"$prompt": "x"}, "", "leave the sign out: 'prompt'", id="dollar"),
        pytest.param({"#sampler": "x"}, "", "leave the sign out: 'sampler'", id="hash"),
        pytest.param({7: "x"}, "", "no parameter 7", id="key-type"),
        pytest.param(["prompt"], "", "params must map names to values", id="not-a-mapping"),
    ],
)
def test_faulty_parameters_are_found(params: Any, place: str, message: str) -> None:
    """Each faulty value is an error at its first place; other parameters do not add to it."""
    good = {"prompt": "a cat", **IMAGE}
    full = {**good, **params} if params and isinstance(params, dict) else params if params else IMAGE
    (issue,) = graph_of(*ASKING).check(full)
    assert (issue.severity, issue.place) == ("error", place)
    assert message in issue.message


def test_a_graph_without_parameters_says_so() -> None:
    """A value for a graph that asks for nothing is an error."""
    assert "there are none" in str(graph_of(1).check({"prompt": "x"})[0])


def test_bind_fills_in_defaults_in_order() -> None:
    """Fields come in order of the parameters, with the sign of their kind and the defaults the API wants."""
    image = File(b"png", filename="cat.png")
    bound = graph_of(*ASKING).bind({"image": image, "prompt": "кот"})
    assert bound.fields == (("$prompt", "кот"), ("$steps", "20"), ("#sampler", "euler"), ("$image", image))
    assert bound.warnings == ()
    assert str(len(bound.body)) in repr(bound)
    assert "class_type" not in repr(bound)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", ""),
        ("two\nlines", "two\nlines"),
        (Colour.RED, "red"),
        (True, "true"),
        (False, "false"),
        (12, "12"),
        (Number.SEVEN, "7"),
        (2**64, "18446744073709551616"),
        (7.0, "7"),
        (0.1, "0.1"),
        (fractions.Fraction(1, 4), "0.25"),
    ],
)
def test_text_values_are_written_out(value: object, text: str) -> None:
    """A text parameter takes texts, numbers and booleans, and sends them as ComfyUI reads them."""
    ((_, sent),) = graph_of("$text(x)").bind({"x": value}).fields
    assert sent == text
    assert type(sent) is str


def test_files_get_a_name(tmp_path: Path) -> None:
    """A path keeps its name, bytes and streams take the parameter's, and a name that was given stays."""
    path = tmp_path / "cat.png"
    path.write_bytes(b"png")
    names = []
    for value in (path, b"png", File(str(path)), File(io.BytesIO(b"png")), File(path, filename="dog.png")):
        ((name, file),) = graph_of("$file(image)").bind({"image": value}).fields
        assert isinstance(file, File)
        with file.open() as stream:
            assert stream.read() == b"png"
        names.append((name, file.filename))
    assert names == [("$image", name) for name in ("cat.png", "image", "cat.png", "image", "dog.png")]


def test_one_value_fills_a_text_and_a_choice() -> None:
    """A text and a choice of one name are two fields, and the warning comes with the bound graph."""
    bound = graph_of("$text(x)", "$choice(x, a, b)").bind({"x": "b"})
    assert bound.fields == (("$x", "b"), ("#x", "b"))
    assert [issue.severity for issue in bound.warnings] == ["warning"]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_real_templates_bind(path: Path) -> None:
    """A template binds with only what it requires, and sends itself and every parameter."""
    graph = Graph.load(path)
    params = {parameter.name: b"x" if parameter.kind == "file" else "x" for parameter in graph.parameters}
    bound = graph.bind({name: params[name] for name in params if name in ("prompt", "image")})
    assert json.loads(bound.body) == json.loads(path.read_text())
    assert [name for name, _ in bound.fields] == [parameter.field for parameter in graph.parameters]


def test_the_body_is_compact_and_exact() -> None:
    """The body is UTF-8 with no blanks, whole numbers of any size are exact, and it is made once."""
    graph = graph_of(2**80 + 1, "été", 7.0)
    assert (
        graph.bind().body
        == '{"1":{"class_type":"SaveImage","inputs":{"a":1208925819614629174706177,"b":"été","c":7.0}}}'.encode()
    )
    assert graph.bind().body is graph.bind().body


def test_bind_lists_every_error() -> None:
    """One `GraphError` says how many there are on one line, cut, and has them all, warnings too."""
    graph = graph_of("$text(a)", "$text(b)", "$text(c)", "$text(d)", "$foo()", "x\n" * 500 + "$text(e)")
    with pytest.raises(GraphError) as caught:
        graph.bind({"f" * 500: 1, "a": object})
    error = caught.value
    assert len(error.issues) == len(graph.check({"f" * 500: 1, "a": object})) == 7
    assert [issue.severity for issue in error.issues].count("warning") == 1
    assert str(error).startswith("6 problems: 1.f: a placeholder must be")
    assert str(error).endswith("; and 3 more in .issues")
    assert len(str(error)) < 700
    assert "\n" not in str(error)
    assert pickle.loads(pickle.dumps(error)).issues == error.issues


def test_one_error_is_said_plainly() -> None:
    """A single error has no count before it."""
    with pytest.raises(GraphError, match=r'^1\.a: text "a" has no default and is missing in params$'):
        graph_of("$text(a)").bind()


def test_bind_changes_sends_only_what_is_given() -> None:
    """A rerun requires nothing and fills nothing in, but its values are checked."""
    graph = graph_of(*ASKING)
    assert graph.bind_changes() == graph.bind_changes({}) == ()
    assert graph.bind_changes({"sampler": "ddim", "steps": 4}) == (("$steps", "4"), ("#sampler", "ddim"))
    with pytest.raises(GraphError, match=r"2 problems: the graph has no parameter 'stesp'.*ddim"):
        graph.bind_changes({"stesp": 4, "sampler": "x"})


def test_an_issue_is_one_line() -> None:
    """The text of an issue has its place, if there is one, and no line break."""
    assert str(GraphIssue("error", "5.a\nb", "is\nwrong")) == "5.a b: is wrong"
    assert str(GraphIssue("warning", "", "is odd")) == "is odd"


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
WORD = st.text("abcXYZ09_-é", min_size=1, max_size=20)


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


@given(st.text("$textfilchorandomsmp(), ab\n"))
def test_any_string_is_judged(text: str) -> None:
    """A string makes at most one parameter, whose place is known, and at most one issue."""
    graph = graph_of(text)
    assert len(graph.parameters) <= 1
    assert all(parameter.places == ("1.a",) for parameter in graph.parameters)
    assert len(graph.check()) <= 1


@given(WORD, st.none() | st.text("ab ,()$.\n"))
def test_texts_round_trip(name: str, default: str | None) -> None:
    """A text's name and its default, but for blanks around it, come back as they were written."""
    graph = graph_of(f"$text({name})" if default is None else f"$text({name}, {default})")
    stripped = None if default is None else default.strip()
    assert graph.parameters == (Parameter(name=name, kind="text", default=stripped, places=("1.a",)),)
    assert graph.check() == []


@given(WORD, st.lists(WORD, min_size=2, max_size=4, unique=True))
def test_choices_round_trip(name: str, options: list[str]) -> None:
    """A choice's name and options come back as they were written, the first as its default."""
    (parameter,) = graph_of(f"$choice({name}, {', '.join(options)})").parameters
    assert (parameter.name, parameter.choices, parameter.default) == (name, tuple(options), options[0])
    assert not parameter.required

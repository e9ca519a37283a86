"""Parameters: what a value may be, and the form fields that carry it."""

import fractions
import io
import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest

from comfycontrol_async.errors import GraphError
from comfycontrol_async.graph import File, Graph, GraphIssue
from support.checked_graphs import TEMPLATES, Colour, Number, graph_of

IMAGE = {"image": b"png"}
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

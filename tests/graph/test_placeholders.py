"""Placeholders: how each is read, and what is wrong with a faulty one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfycontrol_async.graph import Graph, Parameter
from support.checked_graphs import found, graph_of, node

WORD = st.text("abcXYZ09_-é", min_size=1, max_size=20)


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

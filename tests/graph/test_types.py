"""Typed functions and JSON Schema: right, readable, and the same when a graph is exported again."""

import ast
import asyncio
import importlib.util
import inspect
import json
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfycontrol_async import File, GraphError, WorkflowRun
from comfycontrol_async.graph import Graph, NodeDefinitions
from comfycontrol_async.graph._literals import literal, names, text_literal
from comfycontrol_async.graph.types import write_types

DATA = Path(__file__).parents[1] / "data"
# Written by this module's own test, checked by mypy and pyright with all tests.
WRITTEN = Path(__file__).parents[1] / "typing" / "pictures.py"
GRAPHS = {
    path.name.removesuffix(".template.json"): Graph.load(path) for path in (DATA / "workflows").glob("*.template.json")
}


def save(**inputs: object) -> Graph:
    """Make a graph of one output node."""
    return Graph({"1": {"class_type": "SaveImage", "inputs": inputs}})


def shuffled(graph: Graph, seed: int) -> Graph:
    """Return a graph exported again: its nodes and keys in another order."""
    draw = random.Random(seed)

    def turn(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        keys = list(value)
        draw.shuffle(keys)
        return {key: turn(value[key]) for key in keys}

    return Graph(turn(json.loads(graph.to_json())))


def run_source(source: str, tmp_path: Path) -> ModuleType:
    """Import a module from its source."""
    path = tmp_path / "written.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("written", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Recorder:
    """Stands for a client, and keeps what it is asked to run."""

    def __init__(self) -> None:
        self.calls: list[tuple[Graph, dict[str, Any]]] = []

    async def run(self, graph: Graph, **options: Any) -> str:
        """Record a run."""
        self.calls.append((graph, options))
        return "run"


def test_the_written_file_is_up_to_date() -> None:
    """What is written today is what type checkers see; when it changes, write it again with `write_types`."""
    assert write_types(GRAPHS) == WRITTEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("seed", range(3))
def test_an_export_in_another_order_is_the_same(seed: int) -> None:
    """The order of nodes and keys changes neither source nor schema."""
    for name, graph in GRAPHS.items():
        assert write_types({name: shuffled(graph, seed)}) == write_types({name: graph})
        assert json.dumps(shuffled(graph, seed).json_schema()) == json.dumps(graph.json_schema())
    again = dict(reversed(GRAPHS.items()))
    assert write_types(again) == write_types(GRAPHS)


ODD = {
    "my flow-2.json": save(
        a="$text(my prompt)",
        b="$text(class, 7)",
        c="$text(timeout, 0.5)",
        d="$text(2nd)",
        e='$text(x, say "hi" and \\ it\'s\nso)',
        f="$text(Größe, 1e5)",
        g="$text(___)",
        h="$choice(x-y, a, b)",
        i='$choice(x_y, it\'s, "b", c\\)',
        j=f"$choice(long, {'a' * 60}, {'b' * 60})",
        k="$file(comfy)",
        l="$text(__debug__, nan)",
        m="$text(_MY_FLOW_2_JSON, inf)",
        n="$text(!!!, true)",
        o="$text(ﬁ, 1_0)",
    ),
    "my_flow_2_json": save(a="$text(x)"),
    "MY_FLOW_2_JSON": Graph({"1": {"class_type": "SaveImage", "inputs": {}, "_meta": {"title": 'a """ \\ b\x00'}}}),
    "Graph": save(a="$text(a)"),
    "class": save(a="$text(a)", b="$choice(a, x, y)"),
    "": save(b={"deep": ["a" * 50, "b" * 50, {"c": []}]}),
}


def test_odd_names_and_values(tmp_path: Path) -> None:
    """Any name becomes a valid one of its own, any text a literal, and each value goes to its parameter."""
    module = run_source(write_types(ODD), tmp_path)
    functions = {name: value for name, value in vars(module).items() if inspect.iscoroutinefunction(value)}
    assert set(functions) == {"my_flow_2_json", "my_flow_2_json_", "MY_FLOW_2_JSON", "Graph_", "class_", "workflow"}
    function = functions["my_flow_2_json_"]
    parameters = inspect.signature(function).parameters
    assert set(parameters) == {
        *("comfy", "my_prompt", "class_", "timeout_", "_2nd", "x", "Größe", "___", "x_y", "x_y_", "long", "comfy_"),
        *("__debug___", "_MY_FLOW_2_JSON", "value", "fi", "timeout"),
    }
    recorder = Recorder()
    given = {
        name: b"png" if name == "comfy_" else "x"
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and name != "comfy"
    }
    assert asyncio.run(function(recorder, **given)) == "run"
    ((graph, options),) = recorder.calls
    assert graph == ODD["my flow-2.json"]
    assert options["timeout"] is None
    defaults = {parameter.name: parameter.default for parameter in graph.parameters if parameter.default is not None}
    sent = graph.bind(options["params"]).fields
    assert {name.lstrip("$#"): value for name, value in sent if name.lstrip("$#") in defaults} == {
        **defaults,
        "Größe": "1e5",
    }


def test_every_source_is_formatted(tmp_path: Path) -> None:
    """Formatters leave it as it is, at the line lengths that people use."""
    path = tmp_path / "written.py"
    path.write_text(write_types({**GRAPHS, **ODD}), encoding="utf-8")
    for length in ("88", "100", "120"):
        command = [sys.executable, "-m", "ruff", "format", "--isolated", "--diff", "--line-length", length, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F,I,B,UP,N,D,RUF,PIE", str(path)]
    done = subprocess.run(
        [*command, "--ignore", "D203,D213,D4,N,RUF001,RUF002"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_type_checkers_have_nothing_to_say(tmp_path: Path, checker: str) -> None:
    """The odd ones are clean in strict mode, and so is what definitions make exact."""
    pytest.importorskip(checker)  # pyright comes with the group `ci` only
    definitions = NodeDefinitions.load(DATA / "comfyui" / "object_info.json")
    (tmp_path / "odd.py").write_text(write_types(ODD), encoding="utf-8")
    (tmp_path / "exact.py").write_text(write_types(GRAPHS, node_definitions=definitions), encoding="utf-8")
    config = {"typeCheckingMode": "strict", "include": ["odd.py", "exact.py"]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    options = {
        "mypy": ["--strict", "odd.py", "exact.py"],
        "pyright": ["--pythonpath", sys.executable, "-p", str(tmp_path)],
    }
    command = [sys.executable, "-m", checker, *options[checker]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_types_of_arguments(tmp_path: Path) -> None:
    """Without definitions a number may be a text; with them it is what its input takes."""
    module = run_source(write_types(GRAPHS), tmp_path)
    hints = get_type_hints(module.sd01_txt2img)
    assert hints["prompt"] is str
    assert hints["steps"] == float | str
    assert hints["scheduler"] == Literal["normal", "karras"]
    assert hints["return"] is WorkflowRun
    assert get_type_hints(module.mf03_load_blend)["image"] == File | Path | bytes
    definitions = NodeDefinitions.load(DATA / "comfyui" / "object_info.json")
    module = run_source(write_types(GRAPHS, node_definitions=definitions), tmp_path)
    hints = get_type_hints(module.sd01_txt2img)
    assert (hints["prompt"], hints["steps"], hints["cfg"]) == (str, int, float)
    signature = inspect.signature(module.sd01_txt2img)
    assert {name: parameter.default for name, parameter in signature.parameters.items()} == {
        "comfy": inspect.Parameter.empty,
        "prompt": inspect.Parameter.empty,
        "cfg": 7.0,
        "height": 256,
        "negative": "blurry",
        "sampler": "euler",
        "scheduler": "normal",
        "steps": 4,
        "width": 256,
        "timeout": None,
    }
    assert "prompt: text of Positive (CLIPTextEncode)" in module.sd01_txt2img.__doc__  # 3.13 strips the indent


def test_a_number_for_several_inputs_is_what_all_take(tmp_path: Path) -> None:
    """One parameter for an INT and a STRING is neither; a BOOLEAN says no by an empty text."""
    definitions = NodeDefinitions(
        {
            "To": {
                "input": {"optional": {"i": ["INT"], "f": ["FLOAT"], "s": ["STRING"], "b": ["BOOLEAN"]}},
                "output": [],
                "output_node": True,
            }
        }
    )
    inputs = {"i": "$text(a, 1)", "s": "$text(a, 1)", "f": "$text(c, 2)", "b": "$text(d, true)"}
    graph = Graph({"1": {"class_type": "To", "inputs": inputs}})
    hints = get_type_hints(run_source(write_types({"f": graph}, node_definitions=definitions), tmp_path).f)
    assert (hints["a"], hints["c"], hints["d"]) == (float | str, float, Literal["true", ""])


def test_what_cannot_be_written() -> None:
    """A graph with errors is named, and nothing is not written."""
    with pytest.raises(GraphError, match=r"^'bad': the graph is empty"):
        write_types({"bad": Graph({})})
    with pytest.raises(GraphError, match="no graph to write"):
        write_types({})


@given(st.text())
def test_texts_round_trip(text: str) -> None:
    """A literal says the text."""
    assert ast.literal_eval(text_literal(text)) == text


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.integers(0, 20))
def test_values_round_trip(value: Any, indent: int) -> None:
    """A literal says the value, at any depth."""
    assert ast.literal_eval(literal(value, indent)) == value


@given(st.sets(st.text(max_size=8), max_size=8))
def test_names_are_valid_and_distinct(wanted: set[str]) -> None:
    """Each gets a name of its own that Python takes as it is, and the same one in whatever order they come."""
    given = names(wanted, {"comfy"}, "value")
    assert set(given) == wanted
    assert len({*given.values()}) == len(wanted)
    ast.parse(f"def f(*, {', '.join(given.values())}): pass" if wanted else "")
    assert names(sorted(wanted, reverse=True), {"comfy"}, "value") == given
    assert all(
        given[name] == name
        for name in wanted
        if name.isascii() and name.isidentifier() and name[0].isupper() and name not in ("None", "True", "False")
    )


# JSON Schema


def test_json_schema() -> None:
    """An object with a property for each parameter, required ones first."""
    graph = save(a="$text(prompt)", b="$choice(sampler, euler, ddim)", c="$file(image)", d="$text(steps, 20)")
    text = {"type": ["string", "number", "boolean"]}
    assert graph.json_schema() == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "image": {"type": "string", "format": "binary", "description": "c of SaveImage"},
            "prompt": {**text, "description": "a of SaveImage"},
            "sampler": {
                "type": "string",
                "enum": ["euler", "ddim"],
                "default": "euler",
                "description": "b of SaveImage",
            },
            "steps": {**text, "description": "d of SaveImage", "default": "20"},
        },
        "required": ["image", "prompt"],
        "additionalProperties": False,
    }
    assert list(graph.json_schema()["properties"]) == ["image", "prompt", "sampler", "steps"]
    assert save().json_schema()["properties"] == {}


def test_one_name_for_a_text_and_a_choice_is_one_property() -> None:
    """The choice's options hold for both."""
    for graph in (save(a="$text(x)", b="$choice(x, p, q)"), save(b="$text(x)", a="$choice(x, p, q)")):
        assert graph.json_schema()["properties"]["x"]["enum"] == ["p", "q"]


@pytest.mark.parametrize(
    ("value", "text"), [(1e308, "1e308"), (-1e16, "-1e16"), (1e-5, "1e-05"), (0.5, "0.5"), (True, "True"), (96, "96")]
)
def test_numbers(value: float, text: str) -> None:
    """Numbers stand as formatters leave them."""
    assert literal(value, 0) == text

"""`comfycontrol check` and `types`."""

import json
from pathlib import Path

import pytest

from comfycontrol_async.testing import LocalServer
from support.command_line import BLEND, TXT2IMG, UI_FORMAT, call, errors

DEFINITIONS = {
    "SaveImage": {
        "input": {"required": {"images": ["IMAGE"], "filename_prefix": ["STRING", {"default": "ComfyUI"}]}},
        "output": [],
        "output_node": True,
    },
    "EmptyImage": {
        "input": {"required": {"width": ["INT", {"default": 512, "min": 1, "max": 16384}]}},
        "output": ["IMAGE"],
        "output_node": False,
    },
}
SAVE = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}


@pytest.fixture
def definitions(tmp_path: Path) -> str:
    """Write what a ComfyUI's /object_info says, and return the path."""
    path = tmp_path / "object_info.json"
    path.write_text(json.dumps(DEFINITIONS))
    return str(path)


async def test_parameters() -> None:
    """What a graph asks for is listed, without a token and without a request."""
    result = await call(None, "check", TXT2IMG)
    assert result.exit_code == 0, result.output
    names = {line.split()[0] for line in result.stdout.splitlines()}
    assert {"prompt", "sampler"} <= names


async def test_values() -> None:
    """With values, they are checked too; errors end with 2."""
    assert (await call(None, "check", TXT2IMG, "-p", "prompt=x")).exit_code == 0
    result = await call(None, "check", TXT2IMG, "-p", "promt=x")
    assert result.exit_code == 2
    assert any("did you mean" in line for line in errors(result))
    assert (await call(None, "check", UI_FORMAT)).exit_code == 2


async def test_json() -> None:
    """--json is one document of parameters and issues."""
    result = await call(None, "check", TXT2IMG, "-p", "promt=x", "--json")
    document = json.loads(result.stdout)
    assert sorted(document) == ["issues", "parameters"]
    assert {"severity", "place", "message"} == {*document["issues"][0]}
    assert {"name", "kind", "default", "choices", "places"} == {*document["parameters"][0]}


async def test_definitions(definitions: str, tmp_path: Path) -> None:
    """With node definitions, what that ComfyUI would refuse is found."""
    path = tmp_path / "graph.json"
    path.write_text(json.dumps({"1": {"class_type": "EmptyImage", "inputs": {"width": 0}}, "2": SAVE}))
    assert (await call(None, "check", str(path))).exit_code == 0
    result = await call(None, "check", str(path), "--object-info", definitions)
    assert result.exit_code == 2
    assert ["1.width" in line for line in errors(result)] == [True]


async def test_runner_that_is_no_comfyui() -> None:
    """The definitions of a runner are asked for at its endpoint; a server that is none is one line."""
    async with LocalServer() as server:
        add = await call(server, "runners", "add", "desk", server.url)
        result = await call(server, "check", TXT2IMG, "--runner", add.stdout.strip())
    assert result.exit_code != 0
    assert len(errors(result)) == 1


async def test_types(tmp_path: Path) -> None:
    """The module has a function for each file, and is the same again."""
    result = await call(None, "types", TXT2IMG, BLEND)
    assert result.exit_code == 0, result.output
    compile(result.stdout, "written", "exec")
    assert result.stdout.count("async def ") == 2
    target = tmp_path / "pictures.py"
    assert (await call(None, "types", TXT2IMG, BLEND, "-o", str(target))).exit_code == 0
    assert target.read_text(encoding="utf-8") == result.stdout
    assert (await call(None, "types", TXT2IMG, "-o", str(tmp_path / "absent" / "x.py"))).exit_code == 1
    assert (await call(None, "types", UI_FORMAT)).exit_code == 2

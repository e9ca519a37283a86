"""`comfycontrol templates`."""

import json
from pathlib import Path

from comfycontrol_async import Graph
from comfycontrol_async.testing import LocalServer
from support.command_line import BLEND, TXT2IMG, UI_FORMAT, call, errors


async def test_life_of_a_template(tmp_path: Path) -> None:
    """A graph is stored, listed, shown, written back to a file, and changed."""
    async with LocalServer() as server:
        result = await call(server, "templates", "push", TXT2IMG, "--name", "text", "--description", "from text")
        assert result.exit_code == 0, result.output
        id = result.stdout.strip()
        assert server.templates[id]["description"] == "from text"
        listing = await call(server, "templates", "ls")
        assert id in listing.stdout
        shown = await call(server, "templates", "show", id, "-o", str(tmp_path / "graph.json"))
        assert "prompt (text)" in shown.stdout
        assert Graph.load(tmp_path / "graph.json") == Graph.load(TXT2IMG)
        again = await call(server, "templates", "show", id, "-o", str(tmp_path / "graph.json"))
        assert again.exit_code == 1
        assert ["File exists" in line for line in errors(again)] == [True]
        assert json.loads((await call(server, "templates", "show", id, "--json")).stdout)["body"]
        changed = await call(server, "templates", "update", id, "--graph", BLEND, "--name", "blend")
        assert changed.stdout.strip() == id
        assert server.templates[id]["name"] == "blend"
        assert Graph(server.templates[id]["body"]) == Graph.load(BLEND)


async def test_default_names() -> None:
    """Without a name a template gets that of its file."""
    async with LocalServer() as server:
        id = (await call(server, "templates", "push", BLEND)).stdout.strip()
        assert server.templates[id]["name"] == "mf03_load_blend.template"


async def test_errors() -> None:
    """A graph that cannot run, and a change of nothing, spend no request."""
    async with LocalServer() as server:
        assert (await call(server, "templates", "push", UI_FORMAT)).exit_code == 2
        assert (await call(server, "templates", "update", "00000000-0000-4000-a000-000000000000")).exit_code == 2
        assert not server.requests
        assert "there are no templates" in (await call(server, "templates", "ls")).stderr

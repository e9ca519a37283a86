"""A function written by `write_types`, run against a server."""

import importlib.util
from pathlib import Path

from comfycontrol_async import ComfyControl
from comfycontrol_async.testing import LocalServer

WRITTEN = Path(__file__).parents[1] / "typing" / "pictures.py"


async def test_a_written_function_runs(server: LocalServer, comfy: ComfyControl) -> None:
    """It runs its graph with the values given and the defaults of the rest, and returns the completed run."""
    spec = importlib.util.spec_from_file_location("pictures", WRITTEN)
    assert spec is not None
    assert spec.loader is not None
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    run = await pictures.mf01_empty_save(comfy, width=32.0, timeout=60)
    assert run.status == "completed"
    stored = (await comfy.workflows.get(run.id)).workflow_params
    values = {"$text(width)": "32", "$text(height)": "256", "$text(color)": "3368601", "$text(prefix)": "mf01"}
    assert {pair[0]: pair[1] for pair in stored} == values

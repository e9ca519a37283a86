"""The package under test is the one that is meant: the source beside the tests, else an installed wheel."""

import importlib.metadata
import sysconfig
from pathlib import Path

import pytest

import comfycontrol_async

FOUND = Path(comfycontrol_async.__file__).resolve().parent
SOURCE = Path(__file__).resolve().parents[1] / "comfycontrol_async"
DISTRIBUTION = "comfycontrol-async"


def test_place() -> None:
    """Beside its source the tests run on the source; alone they run on what is installed, whole and unpacked."""
    installed = Path(sysconfig.get_path("purelib")).resolve() / "comfycontrol_async"
    assert (SOURCE if SOURCE.exists() else installed) == FOUND


def test_version() -> None:
    """What is installed says the version that the package says."""
    assert importlib.metadata.version(DISTRIBUTION) == comfycontrol_async.__version__


@pytest.mark.skipif(SOURCE.exists(), reason="the source is not installed file by file")
def test_wheel_is_whole() -> None:
    """A wheel carries what is no module too: types, script, licence, entry points."""
    files = {str(path) for path in importlib.metadata.files(DISTRIBUTION) or ()}
    assert {"comfycontrol_async/py.typed", "comfycontrol_async/limits/acquire.lua"} <= files
    assert not any(path.startswith(("tests/", "benchmarks/")) for path in files)
    names = {point.name for point in importlib.metadata.distribution(DISTRIBUTION).entry_points}
    assert names == {"comfycontrol", "comfycontrol_async"}
    assert any(path.endswith("licenses/LICENSE") for path in files)

"""The reference that pdoc renders: nothing public is left out, and everything in it has its words."""

import inspect
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import comfycontrol_async
from comfycontrol_async import ComfyControl, limits, models, resources, testing

if TYPE_CHECKING:
    from pdoc.doc import Doc, Namespace

pytestmark = pytest.mark.slow  # pdoc parses the package, and ruff has looked for missing docstrings before

CONTRIBUTING = Path(__file__).parents[1] / ".github" / "CONTRIBUTING.md"
# What the contract calls public beside the root (section "Shape" of how we write it, in CONTRIBUTING).
PUBLIC = (comfycontrol_async, limits, models, resources, testing)


def rendered_modules() -> list[str]:
    """Return the modules that the command in CONTRIBUTING renders."""
    command = re.search(
        r"^python -c .*pdoc\.pdoc.* in \"([a-z. ]+)\"\.split\(\)", CONTRIBUTING.read_text(encoding="utf-8"), re.M
    )
    assert command is not None
    return ["comfycontrol_async", *(f"comfycontrol_async.{name}" for name in command[1].split())]


def members(doc: "Namespace[Any]") -> "Iterator[Doc[Any]]":
    """Yield everything that a page shows, classes' own members included."""
    from pdoc.doc import Class  # only where it is used: each worker of the suite collects this file

    for member in doc.members.values():
        if member.name.startswith("_") and member.name != "__init__":
            continue
        yield member
        if isinstance(member, Class):
            yield from members(member)


@pytest.fixture(scope="module")
def reference() -> "dict[str, Doc[Any]]":
    """Return what the reference shows, by qualified name."""
    from pdoc.doc import Module

    if not CONTRIBUTING.exists():
        pytest.skip("the reference is made from a checkout")
    for lazy in (comfycontrol_async, testing):  # as the stars of the command do: they load a name when it is used
        for name in lazy.__all__:
            getattr(lazy, name)
    found: dict[str, Doc[Any]] = {}
    for name in rendered_modules():
        if name.endswith(".fastapi") and find_spec("fastapi") is None:  # of the group `examples`
            continue
        for member in members(Module.from_name(name)):
            found.setdefault(member.qualname, member)
    return found


def test_nothing_public_is_left_out(reference: "dict[str, Doc[Any]]") -> None:
    """Every exported name is there, and every public method of its classes."""
    missing = []
    for module in PUBLIC:
        for name in module.__all__:
            value = getattr(module, name)
            if name not in reference and name != "__version__":
                missing.append(name)
            for method, function in inspect.getmembers(value, inspect.isfunction) if inspect.isclass(value) else ():
                public = not method.startswith("_") and function.__module__.startswith("comfycontrol_async")
                if public and f"{name}.{method}" not in reference:
                    missing.append(f"{name}.{method}")
    assert missing == []


def test_every_endpoint_is_there(reference: "dict[str, Doc[Any]]") -> None:
    """The 22 endpoints are methods of the resources, each with its words."""
    comfy = ComfyControl("cfc_reference", base_url="https://reference.test")
    found = []
    for resource in (comfy.user, comfy.runners, comfy.managed_runners, comfy.workflows, comfy.templates):
        for name, _ in inspect.getmembers(type(resource), inspect.isfunction):
            if not name.startswith("_"):
                found.append(f"{type(resource).__name__}.{name}")
    assert len(found) == 22
    assert [name for name in found if not reference[name].docstring] == []


def test_everything_has_its_words(reference: "dict[str, Doc[Any]]") -> None:
    """Classes, functions and properties of ours say what they are; plain fields are described by their class."""
    bare = []
    for name, doc in reference.items():
        ours = doc.modulename.startswith("comfycontrol_async") and not doc.name.startswith("__")
        described = doc.kind in ("class", "function")
        if ours and described and not doc.docstring.strip():
            bare.append(name)
    assert bare == []

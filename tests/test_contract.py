"""What must stay true of the package as a whole: layers, exports, names, and what an import costs."""

import ast
import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import attrs
import pytest

import comfycontrol_async
from comfycontrol_async import ComfyControl, errors, limits, models, resources, testing
from comfycontrol_async.limits.file import FileLimiter

PACKAGE = "comfycontrol_async"
ROOT = Path(comfycontrol_async.__file__).parent

# Lowest first: a room imports only from rooms below its own, whether at once, lazily or for typing.
# What the files of one room import of each other is theirs, as long as there is no circle.
LAYERS = (
    "errors _settings _clock _loop",
    "graph",
    "models",
    "limits",
    "events",
    "_http",
    "resources",
    "runs",
    "batch",
    "_core _client",
    "ext cli",
)
# Files beside each other: which imports which is held by the test of circles.
GROUND = {*LAYERS[0].split()}
# The package root, which re-exports, and `python -m`, which starts the command line.
ENTRANCES = ("", "__main__")

# Where each library may be imported; those that come with Python and ourselves aside.
LIBRARIES = {
    "attrs": "*",
    # One GET to a ComfyUI, whose node definitions lie below the transport; it says why in its first lines.
    "aiohttp": "_http _client testing graph._fetch",
    "multidict": "_http testing",
    "yarl": "_http resources testing",
    "cattrs": "_http._convert",
    "orjson": "_http._decode",
    "redis": "limits.redis",
    "pyarrow": "batch._tables",
    "fastapi": "ext.fastapi",
    "typer": "cli",
    "rich": "cli",
    "uvloop": "cli",
    "opentelemetry": "ext.otel",
    "pytest": "testing",
    "pytest_asyncio": "testing",
}


@attrs.frozen
class Module:
    """A module of the package: its name without the package's, and its parsed source."""

    name: str
    path: Path
    tree: ast.Module = attrs.field(repr=False)

    @property
    def place(self) -> str:
        """Its room: the folder below the package, or the module itself where it stands in the package's root."""
        return self.name.partition(".")[0]

    def imported(self) -> Iterator[str]:
        """Yield the full names of what it imports, wherever in it."""
        full = f"{PACKAGE}.{self.name}".rstrip(".").split(".")
        package = full if self.path.name == "__init__.py" else full[:-1]
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) - node.level + 1] if node.level else []
                base = ".".join([*above, *filter(None, [node.module])])
                yield from (f"{base}.{alias.name}" for alias in node.names)


@functools.cache
def modules() -> dict[str, Module]:
    """Parse the package, once and only where it is asked for: it takes half a second."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path, ast.parse(path.read_text(encoding="utf-8")))
    return found


LAYER = {name: number for number, names in enumerate(LAYERS) for name in names.split()}


def own(full: str) -> Module | None:
    """Return the module of ours that an imported name comes from, None when it is not ours."""
    if full != PACKAGE and not full.startswith(f"{PACKAGE}."):
        return None
    name = full.removeprefix(PACKAGE).removeprefix(".")
    while name not in modules():
        name = name.rpartition(".")[0]
    return modules()[name]


# Layers


def test_every_module_has_a_room() -> None:
    """Each module belongs to a room of the table, to the testing kit, or is an entrance."""
    assert {module.place for module in modules().values()} - {*LAYER, *ENTRANCES, "testing"} == set()


def test_layers() -> None:
    """Imports point down the layer table: never up or sideways, lazily or for typing."""
    faults = []
    for module in modules().values():
        if module.place in (*ENTRANCES, "testing"):
            continue
        for full in module.imported():
            target = own(full)
            if target is None or target.place == module.place:
                continue
            # The command line and the integrations are clients of the facade and of the testing kit.
            facade = module.place in ("cli", "ext") and target.place in ("", "testing")
            above = 0 if facade else LAYER.get(target.place, 99)
            places = {module.place, target.place}
            together = places == {"_client", "_core"} or places <= GROUND
            if above > LAYER[module.place] or (above == LAYER[module.place] and not together):
                faults.append(f"{module.name} imports {full}")
    assert faults == []


def test_no_circles_within_a_room() -> None:
    """The files of a room, and those of the ground, form an order too: none reaches itself by its imports."""
    edges: dict[str, set[str]] = {}
    for module in modules().values():
        targets = {target.name for target in map(own, module.imported()) if target is not None}
        # A package's `__init__` only re-exports what stands below it.
        edges[module.name] = {name for name in targets if not module.name.startswith(f"{name}.")} - {module.name}
    circles = []
    for start in edges:
        seen: set[str] = set()
        ahead = list(edges[start])
        while ahead:
            name = ahead.pop()
            if name not in seen and name:
                seen.add(name)
                ahead.extend(edges[name])
        if start in seen:
            circles.append(start)
    assert circles == []


def test_testing_is_apart() -> None:
    """The testing kit knows nothing of the client but the clock and what ComfyUI makes of a graph.

    So it cannot agree with the client's mistakes; of node definitions there is only one check.
    """
    known = {}
    for module in modules().values():
        if module.place == "testing":
            targets = [target for target in map(own, module.imported()) if target and target.place != "testing"]
            known[module.name] = {target.name for target in targets}
    # The plugin makes a client for a fixture.
    assert known.pop("testing.pytest_plugin") == {""}
    assert set().union(*known.values()) == {"_clock", "graph", "graph._structure_checks", "graph._validate"}


def test_cli_is_a_client_of_the_facade() -> None:
    """The command line uses what every user can use."""
    faults = []
    for module in modules().values():
        for full in module.imported() if module.place == "cli" else ():
            target = own(full)
            if target is not None and target.place != "cli" and "._" in f".{target.name}":
                faults.append(f"{module.name} imports {full}")
    assert faults == []


def test_libraries() -> None:
    """A library is imported only where it belongs; aiohttp's server only by the testing kit."""
    faults = []
    for module in modules().values():
        for full in module.imported():
            library = full.partition(".")[0]
            if library in sys.stdlib_module_names or library == PACKAGE:
                continue
            places = LIBRARIES.get(library, "").split()
            server = full.startswith(("aiohttp.web", "aiohttp.test_utils"))
            allowed = "*" in places or bool({module.place, module.name} & {*places})
            if not allowed or (server and module.place != "testing"):
                faults.append(f"{module.name} imports {full}")
    assert faults == []


def test_aiohttp_stands_only_in_annotations_of_the_client() -> None:
    """The client takes aiohttp's objects and passes them on; only the transport uses them."""
    tree = modules()["_client"].tree
    annotations = [
        annotation
        for node in ast.walk(tree)
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if annotation is not None
    ]
    annotated = {id(node) for annotation in annotations for node in ast.walk(annotation)}
    used = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "aiohttp"]
    assert used
    assert all(id(node) in annotated for node in used)


TIME = {"time", "datetime.now", "datetime.utcnow", "datetime.today", "asyncio.sleep", "loop.time", "loop.call_later"}


def test_only_the_clock_tells_time() -> None:
    """Everything that needs time takes a `Clock`, so that tests can give it a fake one."""
    found: dict[str, set[str]] = {}
    for module in modules().values():
        used = {ast.unparse(node) for node in ast.walk(module.tree) if isinstance(node, ast.Attribute)}
        found[module.name] = TIME & (used | set(module.imported()))
    assert found["_clock"] >= {"time", "datetime.now", "asyncio.sleep"}
    assert {name for name, used in found.items() if used and modules()[name].place not in ("cli", "testing")} == {
        "_clock"
    }


def test_models_keep_their_types() -> None:
    """Models have no `from __future__ import annotations`: cattrs needs the types at run time."""
    files = [module for module in modules().values() if module.name.startswith("models")]
    assert len(files) > 5
    assert not any("__future__.annotations" in set(module.imported()) for module in files)


def test_size() -> None:
    """A module over 400 lines is two."""
    sizes = {name: len(module.path.read_text(encoding="utf-8").splitlines()) for name, module in modules().items()}
    assert {name: size for name, size in sizes.items() if size > 400} == {}


def test_first_lines() -> None:
    """Every module says in its first line what it is for."""
    first = {name: (ast.get_docstring(module.tree) or "").partition("\n")[0] for name, module in modules().items()}
    assert [name for name, line in first.items() if not line.endswith((".", ":"))] == []


# Exports

PUBLIC: dict[str, ModuleType] = {
    "": comfycontrol_async,
    "errors": errors,
    "limits": limits,
    "models": models,
    "resources": resources,
    "testing": testing,
}


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "errors"])
def test_all_is_sorted_and_true(name: str) -> None:
    """`__all__` is sorted, has no name twice, and each name is there."""
    module = PUBLIC[name]
    assert list(module.__all__) == sorted(set(module.__all__))
    for exported in module.__all__:
        assert hasattr(module, exported)


@pytest.mark.parametrize("name", ["limits", "models", "resources"])
def test_packages_only_export(name: str) -> None:
    """An `__init__` re-exports, and does nothing else."""
    for node in modules()[name].tree.body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        exports = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        assert docstring or exports or isinstance(node, (ast.Import, ast.ImportFrom)), ast.unparse(node)


@pytest.mark.parametrize("package", [comfycontrol_async, testing], ids=["root", "testing"])
def test_lists_of_exports_agree(package: ModuleType) -> None:
    """What type checkers see, `__all__`, and where each name is loaded from."""
    place = package.__name__
    (checked,) = (
        node
        for node in modules()[place.removeprefix(PACKAGE).removeprefix(".")].tree.body
        if isinstance(node, ast.If) and not node.orelse and len(node.body) > 2
    )
    seen = {
        alias.name: f"{node.module}".removeprefix(f"{place}.")
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == package._HOME_OF
    assert {*seen} | ({"__version__"} if package is comfycontrol_async else set()) == {*package.__all__}
    assert {*package.__all__} <= {*dir(package)}


def test_exports_are_loaded_when_used() -> None:
    """Every run of pytest loads our plugin where we are installed, and pays for nothing else."""
    code = f"""
import sys, {PACKAGE}.testing.pytest_plugin
assert not [name for name in sys.modules if name.startswith(("aiohttp", "cattrs"))]
from {PACKAGE} import *
from {PACKAGE}.testing import *
assert {PACKAGE}.limits.LocalLimiter is LocalLimiter
assert {PACKAGE}.testing.FakeClock is FakeClock
for package in ({PACKAGE}, {PACKAGE}.testing):
    try:
        package.Nothing
    except AttributeError as error:
        print(error)
"""
    result = run(code)
    expected = [f"module '{place}' has no attribute 'Nothing'" for place in (PACKAGE, f"{PACKAGE}.testing")]
    assert (result.stdout.splitlines(), result.stderr) == (expected, "")


def test_facade_exports_everything_public() -> None:
    """Every error, model and limiter can be had from the root; resources are attributes of a client."""
    tree = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    # The base of the enums is no word of the API.
    expected = tree | {*models.__all__} - {"OpenEnum"} | {*limits.__all__}
    assert expected - {*comfycontrol_async.__all__} == set()


def _classes(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type):
        yield annotation
    for argument in get_args(annotation):
        yield from _classes(argument)


def test_facade_exports_what_its_signatures_name() -> None:
    """Whatever a public method takes or gives can be imported from the root."""
    named: set[str] = set()
    for exported in comfycontrol_async.__all__:
        owner = getattr(comfycontrol_async, exported)
        if not inspect.isclass(owner):
            continue
        for name, method in inspect.getmembers(owner, inspect.isfunction):
            if name.startswith("_") and name not in ("__init__", "__aiter__"):
                continue
            for annotation in typing.get_type_hints(method).values():
                named |= {cls.__name__ for cls in _classes(annotation) if cls.__module__.partition(".")[0] == PACKAGE}
    assert "Workflow" in named
    # The mark of an option that was left out, and what only the client's own parts hand to each other.
    assert named - {*comfycontrol_async.__all__} <= {"Unset", "RunTools", "Ledger", "SlotStore", "Clock", "BoundGraph"}


# Names and parameters

NAMES = """
    ComfyControl Graph NodeDefinitions Parameter GraphIssue File Page Pager RetryPolicy Timeouts WatchPolicy WorkflowRun
    User Runner ManagedRunner RunnerStats Workflow WorkflowSummary WorkflowUpdate WorkflowStatus RunnerStatus Output
    Template TemplateSummary
    ComfyControlError ConfigurationError InvalidArgumentError GraphError ClientClosedError ClientLoopError
    TransportError ConnectionFailedError ResponseLostError RequestTimeoutError
    APIError BadRequestError AuthenticationError PermissionDeniedError NotFoundError RateLimitedError ServerError
    ResponseFormatError RateLimitWaitError SubmitOutcomeUnknownError
    WorkflowError WorkflowFailedError WorkflowCancelledError WorkflowInvalidError WaitTimeoutError
    Limiter LocalLimiter Permit Priority RateLimitSnapshot MapResult OutputFile ObjectStore
"""

# "Owner.method": its parameters in order; those behind the star are given by name only.
SIGNATURES = {
    "ComfyControl.__init__": "token * base_url session limiter retry timeouts watch max_rate_limit_wait user_agent "
    "proxy trace_configs",
    "ComfyControl.aclose": "",
    "ComfyControl.__aenter__": "",
    "ComfyControl.with_options": "* timeouts retry priority max_rate_limit_wait",
    "ComfyControl.request": "method path * params json",
    "ComfyControl.submit": "graph * name params tags",
    "ComfyControl.run": "graph * name params tags timeout on_update on_cancel",
    "ComfyControl.map": "graph rows * key name tags concurrency ordered outputs download_to journal timeout "
    "max_failures on_progress",
    "ComfyControl.get_run": "id",
    "WorkflowRun.wait": "timeout",
    "WorkflowRun.updates": "",
    "WorkflowRun.refresh": "",
    "WorkflowRun.cancel": "",
    "WorkflowRun.rerun": "params",
    "WorkflowRun.outputs": "",
    "WorkflowRun.files": "",
    "WorkflowRun.download": "target * template overwrite",
    "OutputFile.chunks": "",
    "OutputFile.read": "max_bytes",
    "OutputFile.save": "path overwrite",
    "Graph.__init__": "nodes",
    "Graph.load": "path",
    "Graph.set": "node input value",
    "Graph.check": "params * node_definitions",
    "NodeDefinitions.load": "path",
    "NodeDefinitions.fetch": "url headers",
    "Graph.to_json": "",
    "Graph.json_schema": "",
    "Pager.page": "number",
    "Pager.all": "",
    "Pager.first": "",
    "Pager.__aiter__": "",
    "RetryPolicy.__init__": "* attempts max_elapsed base_delay max_delay",
    "Timeouts.__init__": "* connect read total",
    "WatchPolicy.__init__": "* min_interval max_interval max_streams",
    "LocalLimiter.__init__": "limit period * pacing",
    "LocalLimiter.acquire": "priority * max_wait",
    "LocalLimiter.cool_down": "seconds",
    "LocalLimiter.snapshot": "",
    "Permit.arrived": "",
    "Permit.refund": "",
    "APIError.__init__": "status message method path request_id retry_after",
    "RateLimitWaitError.__init__": "needed allowed",
}

# attribute of a client -> method -> parameters
RESOURCES = {
    "user": {"get": ""},
    "runners": {
        "list": "* status per_page",
        "get": "id",
        "create": "name endpoint * headers tags",
        "update": "id * name endpoint headers tags status",
        "interrupt": "id",
        "history": "id",
    },
    "managed_runners": {"list": "* per_page", "get": "id", "history": "id", "stats": "id"},
    "workflows": {
        "list": "* status per_page",
        "get": "id",
        "create": "graph * name params tags",
        "cancel": "id",
        "rerun": "id * params",
        "outputs": "id",
        "subscribe": "id",
    },
    "templates": {
        "list": "* per_page",
        "get": "id",
        "create": "name description graph",
        "update": "id * name description graph",
    },
}

DEFAULTS: dict[str, dict[str, Any]] = {
    "RetryPolicy.__init__": {"attempts": 5, "max_elapsed": 120.0, "base_delay": 0.5, "max_delay": 8.0},
    "Timeouts.__init__": {"connect": 10.0, "read": 30.0, "total": 60.0},
    "WatchPolicy.__init__": {"min_interval": 1.0, "max_interval": 10.0, "max_streams": 8},
    "LocalLimiter.__init__": {"limit": 40, "period": 10.0, "pacing": "auto"},
    "ComfyControl.run": {"timeout": None, "on_update": None, "on_cancel": "detach"},
    "ComfyControl.map": {"name": "{key}", "concurrency": 100, "ordered": False, "outputs": True},
    "WorkflowRun.download": {"template": "{name}-{index:03}{ext}", "overwrite": False},
}


def written(function: Any, contract: str) -> str:
    """Write a function's parameters as the tables above do, without further ones that may be given by name."""
    words = []
    for parameter in inspect.signature(function).parameters.values():
        by_name = parameter.kind is parameter.KEYWORD_ONLY
        if parameter.name == "self" or (
            by_name and parameter.default is not parameter.empty and parameter.name not in contract.split()
        ):
            continue
        if by_name and "*" not in words:
            words.append("*")
        words.append(parameter.name)
    return " ".join(words)


def method(name: str) -> Any:
    """Return "Owner.method" of the facade."""
    owner, _, attribute = name.partition(".")
    return getattr(getattr(comfycontrol_async, owner), attribute)


@pytest.mark.parametrize("name", NAMES.split())
def test_names(name: str) -> None:
    """Every name of the contract is exported at the root."""
    assert name in comfycontrol_async.__all__


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name: str) -> None:
    """Other programs are written against these parameters."""
    assert written(method(name), SIGNATURES[name]) == SIGNATURES[name]


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults(name: str) -> None:
    """Other programs rely on these defaults."""
    parameters = inspect.signature(method(name)).parameters
    assert {key: parameters[key].default for key in DEFAULTS[name]} == DEFAULTS[name]


@pytest.mark.parametrize(
    ("resource", "name"), [(resource, name) for resource, methods in RESOURCES.items() for name in methods]
)
def test_resources(resource: str, name: str) -> None:
    """A client has every documented endpoint, under the verbs of the contract."""
    client = ComfyControl("cfc_contract", base_url="https://contract.test")
    contract = RESOURCES[resource][name]
    assert written(getattr(getattr(client, resource), name), contract) == contract


def test_resource_endpoints_are_all() -> None:
    """There are as many calls as the API documents endpoints."""
    assert sum(map(len, RESOURCES.values())) == 22


def test_attributes() -> None:
    """A client tells its limiter and its address, and the fields of models and snapshots are those of the contract."""
    client = ComfyControl("cfc_contract", base_url="https://contract.test")
    assert isinstance(client.limiter, FileLimiter)
    assert client.base_url == "https://contract.test"
    assert {field.name for field in attrs.fields(comfycontrol_async.Page)} == {
        *("items", "total", "number", "per_page", "invalid_items")
    }
    assert {field.name for field in attrs.fields(comfycontrol_async.Parameter)} >= {
        *("name", "kind", "default", "choices", "places")
    }
    assert [field.name for field in attrs.fields(comfycontrol_async.GraphIssue)] == ["severity", "place", "message"]
    assert {field.name for field in attrs.fields(comfycontrol_async.RateLimitSnapshot)} >= {
        *("limit", "period", "used", "available", "waiting", "cooldown", "pacing", "next_free_in")
    }
    assert {"id", "name", "status", "workflow"} <= set(dir(comfycontrol_async.WorkflowRun))
    assert {"parameters", "nodes"} <= set(dir(comfycontrol_async.Graph))
    priorities = comfycontrol_async.Priority
    assert priorities.INTERACTIVE > priorities.NORMAL > priorities.BULK


def test_testing_kit() -> None:
    """Users write their tests against these names."""
    server = inspect.signature(testing.LocalServer).parameters
    assert {"limit", "period", "cooldown", "edge", "speed", "comfyui", "node_definitions"} <= set(server)
    assert {"fail_next", "drop_next"} <= set(dir(testing.LocalServer))


# What tests know of the limiters

TESTS = Path(__file__).parent
# Pure modules have a table of their own; every other test of a limiter goes through what users can use.
TABLES = {
    "limits/test_lanes.py": {"_lanes"},
    "limits/test_pacing.py": {"_pacing", "_rule"},  # a rule is what its functions take
    "limits/test_turns.py": {"_turns"},
    "limits/test_redis_rules.py": {"_pacing", "_question", "_rule", "_turns"},  # the functions that Lua has too
}
PRIVATE_MODULE = re.compile(rf"{PACKAGE}\.limits\.(_\w+)")
# Which variables hold limiters and permits; in tests of the limiters, all but a test's own `self`.
OF_A_LIMITER = re.compile(r"\b(\w*limiters?|permits?|limits)(\[.*\])?$")
# Of named tuples, `os` and asyncio.
NOT_OF_A_LIMITER = {"_replace", "_exit", "_set_running_loop", "_log_destroy_pending"}
# Only what may use any of that is parsed: all would take half a second.
SUSPECT = re.compile(r"""(limit|permit).*\._[a-z]|limits import (\([^)]*|.*)\b_[a-z]|attr\(.*["']_[a-z]""")
SUSPECT_INSIDE = re.compile(rf"""(?<!\bself)(?<!{PACKAGE})\.(?!{"|".join(NOT_OF_A_LIMITER)})_[a-z]|{SUSPECT.pattern}""")


def private_uses(path: str, text: str) -> set[str]:
    """Return the private modules and attributes of limiters that a test file uses; the path is that below `tests`."""
    inside = path.startswith("limits/")
    if not (SUSPECT_INSIDE if inside else SUSPECT).search(text):
        return set()
    # Modules that are imported, or named for what is replaced in them: `monkeypatch.setattr("a.b.c", ...)`.
    named: list[str] = []
    read: list[tuple[str, str]] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute):
            if node.attr.startswith("_"):
                read.append((ast.unparse(node.value), node.attr))
        elif isinstance(node, ast.Constant):
            named.append(str(node.value))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            base = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            named += [f"{base}{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("attr") and len(node.args) > 1:
            read.append((ast.unparse(node.args[0]), ast.unparse(node.args[1]).strip("'")))
    attributes = {
        f"{owner}.{name}"
        for owner, name in read
        if name.startswith("_") and not name.startswith("__") and name not in NOT_OF_A_LIMITER
        if OF_A_LIMITER.search(owner) or (inside and owner != "self")
    }
    return attributes | {found[1] for found in map(PRIVATE_MODULE.match, named) if found}


def test_limiters_are_tested_by_what_they_do() -> None:
    """No test reads or replaces what is private to a limiter; tables of pure modules import just these."""
    used = {}
    for file in {*TESTS.rglob("*.py")} - {Path(__file__)}:
        path = file.relative_to(TESTS).as_posix()
        used[path] = private_uses(path, file.read_text(encoding="utf-8"))
    assert {path: names for path, names in used.items() if names} == TABLES


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from comfycontrol_async.limits import Permit, _table", {"_table"}),
        ("from comfycontrol_async.limits import (\n    Permit,\n    _table,\n)", {"_table"}),
        ("from comfycontrol_async.limits._lanes import Lanes", {"_lanes"}),
        ("import comfycontrol_async.limits._lanes as lanes", {"_lanes"}),
        ("monkeypatch.setattr('comfycontrol_async.limits._table.MEMBERS', 2)", {"_table"}),
        ("comfy.limiter._store.state(0.0)", {"comfy.limiter._store"}),
        ("self.limiters[0]._gate = 5.0", {"self.limiters[0]._gate"}),
        ("limits._memory.MemoryStore", {"limits._memory"}),
        ("permit._state", {"permit._state"}),
        ("getattr(limiter, '_queue')", {"limiter._queue"}),
        ("monkeypatch.setattr(own_limiter, '_monotonic', clock)", {"own_limiter._monotonic"}),
        ("repr(limiter), limiter.__class__, self._limiter, comfy._core", set()),
    ],
)
def test_what_is_private_to_a_limiter_is_found(text: str, found: set[str]) -> None:
    """Each way to it is."""
    assert private_uses("e2e/test_any.py", text) == found


def test_tests_of_limiters_read_nothing_private_but_their_own() -> None:
    """Whatever a variable is called there."""
    text = "first._gate, left[1]._task, world.first.left()._free, self._mine, os._exit"
    assert private_uses("limits/test_any.py", text) == {"first._gate", "left[1]._task", "world.first.left()._free"}


# What an import costs

HEAVY = [
    "typer",
    "rich",
    "redis",
    "sqlite3",
    "aiohttp.web",
    "pytest",
    "uvloop",
    "obstore",
    "pyarrow",
    "opentelemetry",
    "pydantic",
    "csv",
    "difflib",
    "secrets",
    "concurrent.futures.thread",
    "importlib.metadata",
    "comfycontrol_async.cli",
    "comfycontrol_async.testing",
    "comfycontrol_async.ext",
    "comfycontrol_async.limits.redis",
]


def run(code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that finds this package, with warnings as errors."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT.parent, *paths)))}
    environment.pop("COVERAGE_PROCESS_CONFIG", None)  # the guards below refuse coverage's own file
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_import_is_light() -> None:
    """Importing the package, and making a client, imports nothing that only an extra or a few calls need."""
    code = f"""
import sys
import comfycontrol_async
comfycontrol_async.ComfyControl("cfc_x")
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    result = run(code)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


# Imports the libraries, then refuses what no module of ours may do, imports the modules named, and tries each deed.
GUARDED = """
import asyncio, importlib, os, sqlite3, ssl, sys, threading
import aiohttp, aiohttp.web, attrs, cattrs, cattrs.gen, yarl
for name in ("orjson", "redis.asyncio", "fastapi", "opentelemetry.trace", "opentelemetry.metrics"):
    try:
        importlib.import_module(name)
    except ImportError:
        pass

def refuse(*args, **options):
    raise AssertionError("something ran at import")

def audit(event, args):
    if event.startswith(("socket.", "sqlite3.connect", "subprocess.", "os.system", "os.putenv")):
        raise AssertionError(event)
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        raise AssertionError(f"{event} {args}")

class Environment(type(os.environ)):
    __getitem__ = get = __contains__ = __iter__ = keys = items = refuse

sys.dont_write_bytecode = True
os.environ.__class__ = Environment
os.getenv = ssl.SSLContext.__new__ = asyncio.new_event_loop = aiohttp.ClientSession.__init__ = refuse
cattrs.Converter.__init__ = threading.Thread.start = refuse
sys.addaudithook(audit)
for name in NAMES:
    importlib.import_module(name)
print("imported")
for deed in DEEDS:
    try:
        exec(deed)
    except AssertionError:
        continue
    print("passed:", deed)
"""
DEEDS = [
    "import os; os.environ.get('HOME')",
    "import os; os.environ['HOME']",
    "import os; os.getenv('HOME')",
    "import os; 'HOME' in os.environ",
    "import socket; socket.socket()",
    "import ssl; ssl.create_default_context()",
    "import asyncio; asyncio.new_event_loop()",
    "import threading; threading.Thread(target=print).start()",
    "import cattrs; cattrs.Converter()",
    "import sqlite3; sqlite3.connect(':memory:')",
    "open('x.txt', 'w')",
]


def test_nothing_runs_at_import() -> None:
    """No module reads the environment, opens a socket or a file, makes an SSL context, a loop, a thread or a client.

    That the guards against it bite is seen by the deeds, each of which must fail.
    """
    names = [
        f"{PACKAGE}.{name}".rstrip(".")
        for name, module in modules().items()
        if module.place not in ("cli", "__main__")
        and name != "testing.pytest_plugin"
        # Only the worked programs bring it.
        and (name != "ext.fastapi" or importlib.util.find_spec("fastapi") is not None)
    ]
    result = run(f"NAMES, DEEDS = {names!r}, {DEEDS!r}\n{GUARDED}")
    assert result.stderr == ""
    assert result.stdout.strip() == "imported"


def test_entry_points_are_there() -> None:
    """What the package's metadata names as entry points exists."""
    points = importlib.metadata.distribution("comfycontrol-async").entry_points
    assert {(point.group, point.name, point.value) for point in points} == {
        ("console_scripts", "comfycontrol", f"{PACKAGE}.cli:main"),
        ("pytest11", PACKAGE, f"{PACKAGE}.testing.pytest_plugin"),
    }
    assert callable(importlib.import_module(f"{PACKAGE}.cli").main)
    plugin = importlib.import_module(f"{PACKAGE}.testing.pytest_plugin")
    assert hasattr(plugin, "comfycontrol")
    assert hasattr(plugin, "comfycontrol_server")

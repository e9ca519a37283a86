"""Testing kit: `LocalServer`, a ComfyControl service on this machine; a clock for tests; a reader of PNG texts."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfycontrol_async.testing._fake_clock import FakeClock
    from comfycontrol_async.testing._png import read_png_text
    from comfycontrol_async.testing.server._comfyui import ComfyUIError
    from comfycontrol_async.testing.server._life import Failure
    from comfycontrol_async.testing.server._options import ServerOptions
    from comfycontrol_async.testing.server._records import RequestRecord
    from comfycontrol_async.testing.server._server import LocalServer
    from comfycontrol_async.testing.server._workflows import WorkflowRecord

__all__ = [
    "ComfyUIError",
    "Failure",
    "FakeClock",
    "LocalServer",
    "RequestRecord",
    "ServerOptions",
    "WorkflowRecord",
    "read_png_text",
]

# A name is loaded when it is first used: pytest loads our plugin, and this with it, in every project where we are
# installed, and most of its runs need no server.
_HOME_OF = {
    "ComfyUIError": "server._comfyui",
    "Failure": "server._life",
    "FakeClock": "_fake_clock",
    "LocalServer": "server._server",
    "RequestRecord": "server._records",
    "ServerOptions": "server._options",
    "WorkflowRecord": "server._workflows",
    "read_png_text": "_png",
}

if not TYPE_CHECKING:  # where types are checked, the imports above say what there is, and nothing else is

    def __getattr__(name: str) -> object:
        """Load a public name at its first use (PEP 562)."""
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        return value

    def __dir__() -> list[str]:
        """List what can be had, loaded or not."""
        return sorted({*globals(), *__all__})

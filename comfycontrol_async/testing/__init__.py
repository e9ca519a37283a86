"""Testing kit: `LocalServer`, a ComfyControl service on this machine; a clock for tests; a reader of PNG texts."""

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

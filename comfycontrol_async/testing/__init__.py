"""Testing kit: a local ComfyControl service, a clock that tests move, and a reader of PNG text chunks."""

from comfycontrol_async.testing._fake_clock import FakeClock
from comfycontrol_async.testing._png import read_png_text
from comfycontrol_async.testing.server._comfyui import ComfyUIError
from comfycontrol_async.testing.server._life import Failure
from comfycontrol_async.testing.server._options import ServerOptions
from comfycontrol_async.testing.server._server import LocalServer

__all__ = ["ComfyUIError", "Failure", "FakeClock", "LocalServer", "ServerOptions", "read_png_text"]

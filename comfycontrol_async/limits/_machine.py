"""Host identity (boot id, clock) and the files of limiters in the user's cache directory."""

import os
import platform
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from comfycontrol_async.errors import ConfigurationError
from comfycontrol_async.limits._file_lock import try_lock, unlock

PUBLIC_ORIGIN = "https://api.comfycontrol.app"

# Seconds after which a file that was not used is removed.
UNUSED = 86400.0

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> bytes:
    """Return 16 bytes that change with every boot; zeros where the machine has no such number."""
    try:
        return bytes.fromhex(_BOOT_ID.read_text("ascii").strip().replace("-", ""))[:16].ljust(16, b"\0")
    except (OSError, ValueError):
        return bytes(16)


def clock_id() -> int:
    """Return a number for the clock behind `time.monotonic`, which is not the same in every Python on Windows."""
    return int(sys.platform == "win32" and sys.version_info >= (3, 13))


def cache_directory() -> Path:
    """Return the directory for files of this user that can be made again.

    Raises:
        ConfigurationError: the user has no home directory.
    """
    try:
        if sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA")
            return Path(local) if local else Path.home() / "AppData" / "Local"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches"
        given = os.environ.get("XDG_CACHE_HOME", "")
        return Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    except RuntimeError as error:
        raise ConfigurationError(f"there is no home directory for the limiter's file: {error}") from error


def own_directory() -> Path | None:
    """Return the directory of the files that are ours; None when the user has no home directory."""
    try:
        return cache_directory() / "comfycontrol"
    except ConfigurationError:
        return None


def default_path(limit: int, period: float, origin: str = PUBLIC_ORIGIN, proxy: str | None = None) -> Path:
    """Return the file of this user and machine for a server and the way there: each has a budget of its own.

    The host's name is in it, since several machines may share a home directory.
    """
    way = f"{origin}\n{without_credentials(proxy)}\n{platform.node()}"
    digest = sha256(way.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    host = "".join(c if c.isalnum() or c in ".-" else "_" for c in urlsplit(origin).hostname or "")[:60]
    return cache_directory() / "comfycontrol" / f"{host}-{limit}-per-{period:g}s-{digest}.slots"


def without_credentials(url: str | None) -> str:
    """Return a proxy's URL without user and password; no text when there is none."""
    if not url:
        return ""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}".lower()


def secure(directory: Path) -> None:
    """Ensure that a directory of ours is there and that no other user can reach into it.

    Raises:
        ConfigurationError: it cannot be made, or belongs to another user.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = os.lstat(directory)
        if not hasattr(os, "geteuid"):
            return
        if status.st_uid != os.geteuid():
            raise ConfigurationError(f"the directory {str(directory)!r} of the limiter's files belongs to another user")
        if status.st_mode & 0o077:
            os.chmod(directory, 0o700)
    except OSError as error:
        raise ConfigurationError(f"the directory {str(directory)!r} cannot be used: {error.strerror}") from error


def remove_unused(directory: Path, now: float) -> None:
    """Remove the files that no process has used for a day, each under its lock; `now` is the wall time."""
    with suppress(OSError):
        for entry in list(os.scandir(directory)):
            if entry.name.endswith(".slots") and entry.stat(follow_symlinks=False).st_mtime < now - UNUSED:
                with suppress(OSError):
                    _remove_unused(Path(entry.path), now)


def _remove_unused(path: Path, now: float) -> None:
    fd = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        if try_lock(fd):
            # Looked at again under the lock: it may have come into use meanwhile, or be another file.
            mine, there = os.fstat(fd), os.stat(path, follow_symlinks=False)
            if mine.st_mtime < now - UNUSED and os.path.samestat(mine, there):
                path.unlink()
            unlock(fd)
    finally:
        os.close(fd)

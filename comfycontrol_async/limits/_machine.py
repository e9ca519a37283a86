"""What tells one machine, and one run of it, from another; where its files go."""

import os
import platform
import sys
from pathlib import Path
from zlib import crc32

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> bytes:
    """Return 16 bytes that change with every boot; zeros where the machine does not tell."""
    try:
        return bytes.fromhex(_BOOT_ID.read_text("ascii").strip().replace("-", ""))[:16].ljust(16, b"\0")
    except (OSError, ValueError):
        return bytes(16)


def clock_id() -> int:
    """Return a number for the clock behind `time.monotonic`, which is not the same in every Python on Windows."""
    return int(sys.platform == "win32" and sys.version_info >= (3, 13))


def cache_directory() -> Path:
    """Return the directory where programs of this user keep what they can do without."""
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return Path(local) if local else Path.home() / "AppData" / "Local"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    given = os.environ.get("XDG_CACHE_HOME", "")
    return Path(given) if os.path.isabs(given) else Path.home() / ".cache"


def default_path(limit: int, period: float) -> Path:
    """Return the file of this user for a limit on this machine: a home directory may be shared by several."""
    machine = crc32(platform.node().encode())
    return cache_directory() / "comfycontrol" / f"limit-{limit}-per-{period:g}s-{machine:08x}.slots"

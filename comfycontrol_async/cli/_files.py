"""Files that commands write: whole, or not at all."""

import os
import shutil
from pathlib import Path

from comfycontrol_async import ComfyControlError


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet; blocking.

    Raises:
        ComfyControlError: it exists, or cannot be written; then nothing is left of it.
    """
    try:
        with path.open("xb") as file:
            _write_or_remove(path, file.fileno(), text)
    except OSError as error:
        raise _refused(path, error) from error


def write_over(path: Path, text: str) -> None:
    """Write a file in the place of the one that may be there; blocking.

    Raises:
        ComfyControlError: it cannot be written; then the old one is as it was.
    """
    try:
        target = Path(os.path.realpath(path))
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        if target.exists() and not target.is_file():  # a pipe or a terminal; renaming would put a file in its place
            target.write_text(text, encoding="utf-8")
            return
        with part.open("xb") as file:
            _write_or_remove(part, file.fileno(), text)
        if target.exists():
            shutil.copymode(target, part)
        part.replace(target)
    except OSError as error:
        raise _refused(path, error) from error


def _write_or_remove(path: Path, file: int, text: str) -> None:
    rest = memoryview(text.encode())
    try:
        while rest:
            rest = rest[os.write(file, rest) :]
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _refused(path: Path, error: OSError) -> ComfyControlError:
    return ComfyControlError(f"cannot write {str(path)!r}: {error.strerror or error}")

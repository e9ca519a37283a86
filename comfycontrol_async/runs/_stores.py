"""Object stores: outputs put into S3, Google Cloud, Azure, or whatever else an obstore store stands for.

obstore is never imported here: a store that a caller has made brings it along. An output is put once it is here as a
whole, from the directory for temporary files, so that nothing half done is ever seen in the store.
"""

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from comfycontrol_async.errors import DownloadError, InvalidArgumentError
from comfycontrol_async.runs._output_file import OutputFile
from comfycontrol_async.runs._part_file import exists_error, in_thread


@runtime_checkable
class ObjectStore(Protocol):
    """A store of obstore (https://developmentseed.org/obstore), such as `obstore.store.S3Store`."""

    async def put_async(self, path: str, file: Path, *, mode: Literal["create", "overwrite"] | None = None) -> Any:
        """Put a file under a path; with the mode "create" it must not exist."""
        ...


def check_target(target: object) -> None:
    """Refuse what is neither a directory's path nor a store.

    Raises:
        InvalidArgumentError: it is neither.
    """
    if not isinstance(target, (str, os.PathLike, ObjectStore)):
        raise InvalidArgumentError(f"target must be a directory or an obstore store, not {type(target).__name__}")


async def put(file: OutputFile, store: ObjectStore, path: str, *, overwrite: bool) -> str:
    """Fetch an output, put it into the store, and return its path there.

    Raises:
        DownloadError: it could not be fetched or put, or the path exists and `overwrite` is false.
    """
    directory = await in_thread(Path(tempfile.gettempdir()), tempfile.TemporaryDirectory)
    try:
        whole = await file.save(Path(directory.name) / path)
        # With the mode "create" it is one request, which the store refuses when the path is taken.
        await store.put_async(path, whole, mode="overwrite" if overwrite else "create")
    except DownloadError as error:
        error.path = path
        raise
    except Exception as error:  # whatever obstore, or the store behind it, says
        if type(error).__name__ == "AlreadyExistsError":
            raise exists_error(path) from error
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DownloadError(f"{path!r} could not be put into the store: {reason}", path=path) from error
    finally:
        await asyncio.shield(asyncio.to_thread(directory.cleanup))
    return path

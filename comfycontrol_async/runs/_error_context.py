"""Errors that leave a call about a workflow say which workflow it was."""

from collections.abc import Iterator
from contextlib import contextmanager

from comfycontrol_async.errors import ComfyControlError


@contextmanager
def naming(id: str) -> Iterator[None]:
    """Let every error that leaves the block name the workflow, whose work goes on and is paid for at the service.

    Errors of ours get it as `workflow_id`, and every error as a note, which tracebacks show; cancellation too.
    """
    try:
        yield
    except GeneratorExit:
        raise  # the caller stopped iterating: nothing went wrong
    except BaseException as error:
        if isinstance(error, ComfyControlError) and error.workflow_id is None:
            error.workflow_id = id
        note = f"the workflow was {id}"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        raise

"""The name of a workflow: its longest length, and the name of one that was given none."""

from pathlib import Path

# Characters (API documentation: endpoints/workflows/create).
NAME_LIMIT = 200


def name_of(source: object) -> str:
    """Return the name of a workflow that was given none: the file's stem, or "workflow"."""
    stem = Path(source).stem if isinstance(source, (str, Path)) else ""
    return stem[:NAME_LIMIT] or "workflow"

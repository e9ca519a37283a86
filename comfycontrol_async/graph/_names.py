"""The name of a workflow: its limit, and the name of one that was given none."""

from pathlib import Path


def name_of(source: object) -> str:
    """Return the name of a workflow that was given none: the file's stem, or "workflow"."""
    stem = Path(source).stem if isinstance(source, (str, Path)) else ""
    return stem[:200] or "workflow"  # 200 characters is the API's limit

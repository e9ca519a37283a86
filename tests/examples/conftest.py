"""The worked programs need the dependency group `examples`, which the other tests do without."""

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what imports FastAPI, unless the worked programs are what is asked for."""
    asked_for = "not examples" not in config.getoption("markexpr")
    return True if collection_path.name == "test_fastapi.py" and not asked_for else None

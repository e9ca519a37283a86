"""Numbers as numpy's are, without numpy."""

from typing import Any


def numpy_like(name: str, base: type, text: str) -> Any:
    """Make a scalar as numpy's are: of a type from the module "numpy", which shows its shortest text."""
    made = type(name, (base,), {"__module__": "numpy", "__str__": lambda self: text})
    return made(text)

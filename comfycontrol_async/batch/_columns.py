"""Columns: what the columns of the rows are to a graph, its parameters or what rides along, and what is missing.

Nothing in here waits or sends: it is decided from the first row, before anything is spent.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from comfycontrol_async.batch._rows import STRAY, Row, left_out
from comfycontrol_async.errors import InvalidArgumentError
from comfycontrol_async.graph._issues import hint, shown
from comfycontrol_async.graph._placeholders import Parameter

log = logging.getLogger("comfycontrol_async.batch")

# Names of fewer letters are too often one edit apart.
_SHORTEST_NEAR = 4

# Which columns are parameters: their names, or a function of the row that returns parameter names with values.
ParamsOf = Callable[[Row], Mapping[str, Any]]


class Columns:
    """The columns of a batch's rows.

    Args:
        parameters: those of the graph.
        params: the names that are taken as parameters, or a function of the row; None takes all that have the name
            of a parameter.
        needed: further columns that every row must have, each with what needs it.
        base: the directory that paths for `$file` parameters are relative to.

    Raises:
        InvalidArgumentError: `params` names something that is no parameter.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        *,
        params: tuple[str, ...] | ParamsOf | None = None,
        needed: Mapping[str, str] | None = None,
        base: Path | None = None,
    ) -> None:
        self._names = {parameter.name for parameter in parameters}
        self._files = {parameter.name for parameter in parameters if parameter.kind == "file"}
        self._base = base or Path()
        self._function = params if callable(params) else None
        self._checked = params is None
        self._needed = dict(needed or {})
        if isinstance(params, tuple):
            for name in params:
                if name not in self._names:
                    raise InvalidArgumentError(
                        f"params: the graph has no parameter {shown(name)}{hint(name, self._names)}"
                    )
            self._names = set(params)
        if self._function is None:
            required = (parameter for parameter in parameters if parameter.required)
            self._needed.update(
                {parameter.name: f"the graph's {parameter.kind} needs a value" for parameter in required}
            )
        self._seen: set[frozenset[Any]] = set()

    def study(self, columns: Mapping[str, Any]) -> None:
        """Check the names of a row's columns, and log those that ride along; once for each set of names.

        Raises:
            InvalidArgumentError: a column is nearly called like a parameter that has none.
        """
        names = frozenset(columns)
        if names in self._seen:
            return
        extra = [name for name in columns if name not in self._names]
        if self._checked:
            for parameter in self._names - names:
                for name in extra:
                    if are_near(str(name), parameter):
                        raise InvalidArgumentError(
                            f"the rows have a column {shown(name)}, the graph a parameter {shown(parameter)}: give "
                            "them one name, or pass params=[...] with the columns that are parameters"
                        )
        if extra and not self._seen and self._function is None:
            log.info("columns that are no parameter ride along: %s", ", ".join(map(shown, extra)))
        self._seen.add(names)

    def missing(self, columns: Iterable[str]) -> str | None:
        """Return what is wrong with a row that lacks a column that every row must have, None when it lacks none."""
        names = list(columns)
        for name, why in self._needed.items():
            if name not in names:
                return f"the rows have no column {shown(name)} ({why}){hint(name, map(str, names))}"
        return None

    def params_of(self, row: Row, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters of a row; what is None or NaN is left out, a text for a `$file` is a path.

        Raises:
            InvalidArgumentError: the caller's function failed, or returned no mapping.
        """
        if self._function is None:
            given: Mapping[str, Any] = {name: value for name, value in columns.items() if name in self._names}
        else:
            given = call(self._function, row, "params")
            if not isinstance(given, Mapping):
                raise InvalidArgumentError(f"params must return a mapping of names to values, not {shown(given)}")
        return {
            name: Path(self._base, value) if name in self._files and isinstance(value, str) else value
            for name, value in given.items()
            if not left_out(value)
        }


def call(function: Callable[[Row], Any], row: Row, what: str) -> Any:
    """Call a function of the caller with a row; whatever it raises is that row's error.

    Raises:
        InvalidArgumentError: it raised something.
    """
    try:
        return function(row)
    except STRAY as error:
        raise InvalidArgumentError(f"the function for {what} failed at this row: {shown(error)}") from error


def are_near(one: str, other: str) -> bool:
    """Tell whether two different names may be meant to be one: but for case and separators, or one edit apart."""
    a, b = _plain(one), _plain(other)
    return a == b or (min(len(a), len(b)) >= _SHORTEST_NEAR and _one_edit(a, b))


def _plain(name: str) -> str:
    """Return a name without what people write in different ways, and without the signs of form fields."""
    return name.lstrip("$#").casefold().translate(dict.fromkeys(map(ord, "_- ")))


def _one_edit(a: str, b: str) -> bool:
    """Tell whether one letter more, less or other, or two letters changed about, makes one of the other."""
    if len(a) > len(b):
        a, b = b, a
    start = next((index for index, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))
    if len(a) < len(b):
        return a[start:] == b[start + 1 :]
    rest_a, rest_b = a[start + 1 :], b[start + 1 :]
    return rest_a == rest_b or (a[start : start + 2] == b[start : start + 2][::-1] and rest_a[1:] == rest_b[1:])

"""Draft: what a submit is about to send, with everything checked that costs no request."""

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from comfycontrol_async._http._multipart import Form
from comfycontrol_async.errors import InvalidArgumentError
from comfycontrol_async.graph._graph import Graph
from comfycontrol_async.graph._json import has_surrogate
from comfycontrol_async.graph._names import NAME_LIMIT, name_of
from comfycontrol_async.resources._calls import GraphSource
from comfycontrol_async.resources._checks import check_text
from comfycontrol_async.resources._forms import form_of
from comfycontrol_async.runs._marks import MARK_LENGTH, Marks, mark_of_key, wire_name
from comfycontrol_async.runs._submit import unique_name

# Characters of a key, none of which is sent: only its mark is.
_LONGEST_KEY = 10_000


@attrs.frozen(eq=False, repr=False, kw_only=True)
class Draft:
    """A workflow that is about to be created; `unique` says whether no other submit uses its name."""

    graph: Graph
    form: Form
    name: str
    unique: bool
    key: str | None = None
    marks: Marks | None = None


def prepare_submit(
    source: GraphSource,
    name: str | None,
    params: Mapping[str, Any] | None,
    tags: Iterable[str],
    key: str | None = None,
) -> Draft:
    """Check everything that costs no request, and return what is to be sent; blocking, for it reads files.

    Raises:
        GraphError, InvalidArgumentError: it cannot be sent.
    """
    if key is not None:
        check_key(key)
    graph = Graph.coerce(source)
    bound = graph.bind(params)
    marks = None
    if key is not None:
        base = name_of(source) if name is None else check_text("a workflow's name", name, NAME_LIMIT)
        # Before the form is made, which reads streams to their end.
        marks = Marks(mark_of_key(key), bound.digest()[:MARK_LENGTH])
        chosen = wire_name(base, marks)
    else:
        chosen = unique_name(name_of(source)) if name is None else name
    form = form_of(bound, chosen, tags)
    unique = name is None or marks is not None
    return Draft(graph=graph, form=form, name=chosen, unique=unique, key=key, marks=marks)


def check_key(key: object) -> None:
    """Refuse what can be no key.

    Raises:
        InvalidArgumentError: it is no text, or empty, or holds half a surrogate pair.
    """
    text = check_text("a key", key, _LONGEST_KEY)
    if has_surrogate(text):
        raise InvalidArgumentError("the key holds half a surrogate pair, which is no text")

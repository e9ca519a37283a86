"""Templates: stored graphs."""

import asyncio

from comfycontrol_async._http._convert import structurer
from comfycontrol_async._http._multipart import Form, prepare
from comfycontrol_async._http._paginate import Pager
from comfycontrol_async._http._request import Repeat, Request
from comfycontrol_async.errors import InvalidArgumentError
from comfycontrol_async.graph._file import File
from comfycontrol_async.graph._graph import Graph
from comfycontrol_async.graph._issues import raise_errors
from comfycontrol_async.models import Template, TemplateSummary
from comfycontrol_async.resources._calls import GraphSource, Send, about, get_one, listing
from comfycontrol_async.resources._checks import check_id, check_text

NAME_LIMIT = 100
DESCRIPTION_LIMIT = 500


class TemplatesResource:
    """`comfy.templates` (API documentation: endpoints/templates). One request for each call, and for each page."""

    __slots__ = ("_send",)

    def __init__(self, send: Send) -> None:
        self._send = send

    def list(self, *, per_page: int = 100) -> Pager[TemplateSummary]:
        """List your templates without their graphs, newest first.

        Raises:
            InvalidArgumentError: `per_page` is not from 1 to 100.
        """
        return listing(self._send, "/v1/template", TemplateSummary, "templates", per_page)

    async def get(self, id: str) -> Template:
        """Fetch one template with its graph (`template.graph`).

        Raises:
            NotFoundError: it does not exist, or is someone else's.
        """
        return await self._send(get_one(f"/v1/template/{check_id(id)}", Template, str(id)))

    async def create(self, name: str, description: str, graph: GraphSource) -> Template:
        """Store a graph as a template.

        Args:
            name: 1 to 100 characters.
            description: 1 to 500 characters.
            graph: a `Graph`, a `Template`, a mapping, or a path to a JSON file.

        Raises:
            GraphError: the graph cannot run; nothing was sent.
            PermissionDeniedError: your tier's limit of templates is reached.
        """
        if name is None or description is None or graph is None:  # which `_form` takes for "not given"
            raise InvalidArgumentError("a template needs a name, a description and a graph")
        form = await asyncio.to_thread(_form, name, description, graph)
        return await self._send(
            Request(method="POST", path="/v1/template", structure=structurer(Template), form=form, repeat=Repeat.NEVER)
        )

    async def update(
        self, id: str, *, name: str | None = None, description: str | None = None, graph: GraphSource | None = None
    ) -> Template:
        """Change a template; only what is given is sent.

        Raises:
            InvalidArgumentError: nothing to change, or a value that the API refuses.
            NotFoundError: it does not exist, or is someone else's.
        """
        path = f"/v1/template/{check_id(id)}"
        form = await asyncio.to_thread(_form, name, description, graph)
        if not form.fields:
            raise InvalidArgumentError("nothing to change: give name, description or graph")
        return await self._send(
            Request(method="PUT", path=path, structure=about(str(id), structurer(Template)), form=form)
        )


def _form(name: str | None, description: str | None, graph: GraphSource | None) -> Form:
    fields: list[tuple[str, str | File]] = []
    if name is not None:
        fields.append(("name", check_text("a template's name", name, NAME_LIMIT)))
    if description is not None:
        fields.append(("description", check_text("a template's description", description, DESCRIPTION_LIMIT)))
    if graph is not None:
        graph = Graph.coerce(graph)
        raise_errors(graph.check())
        body = graph.to_json().encode()
        fields.append(("body", File(body, filename="workflow.json", content_type="application/json")))
    return prepare(fields)

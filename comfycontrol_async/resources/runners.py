"""Self-hosted runners."""

from collections.abc import Iterable, Mapping
from typing import Any

from comfycontrol_async._http._paginate import Pager
from comfycontrol_async._http._request import Repeat
from comfycontrol_async.errors import InvalidArgumentError
from comfycontrol_async.models import Runner, RunnerStatus
from comfycontrol_async.resources._calls import Send, Summaries, command, get, get_one, listing, with_json
from comfycontrol_async.resources._checks import check_endpoint, check_headers, check_id, check_tags, check_text

NAME_LIMIT = 100
TAG_LIMIT = 10


class RunnersResource:
    """`comfy.runners` (API documentation: endpoints/runners). One request for each call, and for each page."""

    __slots__ = ("_send",)

    def __init__(self, send: Send) -> None:
        self._send = send

    def list(self, *, status: RunnerStatus | str | None = None, per_page: int = 100) -> Pager[Runner]:
        """List your runners, newest first; `status` keeps only "active" or "disabled" ones.

        Raises:
            InvalidArgumentError: `per_page` is not from 1 to 100.
        """
        return listing(self._send, "/v1/runner", Runner, "runners", per_page, status)

    async def get(self, id: str) -> Runner:
        """Fetch one runner.

        Raises:
            NotFoundError: it does not exist, or is someone else's.
        """
        return await self._send(get_one(f"/v1/runner/{check_id(id)}", Runner, str(id)))

    async def create(
        self, name: str, endpoint: str, *, headers: Mapping[str, str] | None = None, tags: Iterable[str] = ()
    ) -> Runner:
        """Register a runner; it must be reachable from the service.

        Args:
            name: 1 to 100 characters.
            endpoint: ComfyUI's http or https URL.
            headers: sent to ComfyUI with every request; secrets in it come back in clear from the API.
            tags: at most 10; workflows with tags go to runners that have all of them.

        Raises:
            PermissionDeniedError: your tier's limit of runners is reached.
            ServerError, ResponseLostError: it is not known whether it was created; look with `list` before trying
                again.
        """
        value = {
            "name": check_text("a runner's name", name, NAME_LIMIT),
            "endpoint": check_endpoint(endpoint),
            **_fields(None, None, headers or {}, tags, None),
        }
        return await self._send(with_json("POST", "/v1/runner", value, Runner, repeat=Repeat.NEVER))

    async def update(
        self,
        id: str,
        *,
        name: str | None = None,
        endpoint: str | None = None,
        headers: Mapping[str, str] | None = None,
        tags: Iterable[str] | None = None,
        status: RunnerStatus | str | None = None,
    ) -> Runner:
        """Change a runner; only what is given is sent, and `headers` and `tags` replace the old ones.

        `status="disabled"` keeps workflows away from it for the time being.

        Raises:
            InvalidArgumentError: nothing to change, or a value that the API refuses.
            NotFoundError: it does not exist, or is someone else's.
        """
        value = _fields(name, endpoint, headers, tags, status)
        if not value:
            raise InvalidArgumentError("nothing to change: give name, endpoint, headers, tags or status")
        return await self._send(with_json("PUT", f"/v1/runner/{check_id(id)}", value, Runner, id=str(id)))

    async def interrupt(self, id: str) -> None:
        """Stop what the runner executes now; for one workflow, `workflows.cancel` is better.

        Raises:
            ServerError: the runner could not be reached.
        """
        await self._send(command(f"/v1/runner/{check_id(id)}/interrupt"))

    async def history(self, id: str) -> Summaries:
        """Fetch the runner's last 10 workflows, newest first. One request.

        Raises:
            NotFoundError: it does not exist.
        """
        return await self._send(get(f"/v1/runner/{check_id(id)}/history", Summaries))


def _fields(
    name: str | None,
    endpoint: str | None,
    headers: Mapping[str, str] | None,
    tags: Iterable[str] | None,
    status: str | None,
) -> dict[str, Any]:
    value: dict[str, Any] = {}
    if name is not None:
        value["name"] = check_text("a runner's name", name, NAME_LIMIT)
    if endpoint is not None:
        value["endpoint"] = check_endpoint(endpoint)
    if headers is not None:
        value["headers"] = check_headers(headers)
    if tags is not None:
        value["tags"] = check_tags(tags, TAG_LIMIT)
    if status is not None:
        if status not in (RunnerStatus.ACTIVE, RunnerStatus.DISABLED):
            raise InvalidArgumentError(f"a runner's status is 'active' or 'disabled', not {status!r}")
        value["status"] = str(status)
    return value

"""The service's own runners."""

from comfycontrol_async._http._paginate import Pager
from comfycontrol_async.models import ManagedRunner, RunnerStats
from comfycontrol_async.resources._calls import Send, Summaries, get, get_one, listing
from comfycontrol_async.resources._checks import check_id


class ManagedRunnersResource:
    """`comfy.managed_runners` (API documentation: endpoints/managed-runners). Free accounts get a 403 everywhere."""

    __slots__ = ("_send",)

    def __init__(self, send: Send) -> None:
        self._send = send

    def list(self, *, per_page: int = 100) -> Pager[ManagedRunner]:
        """List the managed runners that are open to your tier.

        Raises:
            InvalidArgumentError: `per_page` is not from 1 to 100.
        """
        return listing(self._send, "/v1/managed-runner", ManagedRunner, "runners", per_page)

    async def get(self, id: str) -> ManagedRunner:
        """Fetch one managed runner.

        Raises:
            NotFoundError: it does not exist, or is not open to your tier.
        """
        return await self._send(get_one(f"/v1/managed-runner/{check_id(id)}", ManagedRunner, str(id)))

    async def history(self, id: str) -> Summaries:
        """Fetch your own last 10 workflows on it, newest first. One request.

        Raises:
            NotFoundError: it does not exist.
        """
        return await self._send(get(f"/v1/managed-runner/{check_id(id)}/history", Summaries))

    async def stats(self, id: str) -> RunnerStats:
        """Ask the machine for its system stats now.

        Raises:
            ServerError: the machine could not be reached.
        """
        return await self._send(get(f"/v1/managed-runner/{check_id(id)}/stats", RunnerStats))

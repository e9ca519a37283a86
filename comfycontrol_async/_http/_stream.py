"""Stream: an answer whose headers are here and whose body is read as it comes."""

from collections.abc import AsyncGenerator, Mapping

import aiohttp
import attrs

from comfycontrol_async._http._faults import TRANSPORT_FAULTS, classify


@attrs.frozen(eq=False, repr=False)
class Stream:
    """An answer whose body is read as it comes; the caller closes it."""

    status: int
    headers: Mapping[str, str]
    method: str
    path: str
    _answer: aiohttp.ClientResponse = attrs.field(repr=False)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Give the body in pieces as they arrive.

        Raises:
            ResponseLostError: the connection broke before the end.
            RequestTimeoutError: the server was silent for too long.
        """
        try:
            async for chunk in self._answer.content.iter_any():
                yield chunk
        except TRANSPORT_FAULTS as error:
            raise classify(error, True, self.method, self.path).error from error

    def close(self) -> None:
        """Drop the connection; harmless when the body was read to its end."""
        self._answer.close()

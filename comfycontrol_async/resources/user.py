"""The account behind the token."""

from comfycontrol_async.models import User
from comfycontrol_async.resources._calls import Send, get

_USER = get("/v1/user", User)


class UserResource:
    """`comfy.user`."""

    __slots__ = ("_send",)

    def __init__(self, send: Send) -> None:
        self._send = send

    async def get(self) -> User:
        """Fetch your own profile (API documentation: endpoints/user/get). One request.

        Raises:
            AuthenticationError: the token is missing, invalid, expired or revoked.
        """
        return await self._send(_USER)

"""`comfy.user`."""

import pytest

from comfycontrol_async import AuthenticationError, ComfyControl, User
from comfycontrol_async._http._convert import structurer
from support import documented
from support.scripted import ScriptedApi


async def test_get(api: ScriptedApi, comfy: ComfyControl) -> None:
    """The account is fetched with one request."""
    api.answer("GET", "/v1/user", documented.USER)
    assert await comfy.user.get() == structurer(User)(documented.USER)
    assert api.asked == ["GET /v1/user"]


@pytest.mark.parametrize("message", ["Invalid token", "Token has expired"])
async def test_refused_token(api: ScriptedApi, comfy: ComfyControl, message: str) -> None:
    """A token that is not taken is said to be so, at once and in the API's words."""
    api.answer("GET", "/v1/user", {"status": 401, "message": message}, status=401)
    with pytest.raises(AuthenticationError, match=f"GET /v1/user: 401 {message}"):
        await comfy.user.get()
    assert len(api.calls) == 1

"""FastAPI: one client for the life of an application, given to its endpoints.

    app = FastAPI(lifespan=lifespan)

    @app.get("/me")
    async def me(comfy: Annotated[ComfyControl, Depends(get_comfy)]) -> User:
        return await comfy.user.get()

The models of this package are response models as they are. Each worker process has a client of its own; on one machine
they share the budget of the API's rate limit by themselves.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from comfycontrol_async import ComfyControl, ConfigurationError, InvalidArgumentError

try:
    from fastapi import FastAPI
    from fastapi.requests import HTTPConnection
except ImportError as _error:
    raise ConfigurationError("comfycontrol_async.ext.fastapi needs FastAPI: pip install fastapi") from _error

__all__ = ["get_comfy", "lifespan", "lifespan_of"]

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[dict[str, ComfyControl]]]


def lifespan_of(make: Callable[[], ComfyControl]) -> Lifespan:
    """Return a lifespan whose client is made by `make`, once in each worker process, and closed at the end.

    A lifespan of your own can hold it: `async with lifespan_of(make)(app) as state: yield {**state, "mine": ...}`.

    Raises:
        InvalidArgumentError: `make` is no function; a client itself would be shared by all event loops.
    """
    if not callable(make):
        raise InvalidArgumentError(f"make must be a function that returns a ComfyControl, not a {type(make).__name__}")

    @asynccontextmanager
    async def opened(app: FastAPI) -> AsyncIterator[dict[str, ComfyControl]]:
        """Open a client for the life of an application."""
        async with make() as comfy:
            yield {"comfy": comfy}

    return opened


# With a client whose token and address come from the environment.
lifespan: Lifespan = lifespan_of(ComfyControl)


def get_comfy(connection: HTTPConnection) -> ComfyControl:
    """Return the client of the application; for `Depends`, in endpoints of HTTP and of websockets.

    Raises:
        ConfigurationError: the application was not made with `lifespan`, or its lifespan did not run.
    """
    comfy = getattr(connection.state, "comfy", None)
    if not isinstance(comfy, ComfyControl):
        raise ConfigurationError(
            "the application has no client: make it with FastAPI(lifespan=lifespan), and enter TestClient by `with`"
        )
    return comfy

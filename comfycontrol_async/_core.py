"""What a client and its siblings, made by `with_options`, have in common."""

from collections import OrderedDict

import attrs

from comfycontrol_async._http._config import WatchPolicy
from comfycontrol_async._http._transport import Transport
from comfycontrol_async.limits import Limiter
from comfycontrol_async.limits._shared import shared_limiter
from comfycontrol_async.runs._download import Downloader
from comfycontrol_async.runs._watch import Watcher


class Unset:
    """The default of an option for which None means something."""


UNSET = Unset()


@attrs.define(eq=False)
class Shared:
    """Sessions, limiter, watcher, downloads, and the ids of workflows that were made."""

    transport: Transport
    given_limiter: Limiter | None
    policy: WatchPolicy
    watcher: Watcher | None = None
    downloader: Downloader | None = None
    held: OrderedDict[str, None] = attrs.field(factory=OrderedDict)
    _default_limiter: Limiter | None = None

    def limiter(self) -> Limiter:
        """Return the limiter that was given, or the one that all clients of this origin and loop share."""
        if self.given_limiter is not None:
            return self.given_limiter
        if self._default_limiter is None or self.transport.loop_changed():
            self._default_limiter = shared_limiter(str(self.transport.base_url.origin()))
        return self._default_limiter

"""NodeDefinitions: the node classes of one ComfyUI, as its `/object_info` says.

What only they need is loaded when they are made: most programs have none.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from comfycontrol_async.errors import GraphError, ResponseFormatError
from comfycontrol_async.graph._issues import shown

if TYPE_CHECKING:
    from comfycontrol_async.graph._node_classes import NodeDefinition

# Bytes. A ComfyUI with a thousand custom nodes answers 10 MB.
_LARGEST = 128 * 1024 * 1024
_ADVICE = "save what a ComfyUI answers at /object_info"


class NodeDefinitions:
    """The node classes of one ComfyUI, for `Graph.check(node_definitions=...)`; never changes.

    Args:
        object_info: what its `/object_info` answers, class names mapped to their definitions.

    Raises:
        GraphError: it is something else.
    """

    __slots__ = ("_classes",)

    def __init__(self, object_info: Mapping[str, Any]) -> None:
        if not isinstance(object_info, Mapping) or not object_info:
            raise GraphError(f"node definitions map class names to definitions, but this is {shown(object_info)}")
        from comfycontrol_async.graph._node_classes import read_class

        self._classes = {str(name): read_class(str(name), info) for name, info in object_info.items()}

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read the answer of a ComfyUI's `/object_info` from a file; blocking, so call it in a thread.

        Raises:
            GraphError: it cannot be read, or holds something else; the text says what.
        """
        name = repr(str(path))
        try:
            with Path(path).open("rb") as stream:
                data = stream.read(_LARGEST + 1)
        except OSError as error:
            raise GraphError(f"cannot read {name}: {error.strerror or error}; check the path") from error
        except ValueError as error:
            raise GraphError(f"cannot read {name}: {error}; check the path") from error
        return cls._parse(data, name, GraphError)

    @classmethod
    async def fetch(cls, url: str, headers: Mapping[str, str] | None = None) -> Self:
        """Ask a ComfyUI for its definitions: one GET of `url` with `/object_info` behind it, within 30 s.

        Args:
            url: where ComfyUI is, such as "http://127.0.0.1:8188", a runner's endpoint, or the whole address.
            headers: what a proxy before it needs, such as an Authorization; sent to `url` only, never shown.

        Raises:
            InvalidArgumentError: `url` or `headers` cannot be used.
            ConnectionFailedError, ResponseLostError, RequestTimeoutError: no usable answer came.
            APIError: the answer is an error, or a redirect elsewhere.
            ResponseFormatError: the answer is something else than definitions.
        """
        from comfycontrol_async.graph._fetch import fetch_json

        data, address = await fetch_json(url, headers, _LARGEST)
        return cls._parse(data, f"the answer of {address}", ResponseFormatError)

    @classmethod
    def _parse(cls, data: bytes, name: str, error_class: Any) -> Self:
        if len(data) > _LARGEST:
            raise error_class(f"{name} is larger than {_LARGEST // 1024**2} MB, which no node definitions are")
        if data.lstrip()[:1] == b"<":
            raise error_class(f"{name} is an HTML page, not node definitions: {_ADVICE}")
        try:
            found = json.loads(data.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise error_class(f"{name} is not UTF-8 text: {_ADVICE}") from error
        except (ValueError, RecursionError) as error:
            raise error_class(f"{name} is not JSON, or was cut: {error}; {_ADVICE}") from error
        try:
            return cls(found)
        except GraphError as error:
            raise error_class(f"{name}: {error.message}; {_ADVICE}") from error

    def _class(self, name: str) -> "NodeDefinition | None":
        return self._classes.get(name)

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def __repr__(self) -> str:
        return f"<NodeDefinitions {len(self._classes)} classes>"

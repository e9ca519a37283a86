"""NodeDefinitions: what the node classes of one ComfyUI take and give, as its `/object_info` says.

An input is `[type, config]`. Its type is a name, several joined by commas, "*" for any, or a list of options, which
newer versions write as "COMBO" with the options in the config. What a class gives is a list of types.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import attrs

from comfycontrol_async.errors import GraphError, ResponseFormatError
from comfycontrol_async.graph._fetch import fetch_json
from comfycontrol_async.graph._issues import shown

TypeName = str | list[Any]

# Bytes. A ComfyUI with a thousand custom nodes answers 10 MB.
_LARGEST = 128 * 1024 * 1024
_ADVICE = "save what a ComfyUI answers at /object_info"
# Types of inputs whose parts have names of their own, which the definition does not list.
_DYNAMIC = ("COMFY_AUTOGROW_V3", "COMFY_DYNAMICCOMBO_V3", "COMFY_DYNAMICSLOT_V3")
_UPLOADS = ("image_upload", "video_upload", "audio_upload", "file_upload", "image_folder", "upload")
_ENDINGS = """
    safetensors sft ckpt pt pt2 pth bin gguf onnx pkl engine yaml png jpg jpeg webp gif bmp mp4 webm mov mkv wav mp3
    flac ogg glb obj latent ttf otf cube
"""
_FILE_ENDINGS = tuple(f".{ending}" for ending in _ENDINGS.split())
_INPUTS = """
    ckpt_name unet_name vae_name lora_name clip_name clip_name1 clip_name2 clip_name3 control_net_name model_name
    style_model_name gligen_name hypernetwork_name embedding_name ipadapter_file
"""
_FILE_INPUTS = frozenset(_INPUTS.split())


@attrs.frozen
class InputDefinition:
    """One input of a class.

    Attributes:
        name: as the class calls it.
        type: "INT", "IMAGE", "IMAGE,MASK", "*", ...; a list of options is "COMBO" here.
        required: whether a node must have it.
        spec: the whole `[type, config]`, as ComfyUI says it.
        config: minimum, maximum, default and the like.
        options: what a COMBO takes; None where that is not known, as it is fetched from elsewhere.
        on_disk: whether its options are files of the machine that ComfyUI runs on.
    """

    name: str
    type: str
    required: bool
    spec: list[Any] = attrs.field(repr=False)
    config: Mapping[str, Any] = attrs.field(repr=False)
    options: Collection[Any] | None = attrs.field(repr=False)
    on_disk: bool

    @property
    def dynamic(self) -> bool:
        """Whether it is made of parts that have names of their own."""
        return self.type in _DYNAMIC


@attrs.frozen
class NodeDefinition:
    """One class: its inputs by name, the types that it gives, and whether it saves or shows (`output_node`).

    `booleans` are the names of the inputs that are one.
    """

    name: str
    inputs: Mapping[str, InputDefinition] = attrs.field(repr=False)
    outputs: tuple[TypeName, ...]
    output_node: bool
    booleans: tuple[str, ...]


class NodeDefinitions:
    """The node classes of one ComfyUI, for `Graph.check(node_definitions=...)`; never changes.

    Args:
        object_info: what its `/object_info` answers, class names mapped to their definitions.

    Raises:
        GraphError: it is something else.
    """

    __slots__ = ("_classes", "_info")

    def __init__(self, object_info: Mapping[str, Any]) -> None:
        if not isinstance(object_info, Mapping) or not object_info:
            raise GraphError(f"node definitions map class names to definitions, but this is {shown(object_info)}")
        self._classes = {str(name): _read_class(str(name), info) for name, info in object_info.items()}
        self._info = object_info

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

    def _class(self, name: str) -> NodeDefinition | None:
        return self._classes.get(name)

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def __reduce__(self) -> tuple[type["NodeDefinitions"], tuple[Mapping[str, Any]]]:
        return type(self), (self._info,)

    def __repr__(self) -> str:
        return f"<NodeDefinitions {len(self._classes)} classes>"


def _read_class(name: str, info: object) -> NodeDefinition:
    if not isinstance(info, Mapping):
        raise GraphError(f"node definitions map class names to definitions, but {shown(name)} is {shown(info)}")
    if isinstance(info.get("class_type"), str):
        raise GraphError("this is a graph, not node definitions")
    groups, outputs = info.get("input"), info.get("output")
    if not isinstance(groups, Mapping) or not isinstance(outputs, (list, tuple)) or "output_node" not in info:
        raise GraphError(
            f"the class {shown(name)} has no input, output and output_node as ComfyUI's /object_info gives them; "
            "it is of another version, or something else"
        )
    inputs: dict[str, InputDefinition] = {}
    for required in (True, False):
        group = groups.get("required" if required else "optional")
        for input, spec in group.items() if isinstance(group, Mapping) else ():
            inputs[str(input)] = _read_input(str(input), spec, required)
    booleans = tuple(input.name for input in inputs.values() if input.type == "BOOLEAN")
    return NodeDefinition(name, inputs, tuple(outputs), bool(info["output_node"]), booleans)


def _read_input(name: str, spec: object, required: bool) -> InputDefinition:
    # A custom node may say anything here: what is not understood takes anything.
    parts = list(spec) if isinstance(spec, (list, tuple)) and spec else ["*"]
    config = parts[1] if len(parts) > 1 and isinstance(parts[1], Mapping) else {}
    listed = isinstance(parts[0], (list, tuple))
    type = "COMBO" if listed else str(parts[0])
    options: Any = parts[0] if listed else config.get("options")
    if type != "COMBO" or config.get("remote") or not isinstance(options, (list, tuple)):
        return InputDefinition(name, type, required, parts, config, None, False)
    on_disk = _are_files(name, options, config)
    return InputDefinition(name, type, required, parts, config, _collection(options), on_disk)


def _collection(options: Any) -> Collection[Any]:
    try:
        return frozenset(options)
    except TypeError:  # an option is a list or an object
        return tuple(options)


def _are_files(name: str, options: Any, config: Mapping[str, Any]) -> bool:
    """Tell whether the options are what lies on a disk: models, uploaded pictures."""
    if not options or name in _FILE_INPUTS or any(config.get(key) for key in _UPLOADS):
        return True
    return any(is_file_name(option) for option in options)


def is_file_name(value: object) -> bool:
    """Tell whether a value looks like the name of a model, a picture or the like."""
    return isinstance(value, str) and value.lower().endswith(_FILE_ENDINGS)

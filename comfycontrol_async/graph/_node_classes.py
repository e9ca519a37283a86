"""Node classes: what one class of a ComfyUI takes and gives, read from its `/object_info`.

An input is `[type, config]`. Its type is a name, several joined by commas, "*" for any, or a list of options, which
newer versions write as "COMBO" with the options in the config. What a class gives is a list of types.
"""

from collections.abc import Collection, Mapping
from typing import Any

import attrs

from comfycontrol_async.errors import GraphError
from comfycontrol_async.graph._issues import shown

TypeName = str | list[Any]

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
        """Whether it is made of parts with names of their own, as the types of newer versions are but for one."""
        return self.type.startswith("COMFY_") and self.type.endswith("_V3") and self.type != "COMFY_MATCHTYPE_V3"


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


def read_class(name: str, info: object) -> NodeDefinition:
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
    config = dict(parts[1]) if len(parts) > 1 and isinstance(parts[1], Mapping) else {}
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

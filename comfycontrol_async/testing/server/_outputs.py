"""The files that a workflow leaves, as ComfyUI's nodes name and count them, and what is in them.

    SaveImage of a batch of 2, prefix "pic"    pic_00001_.png, pic_00002_.png
    a second SaveImage with the same prefix    pic_00003_.png
    SaveVideo, prefix "video/clip"             video/clip_00001_.mp4, whatever the length of the batch

Each workflow counts from one, as on a runner with an empty output folder. Previews are temporary files, which the
service does not keep. Pictures are PNG files that can be shown and carry the graph; files of another type have the
right beginning and form of their type, but nothing to look at or listen to.
"""

import graphlib
import json
import re
import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

from comfycontrol_async.testing._png import write_png

MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".svg": "image/svg+xml",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".mov": "video/quicktime",
    ".mkv": "video/x-matroska",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".opus": "audio/ogg",
    ".wav": "audio/wav",
    ".glb": "model/gltf-binary",
}
_CLASSES = {
    "SaveVideo": ".mp4",
    "SaveWEBM": ".webm",
    "SaveAnimatedWEBP": ".webp",
    "SaveAnimatedPNG": ".png",
    "SaveLatent": ".latent",
    "SaveAudio": ".flac",
    "SaveAudioMP3": ".mp3",
    "SaveAudioOpus": ".opus",
    "SaveGLB": ".glb",
    "SaveSVGNode": ".svg",
}
# Custom nodes: anything named like a saver, but those that write models, or send pictures over the websocket.
_SAVER = re.compile(
    r"(?!Load)(?!.*Websocket)(?!.*(?:Checkpoint|Model|CLIP|VAE|Lora)_?Save).*(?:Save|VideoCombine)", re.I
)
_STILL = (".png", ".jpg", ".jpeg", ".webp")
_MOVING = re.compile("video|animated", re.I)
_FORMAT_INPUTS = ("format", "file_type", "extension", "file_extension", "image_format")
_FORMAT = re.compile("|".join(sorted((ext[1:] for ext in MEDIA_TYPES), key=len, reverse=True)), re.I)
_BY_NAME = (("video", ".mp4"), ("webp", ".webp"), ("gif", ".gif"), ("audio", ".flac"), ("latent", ".latent"))
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LARGEST_BATCH = 4096
_LARGEST_SIDE = 256
_USUAL_SIDE = 64
_GIF = bytes.fromhex("47494638396101000100800000ffffff00000021f90401000000002c00000000010001000002024401003b")
_WEBP = bytes.fromhex("524946461a000000574542505650384c0d0000002f00000010071011118888fe0700")
_WAV = b"RIFF" + struct.pack("<I4s4sIHHIIHH4sI", 36, b"WAVE", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8, b"data", 0)
_MP3 = b"ID3\x04" + bytes(6) + b"\xff\xfb\x90\x00" + bytes(413)
_OPUS = b"OggS\x00\x02" + bytes(20) + b"\x01\x13OpusHead\x01\x02" + bytes(9)


def saves_files(class_type: str) -> bool:
    """Return whether a node of this class leaves files that the service keeps."""
    return _SAVER.match(class_type) is not None


def output_nodes(graph: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the nodes that leave files, in the order of the graph."""
    for node_id, node in graph.items():
        if isinstance(node, dict) and saves_files(str(node.get("class_type", ""))):
            yield node_id, node


def name_outputs(prompt: dict[str, Any], left_out: Collection[str] = ()) -> list[tuple[str, str]]:
    """Return (node id, path) of the files that a graph leaves, with `/` in a path that has a folder.

    Nodes that are `left_out` do not run.
    """
    batches = _batches(prompt)
    counters: Counter[str] = Counter()
    named = []
    for node_id, node in output_nodes(prompt):
        inputs = inputs_of(node)
        class_type = str(node["class_type"])
        if node_id in left_out or inputs.get("save_output") is False:  # VHS_VideoCombine: then it is a temporary file
            continue
        extension = _extension(class_type, inputs)
        prefix = _prefix(inputs)
        still = class_type not in _CLASSES and extension in _STILL and not _MOVING.search(class_type)
        end = extension if "VideoCombine" in class_type else f"_{extension}"
        for _ in range(batches.get(node_id, 1) if still else 1):
            counters[prefix] += 1
            named.append((node_id, f"{prefix}_{counters[prefix]:05}{end}"))
    return named


def make_content(name: str, prompt: dict[str, Any], seed: int) -> bytes:
    """Return what is in the file of this name."""
    # ComfyUI writes the graph as ASCII JSON, in a PNG into a tEXt chunk.
    text = json.dumps(prompt)
    extension = extension_of(name)
    if extension in _CONTAINERS:
        return _CONTAINERS[extension](text.encode())
    width, height, color = _look(prompt, seed)
    return write_png(width, height, color, {"prompt": text})


def extension_of(name: str) -> str:
    """Return the extension of a file name in lower case, with its dot."""
    return "." + name.rpartition(".")[2].lower()


def safe_name(text: str) -> str:
    """Return `text` fit for a file name."""
    return _UNSAFE.sub("_", text).strip(".") or "file"


def inputs_of(node: Any) -> dict[str, Any]:
    """Return the inputs of a node, of a broken one none."""
    inputs = node.get("inputs") if isinstance(node, dict) else None
    return inputs if isinstance(inputs, dict) else {}


def links_of(node: Any) -> dict[str, str]:
    """Return the inputs of a node that are links, with the ids of the nodes that they lead to."""
    return {name: value[0] for name, value in inputs_of(node).items() if is_link(value)}


def is_link(value: Any) -> bool:
    """Return whether the value of an input is a link: the id of a node as text, and a slot."""
    if not isinstance(value, list) or len(value) != 2:
        return False
    return isinstance(value[0], str) and isinstance(value[1], int) and not isinstance(value[1], bool)


def _batches(prompt: dict[str, Any]) -> dict[str, int]:
    """Return how many pictures each node gives, as far as the core nodes show that count them."""
    feeds = {node_id: set(links_of(node).values()) for node_id, node in prompt.items()}
    sizes: dict[str, int] = {}
    try:
        order = list(graphlib.TopologicalSorter(feeds).static_order())
    except graphlib.CycleError:  # in nodes that no output needs
        order = []
    for node_id in order:
        node = prompt.get(node_id)
        inputs, before = inputs_of(node), [sizes.get(feed, 1) for feed in links_of(node).values()]
        class_type = node.get("class_type") if isinstance(node, dict) else None
        if "batch_size" in inputs:
            size = _number(inputs["batch_size"], 1)
        elif class_type in ("ImageBatch", "LatentBatch"):
            size = sum(before)
        else:
            repeats = class_type in ("RepeatImageBatch", "RepeatLatentBatch")
            size = max(before, default=1) * (_number(inputs.get("amount"), 1) if repeats else 1)
        sizes[node_id] = min(_LARGEST_BATCH, max(1, size))
    return sizes


def _extension(class_type: str, inputs: dict[str, Any]) -> str:
    if class_type in _CLASSES:
        return _CLASSES[class_type]
    for name in _FORMAT_INPUTS if class_type != "SaveImage" else ():
        found = _FORMAT.findall(str(inputs.get(name, "")))
        if found:
            return f".{found[-1].lower()}"
    plain = class_type.lower()
    return next((extension for part, extension in _BY_NAME if part in plain), ".png")


def _prefix(inputs: dict[str, Any]) -> str:
    parts = str(inputs.get("filename_prefix", "ComfyUI")).replace("\\", "/").split("/")
    return "/".join(safe_name(part) for part in parts if part.strip(".")) or "ComfyUI"


def _look(prompt: dict[str, Any], seed: int) -> tuple[int, int, tuple[int, int, int]]:
    for node in prompt.values():
        inputs = inputs_of(node)
        if inputs and node.get("class_type") in ("EmptyImage", "EmptyLatentImage"):
            color = _number(inputs.get("color"), seed & 0xFFFFFF) & 0xFFFFFF
            return _side(inputs.get("width")), _side(inputs.get("height")), _rgb(color)
    return _USUAL_SIDE, _USUAL_SIDE, _rgb(seed & 0xFFFFFF)


def _rgb(color: int) -> tuple[int, int, int]:
    return color >> 16, color >> 8 & 0xFF, color & 0xFF


def _side(value: Any) -> int:
    return min(_LARGEST_SIDE, max(1, _number(value, _USUAL_SIDE)))


def _number(value: Any, default: int) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return default


# Other file types, with the graph where the type has a place for a comment


def _boxes(brand: bytes) -> Callable[[bytes], bytes]:
    """Make files of MPEG-4 boxes: the type, and the graph in a box that players skip."""

    def make(text: bytes) -> bytes:
        kind = struct.pack(">I", 20) + b"ftyp" + brand + struct.pack(">I", 512) + brand
        return kind + struct.pack(">I", 8 + len(text)) + b"free" + text

    return make


def _flac(text: bytes) -> bytes:
    info = struct.pack(">HH6sQ16x", 4096, 4096, b"", 44_100 << 44 | 1 << 41 | 15 << 36)
    tag = b"prompt=" + text
    comment = struct.pack("<I", 0) + struct.pack("<II", 1, len(tag)) + tag
    # A block begins with its kind and 24 bits of length; the kind of the last one has the highest bit set.
    return b"fLaC" + struct.pack(">I", len(info)) + info + struct.pack(">I", 0x84 << 24 | len(comment)) + comment


def _glb(text: bytes) -> bytes:
    body = json.dumps({"asset": {"version": "2.0", "extras": {"prompt": text.decode()}}}).encode()
    body += b" " * (-len(body) % 4)
    return struct.pack("<4sII", b"glTF", 2, 20 + len(body)) + struct.pack("<I4s", len(body), b"JSON") + body


def _latent(text: bytes) -> bytes:
    tensor = {"dtype": "F32", "shape": [1, 4, 1, 1], "data_offsets": [0, 16]}
    header = json.dumps({"__metadata__": {"prompt": text.decode()}, "latent_tensor": tensor}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(16)


def _jpeg(text: bytes) -> bytes:
    comment = text[:65_000]
    start = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
    return start + b"\xff\xfe" + struct.pack(">H", 2 + len(comment)) + comment + b"\xff\xd9"


def _webm(text: bytes) -> bytes:
    # The header, then the graph in an element that players skip, with its length in four bytes.
    return b"\x1a\x45\xdf\xa3\x87\x42\x82\x84webm" + b"\xec" + struct.pack(">I", 1 << 28 | len(text)) + text


def _svg(text: bytes) -> bytes:
    plain = text.decode().replace("&", "&amp;").replace("<", "&lt;")
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><desc>{plain}</desc></svg>\n'.encode()


_CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    ".mp4": _boxes(b"isom"),
    ".mov": _boxes(b"qt  "),
    ".webm": _webm,
    ".webp": lambda _: _WEBP,
    ".gif": lambda _: _GIF,
    ".jpg": _jpeg,
    ".jpeg": _jpeg,
    ".svg": _svg,
    ".flac": _flac,
    ".mp3": lambda _: _MP3,
    ".opus": lambda _: _OPUS,
    ".wav": lambda _: _WAV,
    ".glb": _glb,
    ".latent": _latent,
}

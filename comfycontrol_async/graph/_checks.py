"""Checks of a graph's structure: its format, nodes, links, loops and outputs. Pure functions of its JSON."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from comfycontrol_async.graph._issues import GraphIssue, hint, shown
from comfycontrol_async.graph._json import Json, inputs_of, text_of

EXPORT = 'in ComfyUI use "Export (API)", in older versions "Save (API Format)" (with dev mode enabled)'
_OUTPUT_NAME = re.compile("save|preview|(?<!LoadImage)output|export|show|display|videocombine|websocket|upload", re.I)
# ComfyUI's own classes that never are an output; a class that is neither here nor named like one may be anything.
_INNER_CLASSES = """
    BasicGuider BasicScheduler CFGGuider CLIPLoader CLIPTextEncode CLIPTextEncodeSDXL CLIPVisionLoader
    CheckpointLoaderSimple ConditioningCombine ConditioningZeroOut ControlNetApply ControlNetApplyAdvanced
    ControlNetLoader DualCLIPLoader EmptyImage EmptyLatentImage EmptySD3LatentImage FluxGuidance ImageAddNoise
    ImageBatch ImageBlend ImageBlur ImageCompositeMasked ImageCrop ImageInvert ImagePadForOutpaint ImageScale
    ImageScaleBy ImageSharpen ImageToMask ImageUpscaleWithModel KSampler KSamplerAdvanced KSamplerSelect
    LatentUpscale LoadImage LoadImageMask LoadImageOutput LoraLoader LoraLoaderModelOnly MaskToImage
    ModelSamplingFlux ModelSamplingSD3 SamplerCustom SamplerCustomAdvanced SetLatentNoiseMask UNETLoader
    UpscaleModelLoader VAEDecode VAEDecodeTiled VAEEncode VAEEncodeForInpaint VAEEncodeTiled VAELoader
"""
_INNER = frozenset(_INNER_CLASSES.split())


class _Link(NamedTuple):
    """An input that takes an output, number `slot`, of the node `source`."""

    place: str
    node: str
    source: str
    slot: int


def _links(nodes: Mapping[str, Json]) -> Iterator[_Link]:
    """Yield the inputs that ComfyUI takes for links: lists of a text and a whole number."""
    for id, node in nodes.items():
        for name, value in inputs_of(node).items():
            match value:
                case [str(source), int(slot)] if not isinstance(slot, bool):
                    yield _Link(f"{id}.{name}", id, source, slot)


def structure_issues(nodes: Mapping[str, Json]) -> list[GraphIssue]:
    """List what is wrong with the graph apart from its placeholders."""
    whole = format_issue(nodes)
    if whole:
        return [whole]
    links = list(_links(nodes))
    return [*_node_issues(nodes), *_link_issues(nodes, links), *_loop_issues(links), *_output_issues(nodes, links)]


def format_issue(nodes: Mapping[str, Json]) -> GraphIssue | None:
    """Say what this is, when it is no graph in API format at all."""
    if not nodes:
        return GraphIssue("error", "", f"the graph is empty; {EXPORT}")
    if isinstance(nodes.get("nodes"), list):
        return GraphIssue("error", "", f"this is ComfyUI's UI format, which cannot be run: {EXPORT}")
    prompt = nodes.get("prompt")
    if isinstance(prompt, dict) and any(text_of(node, "class_type") for node in prompt.values()):
        return GraphIssue("error", "", 'this is a request to ComfyUI, not a graph: use what is under its "prompt"')
    return None


def _node_issues(nodes: Mapping[str, Json]) -> Iterator[GraphIssue]:
    for id, node in nodes.items():
        if not isinstance(node, dict):
            yield GraphIssue("error", id, f"a node is an object with class_type and inputs, but this is {shown(node)}")
            continue
        if not text_of(node, "class_type"):
            yield GraphIssue("error", id, f"the node has no class_type; {EXPORT}")
        if not isinstance(node.get("inputs"), dict):
            yield GraphIssue("error", id, "the node has no inputs object (an empty one will do)")


def _link_issues(nodes: Mapping[str, Json], links: Iterable[_Link]) -> Iterator[GraphIssue]:
    for link in links:
        if link.source not in nodes:
            text = f"it is linked to node {shown(link.source)}, which is absent{hint(link.source, nodes)}"
            yield GraphIssue("error", link.place, text)
        if link.slot < 0:
            yield GraphIssue("error", link.place, f"it is linked to output {link.slot}, but outputs count from 0")


def _loop_issues(links: Iterable[_Link]) -> Iterator[GraphIssue]:
    """Find every link that closes a loop; with its own stack, as a chain may be longer than Python's."""
    taken: dict[str, list[_Link]] = {}
    for link in links:
        taken.setdefault(link.node, []).append(link)
    done: set[str] = set()
    for start in taken:
        on_path = dict.fromkeys([] if start in done else [start])
        walk = [iter(taken[id]) for id in on_path]
        while walk:
            step = next(walk[-1], None)
            if step is None:
                walk.pop()
                done.add(on_path.popitem()[0])
            elif step.source in on_path:
                path = list(on_path)
                loop = " <- ".join([*path[path.index(step.source) :], step.source])
                yield GraphIssue("error", step.place, f"the nodes feed themselves: {loop}")
            elif step.source in taken and step.source not in done:
                on_path[step.source] = None
                walk.append(iter(taken[step.source]))


def _output_issues(nodes: Mapping[str, Json], links: Iterable[_Link]) -> Iterator[GraphIssue]:
    """Say when nothing saves or shows a result; a custom node at an end gets the benefit of the doubt."""
    classes = {id: text_of(node, "class_type") for id, node in nodes.items()}
    if any(map(_OUTPUT_NAME.search, classes.values())):
        return
    linked = {link.source for link in links}
    custom = [id for id, name in classes.items() if id not in linked and name not in _INNER]
    if custom:
        ids = ", ".join(custom[:10])
        yield GraphIssue("warning", "", f"no node looks like an output, such as SaveImage; is it one of {ids}?")
    else:
        yield GraphIssue("error", "", "the graph has no output node: add one that saves or shows, such as SaveImage")

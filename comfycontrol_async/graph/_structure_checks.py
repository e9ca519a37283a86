"""Checks of a graph's structure: nodes, links, loops and outputs. Pure functions of its JSON."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from comfycontrol_async.graph._format import EXPORT
from comfycontrol_async.graph._issues import HINTS, GraphIssue, hint, shown
from comfycontrol_async.graph._json import Json, inputs_of, strings_in, text_of
from comfycontrol_async.graph._placeholders import holds_placeholder

_SHOWN_NODES = 8
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


class Link(NamedTuple):
    """An input that takes an output, number `slot`, of the node `source`."""

    place: str
    node: str
    source: str
    slot: int

    @property
    def input(self) -> str:
        """The name of the input."""
        return self.place.removeprefix(f"{self.node}.")


def links_of(nodes: Mapping[str, Json]) -> Iterator[Link]:
    """Yield the inputs that ComfyUI takes for links: lists of a text and a whole number."""
    for id, node in nodes.items():
        for name, value in inputs_of(node).items():
            match value:
                case [str(source), int(slot)] if not isinstance(slot, bool):
                    yield Link(f"{id}.{name}", id, source, slot)


def _is_link(value: list[Json]) -> bool:
    return len(value) == 2 and isinstance(value[0], str) and type(value[1]) is int


def structure_issues(nodes: Mapping[str, Json]) -> list[GraphIssue]:
    """List what is wrong with the nodes and links of a graph."""
    links = list(links_of(nodes))
    return [
        *_node_issues(nodes),
        *_link_issues(nodes, links),
        *_list_issues(nodes),
        *(GraphIssue("error", link.place, f"the nodes feed themselves: {loop}") for link, loop in find_loops(links)),
        *_outside_issues(nodes),
    ]


def _node_issues(nodes: Mapping[str, Json]) -> Iterator[GraphIssue]:
    for id, node in nodes.items():
        if not isinstance(node, dict):
            yield GraphIssue("error", id, f"a node is an object with class_type and inputs, but this is {shown(node)}")
            continue
        if not text_of(node, "class_type"):
            yield GraphIssue("error", id, f"the node has no class_type; {EXPORT}")
        if not isinstance(node.get("inputs"), dict):
            yield GraphIssue("error", id, "the node has no inputs object (an empty one will do)")


def _link_issues(nodes: Mapping[str, Json], links: Iterable[Link]) -> Iterator[GraphIssue]:
    absent = 0
    for link in links:
        if link.source not in nodes:
            absent += 1
            advice = hint(link.source, nodes) if absent <= HINTS else ""
            yield GraphIssue("error", link.place, f"it is linked to node {shown(link.source)}, which is absent{advice}")
        if link.slot < 0:
            yield GraphIssue("error", link.place, f"it is linked to output {link.slot}, but outputs count from 0")


def _list_issues(nodes: Mapping[str, Json]) -> Iterator[GraphIssue]:
    for id, node in nodes.items():
        for name, value in inputs_of(node).items():
            if isinstance(value, list) and not _is_link(value):
                text = f"ComfyUI takes every list for a link, [node id, output number], but this is {shown(value)}"
                yield GraphIssue("warning", f"{id}.{name}", text)


def find_loops(links: Iterable[Link]) -> Iterator[tuple[Link, str]]:
    """Yield every link that closes a loop, and the loop on a short line.

    It has a stack of its own, as a chain of nodes may be longer than Python's.
    """
    taken: dict[str, list[Link]] = {}
    for link in links:
        taken.setdefault(link.node, []).append(link)
    done: set[str] = set()
    for start in taken:
        path = [] if start in done else [start]
        depth = dict.fromkeys(path, 0)
        walk = [iter(taken[id]) for id in path]
        while walk:
            step = next(walk[-1], None)
            if step is None:
                walk.pop()
                node = path.pop()
                del depth[node]
                done.add(node)
            elif step.source in depth:
                yield step, _shown_loop(path, depth[step.source])
            elif step.source in taken and step.source not in done:
                depth[step.source] = len(path)
                path.append(step.source)
                walk.append(iter(taken[step.source]))


def _shown_loop(path: Sequence[str], start: int) -> str:
    """Write the loop from `path[start]` to the path's end, and back, on a short line."""
    size = len(path) - start
    if size <= _SHOWN_NODES:
        return " <- ".join([*path[start:], path[start]])
    ends = [*path[start : start + 3], "…", path[-1], path[start]]
    return f"{' <- '.join(ends)} ({size:,} nodes)"


def _outside_issues(nodes: Mapping[str, Json]) -> Iterator[GraphIssue]:
    """Say where a placeholder stands in what is not the value of an input."""
    for id, node in nodes.items():
        if not isinstance(node, dict):
            continue
        others: dict[str, Json] = {key: value for key, value in node.items() if key != "inputs"}
        found = [place for place, text in strings_in(others, (id,)) if holds_placeholder(text)]
        found += [f"{id}.{name}" for name in inputs_of(node) if holds_placeholder(name)]
        for place in found:
            yield GraphIssue("warning", place, "a placeholder is filled in only where it is the value of an input")


def outputs_by_name(nodes: Mapping[str, Json]) -> tuple[list[str], list[str]]:
    """Guess which nodes save or show: those whose class is named like it, and, if there are none, which may be.

    A class that is unknown and that nothing is linked to may be an output.
    """
    classes = {id: text_of(node, "class_type") for id, node in nodes.items()}
    named = [id for id, name in classes.items() if _OUTPUT_NAME.search(name)]
    if named:
        return named, []
    linked = {link.source for link in links_of(nodes)}
    return [], [id for id, name in classes.items() if id not in linked and name not in _INNER]


def output_issues(nodes: Mapping[str, Json]) -> Iterator[GraphIssue]:
    """Say when no node saves or shows a result."""
    named, possible = outputs_by_name(nodes)
    if possible:
        ids = ", ".join(possible[:10])
        yield GraphIssue("warning", "", f"no node looks like an output, such as SaveImage; is it one of {ids}?")
    elif not named:
        yield GraphIssue("error", "", "the graph has no output node: add one that saves or shows, such as SaveImage")

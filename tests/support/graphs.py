"""Small graphs that the tests submit."""

from typing import Any

GRAPH: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 16, "color": "$text(color, 3368601)"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "pic"}},
}
FILE_GRAPH: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "$file(image)"}},
    "2": {
        "class_type": "ImageScale",
        "inputs": {"image": ["1", 0], "upscale_method": "$choice(method, lanczos, area)"},
    },
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "$text(prefix)"}},
}


def several(number: int) -> dict[str, Any]:
    """Make a graph that writes so many images."""
    graph: dict[str, Any] = {"0": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8}}}
    for index in range(1, number + 1):
        inputs = {"images": ["0", 0], "filename_prefix": f"image{index}"}
        graph[str(index)] = {"class_type": "SaveImage", "inputs": inputs}
    return graph

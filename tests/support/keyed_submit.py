"""Submit once, with a key, in a process of its own: `python keyed_submit.py URL TOKEN KEY`; it prints the id."""

import asyncio
import sys

from comfycontrol_async import ComfyControl, LocalLimiter

GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "color": "$text(color, 255)"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
}


async def main(url: str, token: str, key: str) -> None:
    """Submit, and print what workflow that is."""
    async with ComfyControl(token, base_url=url, limiter=LocalLimiter(1000, 1.0)) as comfy:
        print("ready", flush=True)
        print((await comfy.submit(GRAPH, key=key)).id, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

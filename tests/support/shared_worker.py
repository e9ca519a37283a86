"""One process of `test_shared_budget.py`: wants answers without end through one limiter.

    python tests/support/shared_worker.py '{"limiter": ["file", PATH], ...}'

Prints "ready" when it is connected, begins at a line on its standard input, ends at the next, and prints how many
answers it got.
"""

import asyncio
import json
import sys
from typing import Any

from comfycontrol_async import ComfyControl, Limiter
from comfycontrol_async.limits.file import FileLimiter


def make_limiter(kind: str, place: str, options: dict[str, Any]) -> Limiter:
    """Make the limiter that is asked for."""
    if kind == "file":
        return FileLimiter(place, **options)
    from comfycontrol_async.limits.redis import RedisLimiter

    return RedisLimiter(place, key="e2e", **options)


async def main(task: dict[str, Any]) -> int:
    """Want until told to stop, and return the number of answers."""
    answers = 0
    kind, place = task["limiter"]
    limiter = make_limiter(kind, place, task["options"])

    async def want(comfy: ComfyControl) -> None:
        nonlocal answers
        while True:
            await comfy.user.get()
            answers += 1

    async with ComfyControl(task["token"], base_url=task["url"], limiter=limiter) as comfy:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        wanting = [asyncio.create_task(want(comfy)) for _ in range(task["width"])]
        told = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
        done, _ = await asyncio.wait([told, *wanting], return_when=asyncio.FIRST_COMPLETED)
        for one in wanting:
            one.cancel()
        await asyncio.gather(*wanting, return_exceptions=True)
        for failed in done - {told}:
            await failed
    return answers


if __name__ == "__main__":
    print(asyncio.run(main(json.loads(sys.argv[1]))), flush=True)

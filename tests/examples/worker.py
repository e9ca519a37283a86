"""A queue of pictures on Redis or Valkey streams, for as many workers on as many machines as you like.

    pip install 'comfycontrol-async[redis]' taskiq taskiq-redis
    export REDIS_URL=redis://... COMFYCONTROL_LIMITER=redis://... COMFYCONTROL_API_TOKEN=cfc_...
    taskiq worker worker:broker --workers 1 --max-async-tasks 20 --max-prefetch 1     # on each machine
    python worker.py 60                                                               # sixty tasks

A task whose worker dies is delivered again, and may be delivered twice: `key` makes that harmless, for a key has only
one workflow. COMFYCONTROL_LIMITER is the budget of requests that all workers behind one address share.
"""

import asyncio
import os
import sys
from pathlib import Path

from taskiq import TaskiqEvents, TaskiqState
from taskiq_redis import RedisStreamBroker

from comfycontrol_async import ComfyControl, Graph

GRAPH = Graph.load(Path(__file__).with_name("picture.json"))
OUT = Path(os.environ.get("PICTURES", "pictures"))
# Seconds: more than the longest workflow and its wait for the limit. A task that takes longer is delivered again.
LONGEST = float(os.environ.get("LONGEST_TASK", "1800"))

broker = RedisStreamBroker(
    os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"),
    consumer_id="0",  # also what was sent before the first worker came
    xread_count=1,  # a worker that dies takes no more with it than it works on
    idle_timeout=int(LONGEST * 1000),
    unacknowledged_lock_timeout=10.0,  # a worker that dies does not keep the others from claiming
)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def start(state: TaskiqState) -> None:
    """Open the client of this worker, and begin to tick."""
    state.comfy = await ComfyControl().__aenter__()
    state.ticking = asyncio.create_task(tick())


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def stop(state: TaskiqState) -> None:
    """Close the client."""
    state.ticking.cancel()
    await state.comfy.aclose()


@broker.task("nothing")
async def nothing() -> None:
    """Do nothing: tasks of a dead worker are claimed only when something arrives (taskiq-redis 1.2.4)."""


async def tick() -> None:
    """Send something to the queue now and then."""
    while True:
        await asyncio.sleep(LONGEST / 4)
        await nothing.kiq()


@broker.task("picture")
async def picture(key: str, color: int) -> None:
    """Make one picture, once, however often this task is delivered."""
    comfy: ComfyControl = broker.state.comfy
    run = await comfy.run(GRAPH, key=key, params={"color": color})
    await run.download(OUT, template=f"{key}-{{index}}{{ext}}", overwrite=True)


async def send(count: int) -> None:
    """Send tasks."""
    await broker.startup()
    for number in range(count):
        await picture.kiq(f"picture-{number}", number)
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(send(int(sys.argv[1])))

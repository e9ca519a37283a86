"""The shape of a chat bot: each user gets a message that is edited while the picture is made, and can cancel.

Put your chat library's message in place of `Message`. As it is, `python bot.py 200` shows 200 users at once.
"""

import asyncio
import sys
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from comfycontrol_async import BadRequestError, ComfyControl, Graph, Priority, WorkflowRun
from comfycontrol_async.errors import WorkflowCancelledError, WorkflowError

GRAPH = Graph.load(Path(__file__).with_name("picture.json"))


class Message:
    """A message in a chat, which may be edited about once a second; here it only remembers that."""

    edits: tuple[float, ...] = ()
    picture = b""

    async def edit(self, text: str, picture: bytes = b"") -> None:
        """Change the text, and the picture below it."""
        self.edits, self.picture = (*self.edits, time.monotonic()), picture


class Bot:
    """Answers commands; one for the whole process."""

    def __init__(self, comfy: ComfyControl) -> None:
        # People who wait go before batches that use the same budget.
        self.comfy = comfy.with_options(priority=Priority.INTERACTIVE)
        self.runs: dict[int, WorkflowRun] = {}

    async def draw(self, user: int, message: Message, color: int) -> None:
        """Make a picture, and tell how it gets on."""
        await message.edit("waiting for a free moment")
        try:
            run = self.runs[user] = await self.comfy.submit(GRAPH, name=f"user-{user}", params={"color": color})
            async for update in run.updates(min_interval=1.0):
                await message.edit(f"{update.status}, {update.elapsed or 0:.0f} s")
            await run.wait()
            await message.edit("done", await (await run.files())[0].read())
        except WorkflowCancelledError:
            await message.edit("cancelled")
        except WorkflowError as error:
            await message.edit(f"sorry: {error}")
        finally:
            self.runs.pop(user, None)

    async def cancel(self, user: int) -> None:
        """Cancel what a user waits for; it goes before all other requests."""
        if run := self.runs.get(user):
            with suppress(BadRequestError):  # it has ended meanwhile
                await run.cancel()


async def main(users: int) -> None:
    """Let many users ask at once; every tenth loses patience."""
    async with ComfyControl() as comfy:
        bot, messages = Bot(comfy), [Message() for _ in range(users)]
        drawing = [asyncio.create_task(bot.draw(user, message, user)) for user, message in enumerate(messages)]
        while not all(task.done() for task in drawing):
            await asyncio.sleep(1.0)
            await asyncio.gather(*(bot.cancel(user) for user in range(9, users, 10)))
        # The first edit and the last may come at once; those between are live.
        pause = min((b - a for message in messages for a, b in pairwise(message.edits[1:-1])), default=1.0)
        count = sum(bool(message.picture) for message in messages)
    print(f"{count} pictures, {users - count} cancelled; shortest pause between two edits {pause:.2f} s")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))

"""Callers that begin to wait at once, and work beside the calls."""

import asyncio

import pytest

from comfycontrol_async.runs._background import Background
from comfycontrol_async.runs._turns import JoinTurns


async def test_spread_over_turns_of_the_loop() -> None:
    """Thousands that come at once go on in their order, a few hundred in each turn of the event loop."""
    turns = JoinTurns()
    passed: list[int] = []
    most = 0

    async def join(number: int) -> None:
        await turns.take()
        passed.append(number)

    tasks = [asyncio.ensure_future(join(number)) for number in range(2000)]
    while len(passed) < 2000:
        before = len(passed)
        await asyncio.sleep(0)
        most = max(most, len(passed) - before)
    await asyncio.gather(*tasks)
    assert passed == sorted(passed)
    assert 100 <= most <= 250


async def test_few_do_not_wait() -> None:
    """A few go on at once, and so does one that comes later."""
    turns = JoinTurns()
    for _ in range(3):
        with pytest.raises(StopIteration):
            turns.take().send(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_cancelled_ones_take_no_turn() -> None:
    """Those that are cancelled while they wait hold up no other."""
    turns = JoinTurns()
    tasks = [asyncio.ensure_future(turns.take()) for _ in range(1000)]
    await asyncio.sleep(0)
    for task in tasks[250:900]:
        task.cancel()
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert [task.cancelled() for task in tasks] == [False] * 250 + [True] * 650 + [False] * 100


async def test_background(caplog: pytest.LogCaptureFixture) -> None:
    """What runs beside the calls is ended when the client is closed; an error of it is logged."""
    background = Background()

    async def fail() -> None:
        raise ValueError("mine")

    background.spawn(fail(), "failing")
    background.spawn(asyncio.Event().wait(), "endless")
    await asyncio.sleep(0)
    await background.close()
    assert "work beside the calls of a client failed" in caplog.text
    assert {task for task in asyncio.all_tasks() if task.get_name().startswith("comfycontrol")} == set()
    await background.close()


def test_loop_after_loop() -> None:
    """A loop that was closed before its turn was over leaves nothing behind for the next one."""
    turns = JoinTurns()

    async def join(count: int) -> None:
        await asyncio.gather(*(turns.take() for _ in range(count)))

    loop = asyncio.new_event_loop()
    loop.call_soon(loop.stop)
    tasks = [loop.create_task(turns.take()) for _ in range(300)]
    loop.run_forever()
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    turns._through = 7  # as it is between two turns
    loop.close()
    asyncio.run(join(1000))

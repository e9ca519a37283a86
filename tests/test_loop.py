"""LoopBinding: one loop at a time, taken over only from a loop that is closed."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from comfycontrol_async import ClientLoopError
from comfycontrol_async._loop import LoopBinding, stay_until_done


async def call(action: Callable[[], object]) -> object:
    """Call it with a loop running."""
    return action()


def test_bound_by_first_use() -> None:
    """The first loop binds it, once; then it is the loop that runs, and nothing needs to start again."""
    binding = LoopBinding("client")
    assert binding.serves(None)
    assert not binding.is_running()

    async def use() -> None:
        assert binding.bind()
        assert not binding.bind()
        assert binding.is_running()
        assert binding.serves(asyncio.get_running_loop())
        binding.check()

    asyncio.run(use())
    assert not binding.is_running()


def test_taken_over_from_a_closed_loop() -> None:
    """The next loop takes over once the first is closed, and learns that it is another one."""
    binding = LoopBinding("client")
    assert [asyncio.run(call(binding.bind)) for _ in range(3)] == [True, True, True]


@pytest.mark.parametrize("action", ["bind", "check"])
def test_refused_while_the_first_is_alive(action: str) -> None:
    """Another loop beside a living one is refused, and what is refused changes nothing."""
    binding = LoopBinding("watcher")
    first = asyncio.new_event_loop()
    try:
        first.run_until_complete(call(binding.bind))
        with pytest.raises(ClientLoopError, match="this watcher belongs to another event loop"):
            asyncio.run(call(getattr(binding, action)))
        assert binding.loop is first
        assert not binding.serves(None)
    finally:
        first.close()


def test_not_running_in_another_thread() -> None:
    """Its loop may run, but not in the thread that asks."""
    binding = LoopBinding("client")
    seen: list[bool] = []

    async def use() -> None:
        binding.bind()
        thread = threading.Thread(target=lambda: seen.append(binding.is_running()))
        thread.start()
        thread.join()
        seen.append(binding.is_running())

    asyncio.run(use())
    assert seen == [False, True]


def test_released() -> None:
    """After `release` any loop may bind it, as in a forked child."""
    binding = LoopBinding("limiter")
    first = asyncio.new_event_loop()
    try:
        first.run_until_complete(call(binding.bind))
        binding.release()
        assert asyncio.run(call(binding.bind))
    finally:
        first.close()


@pytest.mark.parametrize("ends", ["result", "error", "cancelled"])
async def test_stays_until_done(ends: str) -> None:
    """However often the caller is cancelled, it leaves when the work has ended, and then as cancelled."""
    work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(stay_until_done(work))
    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    if ends == "result":
        work.set_result(1)
    elif ends == "error":
        work.set_exception(ValueError("not seen by a cancelled caller"))
    else:
        work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_stays_and_returns() -> None:
    """Without a cancellation it gives what the work gave."""
    assert await stay_until_done(asyncio.ensure_future(asyncio.to_thread(lambda: 5))) == 5

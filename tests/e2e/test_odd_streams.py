"""Every wait ends, rightly and within its bound, whatever its stream brings and however further ones are refused."""

import asyncio

import pytest

from comfycontrol_async import RetryPolicy, Timeouts, WatchPolicy
from support.odd_streams import ODD, REFUSALS, odd_server
from support.services import ID, client_at

# A hundred times as fast as by default: a quiet stream is dropped after 0.3 s, an old one after 3 s.
# Polls may fail for 12 s, as they do on a machine that is busy with these clients and servers.
WATCH = WatchPolicy(min_interval=0.01, max_interval=1.0)
RETRY = RetryPolicy(attempts=2, base_delay=0.01)
TIMEOUTS = Timeouts(connect=5.0, read=1.0, total=5.0)
# Seconds within which a wait ends: the age of a stream and two attempts that time out, with room for a busy machine.
BOUND = 60.0


async def wait(odd: str, refusal: str) -> str:
    """Wait for a workflow by an odd stream; return what became of that."""
    async with (
        odd_server(odd, refusal) as url,
        client_at(url, watch=WATCH, retry=RETRY, timeouts=TIMEOUTS) as comfy,
    ):
        try:
            async with asyncio.timeout(BOUND):
                return str((await comfy.get_run(ID).wait()).status)
        except Exception as error:
            return repr(error)


@pytest.mark.parametrize(
    "refusal", [pytest.param(refusal, marks=[] if refusal == "403-page" else pytest.mark.slow) for refusal in REFUSALS]
)
async def test_every_wait_ends(refusal: str) -> None:
    """All kinds of odd streams end with the workflow, for one way to refuse those that follow."""
    found = await asyncio.gather(*(wait(odd, refusal) for odd in ODD))
    assert {odd: result for odd, result in zip(ODD, found, strict=True) if result != "completed"} == {}


def test_enough() -> None:
    """There are 34 kinds or more, and four ways to refuse."""
    assert len(ODD) >= 34
    assert len(REFUSALS) == 4

"""A real line that stalls: the link between two network namespaces is taken down for some seconds."""

import json
import time

import pytest

from support.limiters import most_in_any_period
from support.stalled_line import LIMIT, PERIOD, PORT, SERVER_ADDRESS, connected, why_not

REASON = why_not()


@pytest.mark.slow
@pytest.mark.timeout(90)
@pytest.mark.skipif(REASON is not None, reason=str(REASON))
@pytest.mark.parametrize(
    ("stall", "word"),
    [(2.0, "word"), (5.0, "word"), (12.0, "word"), (5.0, "none")],
    ids=["2 s", "5 s", "12 s", "5 s, TCP is not asked"],
)
def test_stall(stall: float, word: str) -> None:
    """What was written while the link was down arrives when it is back, and never more than the limit in a period."""
    with connected() as line, line.run(line.server, "server") as server:
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        with line.run(line.client, "client", f"http://{SERVER_ADDRESS}:{PORT}", word) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            assert client.stdout.readline() == "ready\n"
            line.set_link("down")
            began = time.monotonic()
            client.stdin.write("go\n")
            client.stdin.flush()
            time.sleep(stall)
            line.set_link("up")
            answered = int(client.stdout.readline())
        server.stdin.write("end\n")
        server.stdin.flush()
        arrivals = json.loads(server.stdout.readline())
    assert answered == 3 * LIMIT
    assert len(arrivals) >= 4 * LIMIT
    assert not any(began + 0.1 < moment < began + stall for moment in arrivals), "the link was not down"
    assert most_in_any_period(arrivals, PERIOD) <= LIMIT

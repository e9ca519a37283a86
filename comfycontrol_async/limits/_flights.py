"""Flights: requests that were written and are not answered yet, and when a slow answer holds its slot no longer.

A slot may be given up 3 s after its request was written (the *hold cap*), provided that the request has arrived. The
evidence, best first:

1. The transport's word, `permit.sent(arrived)`: asked when the 3 s are over and every 0.5 s until it says yes.
2. Where it has none: a request that was written later has been answered, so the line is alive. The slot is then free a
   period later; and when the late answer comes before the slot was taken again, a period after that answer.

In numbers, period 10, written at 0 without the transport's word; the line stalls. At 3 the cap is due, but nothing
shows that the request has arrived: held. At 5 the line is back, and a request that was written at 1 is answered: given
up, free at 15.002. The answer comes at 6: free at 16.002.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush

from comfycontrol_async.limits._rule import CAP_CHECK, HOLD_CAP

log = logging.getLogger("comfycontrol_async.limits")


# What is known of a permit's request. Plain numbers: members of an enum would cost a fifth of an acquire.
# The first two hold the slot.
HELD, SENT = 0, 1
# The slot was given up: the request has arrived as far as can be judged, so a late answer moves the stamp.
CAPPED = 2
# The slot was given up: the request has arrived for certain, so a late answer says nothing new.
ARRIVED = 3
SETTLED = 4

Arrived = Callable[[], bool | None]


class Flight:
    """A request on its way: when its headers were written, and what tells whether they have arrived (once SENT)."""

    _state = HELD
    _written: float
    _evidence: Arrived | None


class Flights:
    """The written requests of one event loop that hold slots."""

    __slots__ = ("_count", "_doubtful", "_due", "_proof")

    def __init__(self) -> None:
        # (when to look, tie-breaker, flight); settled ones are skipped when their moment comes.
        self._due: list[tuple[float, int, Flight]] = []
        self._count = 0
        # Written so long ago that the cap is due, with nothing that shows that they have arrived.
        self._doubtful: list[Flight] = []
        # When the latest request was written that has been answered.
        self._proof = -math.inf

    @property
    def next_look(self) -> float:
        """When to call `look` again."""
        while self._due and self._due[0][2]._state != SENT:
            heappop(self._due)
        return self._due[0][0] if self._due else math.inf

    def written(self, flight: Flight, arrived: Arrived | None, now: float) -> None:
        """Follow a request whose headers were written now, or that has better evidence now."""
        if flight._state != SENT:
            flight._state = SENT
            flight._written = now
            flight._evidence = arrived
            self._look_at(flight, now + HOLD_CAP)
        elif arrived is not None:
            flight._evidence = arrived
            if flight in self._doubtful:
                self._doubtful.remove(flight)
                self._look_at(flight, now)

    def answered(self, flight: Flight) -> Sequence[Flight]:
        """Take an answer as proof for what was written before; return those that lose their slots by that."""
        if flight._written > self._proof:
            self._proof = flight._written
        if not self._doubtful:
            return ()
        held = [doubtful for doubtful in self._doubtful if doubtful._state == SENT and doubtful is not flight]
        self._doubtful = [doubtful for doubtful in held if doubtful._written >= self._proof]
        shown = [doubtful for doubtful in held if doubtful._written < self._proof]
        for doubtful in shown:
            doubtful._state = CAPPED
        return shown

    def look(self, now: float) -> Iterator[Flight]:
        """Judge those that are due; yield those that lose their slots."""
        while self._due and self._due[0][0] <= now:
            flight = heappop(self._due)[2]
            if flight._state != SENT:
                continue
            arrived = _ask(flight)
            if arrived:
                flight._state = ARRIVED
                yield flight
            elif arrived is False:
                self._look_at(flight, now + CAP_CHECK)
            elif flight._written < self._proof:
                flight._state = CAPPED
                yield flight
            else:
                self._doubtful.append(flight)

    def _look_at(self, flight: Flight, at: float) -> None:
        self._count += 1
        heappush(self._due, (at, self._count, flight))


def _ask(flight: Flight) -> bool | None:
    if flight._evidence is None:
        return None
    try:
        return flight._evidence()
    except Exception:  # the transport's word on a socket that is gone
        log.debug("the transport cannot tell whether a request has arrived", exc_info=True)
        flight._evidence = None
        return None

"""Rate limiters: what keeps the client below the server's limit.

**How the limit is kept**

The server allows 40 requests in any 10 s per IP address (API documentation: authentication, rate limit). It counts
*arrivals*; a client knows only when it sent and when the answer came. A limiter that stamps at send time lets the
server see up to 75 arrivals in 10 s once latency varies. So:

    A slot is taken when a request may leave, and is free `period` + 2 ms after its response headers arrived.

*Proof.* Let s, a and h be the moments of sending, arriving and receiving the headers: s <= a <= h for every request.
Of any `limit` + 1 requests two share a slot. The later of the two was sent at s2 >= h1 + period >= a1 + period, so a2
>= s2 >= a1 + period: no half-open window of `period` holds both. Nothing is assumed about clocks (only one is read),
jitter or tails. The price is the mean round trip over the period: 1 % at 100 ms and 10 s.

In numbers, limit 1, period 10: sent at 0.0, arrived at 0.09 (unknown to us), headers at 0.1. The slot is free at
10.102, so the next arrival is later than 10.102, while the server frees its count at 10.09.

*Where no headers come.* A request that certainly never left gives its slot back at once. One that was sent and lost
is stamped then, plus 1 s in which it may still arrive. A slow answer holds its slot for no longer than 3 s after its
headers were written, provided that the request has arrived: on Linux TCP is asked whether the server's side has
acknowledged it; where it cannot be asked, a request that was written later must have been answered, and a late answer
moves the stamp.

*What is assumed.* That a lost request arrives within 1 s of its loss or never; that the edge counts what its TCP has
acknowledged; and, where TCP cannot be asked, that no request arrives later than 3 s + `period` after it was written
while others pass. For limiters that several processes share: that no process stands still for longer than a lease and
a period between taking a slot and writing the request.

*A 429 all the same* (another program uses the address) closes a gate for all: nothing is sent for at least a period.
The refused request comes back to the head of its line. If our own count cannot explain the 429, requests are spread
from then on, as some edges count in another way (`pacing`).

**Words**

- *slot*: one unit of the limit.
- *permit*: a slot handed to one request: held, sent, settled.
- *window*: the last `period` seconds, in which `limit` requests may arrive.
- *lease*: how long a slot that processes share is charged to one of them that may have died: 3.25 s, renewed.
- *hold cap*: after 3 s a request that has arrived holds its slot no longer.
- *cooldown*, *gate*: after a 429 nothing may be sent; the gate is closed until a moment that only moves out.
- *lane*: the waiters of one `Priority`; *stage*: their order within a lane, by what a request does to begun work.
- *pacing*: burst (all that the window allows at once) or smooth (one each `period / (limit - 2)`).
- *store*: where slots are kept: memory (`LocalLimiter`), a file (`FileLimiter`), Redis (`RedisLimiter`).
- *turn*, *member*: processes that wait for slots of one store take turns.
- *scheduler*: what is the same in all limiters: lanes, deadlines, one timer, loops, permits.
"""

from comfycontrol_async.limits._lanes import Priority, Stage
from comfycontrol_async.limits._memory import LocalLimiter
from comfycontrol_async.limits._permit import Permit
from comfycontrol_async.limits._protocol import Limiter, RateLimitSnapshot

__all__ = ["Limiter", "LocalLimiter", "Permit", "Priority", "RateLimitSnapshot", "Stage"]

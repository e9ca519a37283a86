"""A process that waits for slots of a RedisLimiter until it is killed.

python tests/support/redis_member.py '[URL, KEY, LIMIT, PERIOD]'
"""

import asyncio
import json
import sys

from comfycontrol_async.limits.redis import RedisLimiter


async def main(url: str, key: str, limit: int, period: float) -> None:
    """Want more than there is, and settle nothing."""
    limiter = RedisLimiter(url, key=key, limit=limit, period=period)
    await asyncio.gather(*(limiter.acquire() for _ in range(10 * limit)))


if __name__ == "__main__":
    asyncio.run(main(*json.loads(sys.argv[1])))

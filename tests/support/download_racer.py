"""A process that downloads one output into each of many directories, and prints how each ended.

python -m support.download_racer API DIRECTORY ROUNDS OVERWRITE
"""

import asyncio
import sys
from pathlib import Path

from comfycontrol_async import DownloadError
from support.services import ID, client_at


async def race(api: str, directory: Path, rounds: int, overwrite: bool) -> list[str]:
    """Download in every round, into a directory of that round; return "saved" or "refused" for each."""
    ends = []
    async with client_at(api) as comfy:
        for number in range(rounds):
            try:
                await comfy.get_run(ID).download(directory / str(number), overwrite=overwrite)
                ends.append("saved")
            except DownloadError as error:
                ends.append("refused" if "exists" in str(error) else str(error))
    return ends


if __name__ == "__main__":
    print(*asyncio.run(race(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "True")), sep="\n")

"""Thousands of pictures from a spreadsheet, in folders by a column, resumed after Ctrl-C, a crash or a reboot.

    COMFYCONTROL_API_TOKEN=cfc_... python batch.py colors.csv out/

The table has columns `id`, `album`, `color` and whatever else you keep in it. Start the same command again to go on:
what is done costs nothing, what runs is waited for, and with --retry-failed what failed on its runner is tried again.
"""

import argparse
import asyncio
import sys
from pathlib import Path

from comfycontrol_async import ComfyControl, MapProgress

GRAPH = Path(__file__).with_name("picture.json")


def show(progress: MapProgress) -> None:
    """Keep one line up to date."""
    left = "?" if progress.eta is None else f"{progress.eta:.0f} s"
    waits = f", waiting {progress.waiting_for_limit:.0f} s for the limit" if progress.waiting_for_limit >= 1 else ""
    line = f"{progress.done} done, {progress.failed} failed, {progress.running} running, {left} left{waits}"
    print(f"\r{line:<79}", end="", file=sys.stderr, flush=True)


async def main(table: Path, directory: Path, retry_failed: bool) -> int:
    """Run the batch; return how many rows have no picture."""
    failed = 0
    async with ComfyControl() as comfy:
        results = comfy.map(
            GRAPH,
            table,
            key="id",
            name="{album}-{id}",
            download_to=directory,
            template="{album}/{id}{ext}",
            journal=table.with_suffix(".journal"),
            retry_failed=retry_failed,
            on_progress=show,
        )
        async for result in results:
            if result.error is not None:
                failed += 1
                print(f"\n{result.key} ({result.row.get('note')}): {result.error}", file=sys.stderr)
    print(f"\n{failed} rows without a picture", file=sys.stderr)
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--retry-failed", action="store_true")
    arguments = parser.parse_args()
    try:
        sys.exit(min(asyncio.run(main(arguments.table, arguments.directory, arguments.retry_failed)), 100))
    except KeyboardInterrupt:
        sys.exit("\nstopped: what was submitted runs on; start the same command again to go on")

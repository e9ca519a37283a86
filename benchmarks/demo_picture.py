"""Record `comfycontrol demo` as a picture for the README: benchmarks/results/demo.svg.

    python benchmarks/demo_picture.py [--count 60] [--speed 20]

It runs the demo as it is, on a server that is faster than the real one, and keeps the last screen and the report. The
seconds on it are the server's.
"""

import argparse
import asyncio
import io
import re
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from rich.console import Console

from comfycontrol_async.cli._demo import report, run_prompts
from comfycontrol_async.cli._demo_view import Tally, draw_tally
from comfycontrol_async.testing import LocalServer

WIDTH = 80
TARGET = Path(__file__).parent / "results" / "demo.svg"


async def run(count: int, speed: float, directory: Path) -> Tally:
    """Run the demo's prompts on a server that is faster than the real one."""
    async with LocalServer(speed=speed) as server:
        return await run_prompts(server, count, directory)


def record(count: int, speed: float) -> str:
    """Run the demo and return its last screen and its report as SVG."""
    with tempfile.TemporaryDirectory() as directory:
        tally = asyncio.run(run(count, speed, Path(directory)))
    # What was counted is in real seconds; the picture shows the server's.
    tally.seconds, tally.next_free, tally.period = tally.seconds * speed, tally.next_free * speed, tally.period * speed
    printed = io.StringIO()
    with redirect_stdout(printed):
        report(tally, Path("comfycontrol-demo"))
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print("$ comfycontrol demo", style="bold")
    console.print(draw_tally(tally, WIDTH))
    console.print(printed.getvalue(), highlight=False, end="")
    picture = console.export_svg(title="comfycontrol demo")
    # It uses the reader's own monospaced font instead of fetching one.
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--speed", type=float, default=20.0)
    options = parser.parse_args()
    TARGET.write_text(record(options.count, options.speed), encoding="utf-8")
    print(f"wrote {TARGET.name}")


if __name__ == "__main__":
    main()

"""What an import costs: the package, and the names that programs begin with, beside the libraries that it stands on.

    python benchmarks/import_time.py      # half a minute

Wall time of whole processes, since that is what users wait for; the rows take turns, so that a busy machine slows all
alike. Bytecode is kept, as an installer does. The goal: the package over its libraries, at most 1.15.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from _report import machine, save, seconds, table

GOAL = 1.15
LIBRARIES = "import aiohttp, attrs, cattrs"
IMPORTS = (
    "pass",
    LIBRARIES,
    "import comfycontrol_async",
    "from comfycontrol_async import Graph",
    "from comfycontrol_async import ComfyControl",
    "from comfycontrol_async import *",
    "import comfycontrol_async.testing",
)


def start(code: str, environment: dict[str, str]) -> float:
    """Run code in a fresh interpreter, and return the seconds it took."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    with TemporaryDirectory() as bytecode:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for code in IMPORTS:  # compiles what is not compiled yet
            start(code, environment)
        times: dict[str, list[float]] = {code: [] for code in IMPORTS}
        for _ in range(options.rounds):
            for code in IMPORTS:
                times[code].append(start(code, environment))
    medians = {code: statistics.median(taken) for code, taken in times.items()}
    ratios = {code: median / medians[LIBRARIES] for code, median in medians.items()}
    rows = [[f"`{code}`", seconds(median), f"{ratios[code]:.2f}"] for code, median in medians.items()]
    text = f"# Import time\n\nMachine: {machine()}. Medians of {options.rounds} fresh processes.\n\n"
    text += table(["statement", "wall", "ratio"], rows)
    facts = {"machine": machine(), "seconds": medians, "ratio": ratios, "goal": GOAL}
    save("import_time", text, facts, options.json)


if __name__ == "__main__":
    main()

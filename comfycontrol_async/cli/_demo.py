"""`comfycontrol demo`: many prompts against a local server with the real rate limit."""

import asyncio
import json
import os
from importlib.resources import files
from pathlib import Path

from comfycontrol_async import ComfyControl, ComfyControlError, Graph, LocalLimiter, WatchPolicy
from comfycontrol_async.cli._demo_view import Tally, draw_tally, tell_tally
from comfycontrol_async.cli._execute import check_directory
from comfycontrol_async.cli._prompts import make_prompts
from comfycontrol_async.cli._serve import describe, until_interrupted
from comfycontrol_async.cli._show import error_console, follow, print_error, print_note, print_result
from comfycontrol_async.testing import LocalServer, read_png_text

# An event stream costs one request and its last event brings the outputs, which a poll has to ask for.
_STREAMS = 64

_TOLD_EVERY = 2.0
_SHOWN_FAILURES = 5


async def run_demo(count: int, output: Path, *, speed: float, keep: bool) -> int:
    """Start a server, run `count` prompts on it, and tell what that cost."""
    check_directory(output)
    # The server is on this machine: a proxy of the environment must not get its requests.
    os.environ["no_proxy"] = "*"
    async with LocalServer(speed=speed) as server:
        code = report(await run_prompts(server, count, output), output)
        if keep:
            print_note("")
            describe(server)
            await until_interrupted()
    return code


async def run_prompts(server: LocalServer, count: int, output: Path) -> Tally:
    """Run `count` prompts on a server, show how they get on, and return what was counted."""
    console = error_console()
    begun = console.get_time()
    tally = Tally(total=count)
    async with ComfyControl(
        server.token,
        base_url=server.url,
        limiter=LocalLimiter(server.limit, server.period),
        watch=WatchPolicy(min_interval=1 / server.speed, max_interval=10 / server.speed, max_streams=_STREAMS),
    ) as comfy:

        def look() -> Tally:
            return tally.look(comfy.limiter.snapshot(), server, console.get_time() - begun)

        print_note(
            f"{count} prompts against {server.url}, which allows {server.limit} requests per {server.period:g} s"
        )
        await follow(
            _run_all(comfy, tally, output),
            lambda: draw_tally(look(), console.width),
            lambda: tell_tally(look()),
            tell_every=_TOLD_EVERY,
        )
    return tally


async def _run_all(comfy: ComfyControl, tally: Tally, output: Path) -> None:
    graph = Graph(json.loads(files("comfycontrol_async.cli").joinpath("demo_workflow.json").read_text("utf-8")))
    prompts = enumerate(make_prompts(tally.total), 1)
    await asyncio.gather(*(_run_one(comfy, graph, index, prompt, tally, output) for index, prompt in prompts))


async def _run_one(comfy: ComfyControl, graph: Graph, index: int, prompt: str, tally: Tally, output: Path) -> None:
    """Take one prompt all the way; what fails is noted and does not stop the others."""
    try:
        run = await comfy.submit(graph, name=f"prompt-{index:03}", params={"prompt": prompt})
        tally.submitted += 1
        tally.running += 1
        try:
            await run.wait()
        finally:
            tally.running -= 1
        tally.done += 1
        for path in await run.download(output, template="{name}{ext}", overwrite=True):
            await asyncio.to_thread(_verify, path, prompt)
            tally.paths.append(path)
    except ComfyControlError as error:
        tally.failures.append(error)


def _verify(path: Path, prompt: str) -> None:
    """Read the graph that an image carries and look for its prompt.

    Raises:
        ComfyControlError: it is not there.
    """
    try:
        nodes = json.loads(read_png_text(path.read_bytes())["prompt"]).values()
        if any(node["inputs"].get("text") == prompt for node in nodes):
            return
        reason = f"holds another prompt than {prompt!r}"
    except (OSError, ValueError, KeyError) as error:
        reason = f"cannot be verified: {error}"
    raise ComfyControlError(f"{path} {reason}")


def report(tally: Tally, output: Path) -> int:
    """Print what it cost, and return the exit code."""
    for failure in tally.failures[:_SHOWN_FAILURES]:
        print_error(failure)
    if len(tally.failures) > _SHOWN_FAILURES:
        print_note(f"and {len(tally.failures) - _SHOWN_FAILURES} failures more")
    good = len(tally.paths) == tally.total and not tally.failures and not tally.refused
    print_result(f"workflows  {tally.done} of {tally.total} completed in {tally.seconds:.1f} s")
    print_result(f"files      {len(tally.paths)} PNG in {output}, each verified to carry its prompt")
    print_result(
        f"requests   {tally.requests}, {tally.requests / tally.total:.2f} per workflow; "
        f"at most {tally.peak} in {tally.period:g} s, of {tally.limit} allowed"
    )
    print_result(f"429s       {tally.refused}")
    return 0 if good else 1

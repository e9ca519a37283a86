"""`comfycontrol map` and `journal`."""

import json
import shlex
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from comfycontrol_async.testing import LocalServer
from support.command_line import TXT2IMG, call, ended, errors, line_with, listed, started

SPEED = 50.0
# The server here is faster than the real one, and so is its limit.
FAST = {"COMFYCONTROL_LIMITER": "local?limit=1000&period=1"}


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in FAST.items():
        monkeypatch.setenv(name, value)


def make_table(path: Path, rows: int) -> list[str]:
    """Write a CSV with an id, a prompt and a note, and return the options that run it."""
    lines = ["id,prompt,note", *(f"r{number:03},a cat {number},never sent" for number in range(rows))]
    path.write_text("\n".join(lines) + "\n")
    directory = path.parent
    return [TXT2IMG, str(path), "-o", str(directory / "out"), "--journal", str(directory / "b.sqlite"), "--key", "id"]


async def test_map(tmp_path: Path) -> None:
    """Each row makes one workflow and one file, the paths are printed, and again nothing is left to do."""
    options = make_table(tmp_path / "rows.csv", 5)
    async with LocalServer(speed=SPEED, limit=1000) as server:
        result = await call(server, "map", *options)
        assert result.exit_code == 0, result.output
        assert len(server.workflows) == 5
        files = listed(tmp_path / "out")
        assert sorted(result.stdout.splitlines()) == [str(path) for path in files]
        assert "5 rows in" in result.stderr
        again = await call(server, "map", *options)
        assert again.exit_code == 0, again.output
        assert len(server.workflows) == 5
    counts = json.loads((await call(None, "journal", str(tmp_path / "b.sqlite"), "--json")).stdout)
    assert counts["downloaded"] == 5
    rows = await call(None, "journal", str(tmp_path / "b.sqlite"), "--state", "downloaded")
    assert [json.loads(line)["key"] for line in rows.stdout.splitlines()] == [f"r{number:03}" for number in range(5)]
    assert "downloaded  5" in (await call(None, "journal", str(tmp_path / "b.sqlite"))).stdout


async def test_failed_rows(tmp_path: Path) -> None:
    """A row that fails is an error of its own and exit code 3; --retry-failed tries it once more."""
    options = make_table(tmp_path / "rows.csv", 4)
    fails = iter([False, True, False, False])
    async with LocalServer(
        speed=SPEED, limit=1000, outcome=lambda _: "failed" if next(fails, False) else "completed"
    ) as server:
        result = await call(server, "map", *options)
        assert result.exit_code == 3, result.output
        assert len(errors(result)) == 1
        assert len(listed(tmp_path / "out")) == 3
        (command,) = (line for line in result.stderr.splitlines() if line.endswith("--retry-failed"))
        words = shlex.split(command[command.index("comfycontrol map") :])
        again = await call(server, *words[1:])
        assert again.exit_code == 0, again.output
        assert len(server.workflows) == 5
    assert len(listed(tmp_path / "out")) == 4


@pytest.mark.parametrize("form", ["--json", "--ndjson"])
async def test_forms(form: str, tmp_path: Path) -> None:
    """--json prints the counts, --ndjson an event for each row and the counts."""
    options = make_table(tmp_path / "rows.csv", 3)
    async with LocalServer(speed=SPEED, limit=1000) as server:
        result = await call(server, "map", *options, form)
    *events, last = (
        [json.loads(line) for line in result.stdout.splitlines()] if form == "--ndjson" else [json.loads(result.stdout)]
    )
    assert {name: last[name] for name in ("rows", "done", "failed", "files")} == {
        "rows": 3,
        "done": 3,
        "failed": 0,
        "files": 3,
    }
    assert last["requests"] >= 6
    for event in events:
        assert sorted(event) == ["error", "event", "id", "index", "key", "paths", "status"]
        assert (event["event"], event["status"], len(event["paths"])) == ("row", "completed", 1)
    assert len(events) == (3 if form == "--ndjson" else 0)


BAD = {
    "absent": ("absent.csv", None, 2),
    "no column": ("rows.csv", "id\n1\n", 2),
    "empty": ("rows.csv", "", 2),
    "ending": ("rows.xlsx", "id\n", 2),
}


@pytest.mark.parametrize(("name", "text", "code"), BAD.values(), ids=BAD)
async def test_bad_tables(name: str, text: str | None, code: int, tmp_path: Path) -> None:
    """What no row could run is one line before anything is sent."""
    if text is not None:
        (tmp_path / name).write_text(text)
    where = ("-o", str(tmp_path / "out"), "--journal", str(tmp_path / "b.sqlite"))
    async with LocalServer() as server:
        result = await call(server, "map", TXT2IMG, str(tmp_path / name), *where)
        assert not server.workflows
    assert result.exit_code == code, result.output
    assert len(errors(result)) == 1


async def test_no_journal(tmp_path: Path) -> None:
    """A file that is no journal is one line."""
    (tmp_path / "x").write_text("no journal")
    for name in ("x", "absent"):
        result = await call(None, "journal", str(tmp_path / name))
        assert result.exit_code == 2
        assert len(errors(result)) == 1


async def kill_and_resume(tmp_path: Path, rows: int) -> None:
    """Interrupt a batch, kill it, resume it each time by what was printed, and see that each row was made once."""
    command = ["map", *make_table(tmp_path / "rows.csv", rows)]
    async with LocalServer(speed=SPEED, limit=1000, duration=5.0) as server:
        async with started(server, *command) as process:
            await line_with(process.stdout, ".png")
            process.send_signal(signal.SIGINT)
            code, _, err = await ended(process)
        assert code == 130
        printed = err.splitlines()[-1]
        assert printed.startswith("comfycontrol map ")
        async with started(server, *shlex.split(printed)[1:]) as process:
            await line_with(process.stdout, ".png")
            process.kill()
            await process.wait()
        async with started(server, *shlex.split(printed)[1:]) as process:
            code, _, err = await ended(process)
        assert code == 0, err
        made = Counter(workflow.values["$prompt"] for workflow in server.workflows.values())
        assert len(made) == rows
        assert set(made.values()) == {1}
    assert len(listed(tmp_path / "out")) == rows


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
async def test_resume(tmp_path: Path) -> None:
    """Ctrl-C prints the command that resumes the batch; with it, also after `kill -9`, every row is made once."""
    await kill_and_resume(tmp_path, 25)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_resume_of_many(tmp_path: Path) -> None:
    """So it is with 300 rows."""
    await kill_and_resume(tmp_path, 300)


async def test_nothing_read(tmp_path: Path) -> None:
    """A table that is not there is the error alone: there is no batch to go on with."""
    async with LocalServer() as server:
        table, journal = tmp_path / "absent.csv", tmp_path / "batch.sqlite"
        result = await call(server, "map", TXT2IMG, str(table), "-o", str(tmp_path), "--journal", str(journal))
    assert result.exit_code == 2
    assert result.stderr.splitlines() == errors(result)
    assert len(errors(result)) == 1

"""What commands print: laid out for any width, and never failing on a stream that cannot take it."""

import io
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from comfycontrol_async import GraphIssue, WorkflowStatus
from comfycontrol_async.cli import _show
from comfycontrol_async.cli._show import OutputError, fit, print_json, print_result, show_seconds, table
from support.command_line import plain_environment

PIECES = ["3 queued", "12 running", "waiting for the rate limit 7 s", "1,498 requests", "2 failed"]


@pytest.mark.parametrize("width", [10, 40, 60, 80, 120])
def test_fit(width: int) -> None:
    """No piece is lost or broken; lines are as wide as they can be."""
    lines = fit(PIECES, width)
    assert ", ".join(lines) == ", ".join(PIECES)
    assert all(len(line) <= max(width, max(map(len, PIECES))) for line in lines)
    assert (len(lines) == 1) is (width > 75)


def test_fit_counts_columns() -> None:
    """A wide character takes two columns."""
    assert fit(["東京東京", "x"], 10) == ["東京東京", "x"]
    assert fit(["東京東京", "x"], 11) == ["東京東京, x"]


ROWS = [
    {"id": "a1b2c3d4-e5f6-7890-abcd-ef1234567890", "status": "completed", "name": "a café in 東京"},
    {"id": "b2c3d4e5-f6a7-8901-bcde-f12345678901", "status": "queued", "name": "x"},
]


@pytest.mark.parametrize("width", [0, 40, 60, 80, 120])
def test_table(width: int) -> None:
    """Ids and names stay whole: where a table is too wide, each field gets a line."""
    lines = table(ROWS, width)
    text = "\n".join(lines)
    for row in ROWS:
        assert all(value in text for value in row.values())
    assert (lines[0].split() == ["ID", "STATUS", "NAME"]) is (width in (0, 80, 120))


def test_table_without_rows() -> None:
    """Nothing is nothing."""
    assert table([], 80) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (90000, "25 h 0 min"),
    ],
)
def test_seconds(seconds: float, text: str) -> None:
    """Durations are short."""
    assert show_seconds(seconds) == text


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Models are written by their fields, moments as the API writes them."""
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    print_json(
        {"at": moment, "path": Path("a/b"), "issue": GraphIssue("error", "5.seed", "é"), "s": WorkflowStatus.QUEUED}
    )
    out = capsys.readouterr().out
    assert json.loads(out) == {
        "at": "2026-01-02T03:04:05Z",
        "path": str(Path("a/b")),
        "issue": {"severity": "error", "place": "5.seed", "message": "é"},
        "s": "queued",
    }
    assert out.isascii()


class Full(io.StringIO):
    """A stream whose disk is full."""

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_full_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is one error of ours, and the next line does not fail again."""
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(OutputError, match="cannot write to stdout: No space left on device"):
        print_result("x")
    print_result("y")


CODE = """
import sys
from comfycontrol_async.cli._execute import execute
from comfycontrol_async.cli import make_streams_tolerant
from comfycontrol_async.cli._show import print_note, print_result
import typer
async def work():
    for _ in range(20000):
        print_result("東京 é")
    return 0
make_streams_tolerant()
print_note("note 東京")
try:
    execute(work())
except typer.Exit as end:
    sys.exit(end.exit_code)
"""


@pytest.mark.parametrize("encoding", [pytest.param("ascii", marks=pytest.mark.slow), "cp1252"])
def test_narrow_encodings(encoding: str) -> None:
    """What an encoding does not have is escaped: paid work never ends in a traceback."""
    environment = plain_environment() | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"\\u6771\\u4eac ")
    assert b"note \\u6771" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
def test_closed_stdout() -> None:
    """A reader that goes away is one line on stderr, and exit code 1."""
    command = f"{sys.executable} -c '{CODE}' | head -1 > /dev/null; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=plain_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[1:] == ["error: cannot write to stdout: Broken pipe"]


def test_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that cannot move its cursor gets lines."""
    from rich.console import Console

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "dumb")
    assert not _show.is_live(Console(file=Terminal(), force_interactive=True))
    monkeypatch.setenv("TERM", "xterm")
    assert _show.is_live(Console(file=Terminal(), force_interactive=True))

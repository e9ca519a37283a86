"""`-p` and `-f`: read, and completed from the graph."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from comfycontrol_async.cli import _params
from comfycontrol_async.cli._app import app
from comfycontrol_async.cli._params import complete_file, complete_text, read_headers, read_params
from support.command_line import BLEND, TXT2IMG


def test_values(tmp_path: Path) -> None:
    """A text may hold anything, `@` reads a file, `@@` is an at sign, and a file is a path."""
    (tmp_path / "prompt.txt").write_text("a cat\nin the rain\n", encoding="utf-8-sig")
    found = read_params(["a=b=c", "empty=", f"text=@{tmp_path}/prompt.txt", "handle=@@someone"], ["image=x.png"])
    assert found == {
        "a": "b=c",
        "empty": "",
        "text": "a cat\nin the rain",
        "handle": "@someone",
        "image": Path("x.png"),
    }


BAD = {
    "no pair": (["prompt"], [], "-p takes name=value"),
    "no name": ([], ["=x"], "-f takes name=path"),
    "twice": (["a=1"], ["a=2"], "'a' is given twice"),
    "absent": (["a=@absent.txt"], [], "'a' cannot be read from 'absent.txt'"),
}


@pytest.mark.parametrize(("texts", "files", "words"), BAD.values(), ids=BAD)
def test_bad(texts: list[str], files: list[str], words: str) -> None:
    """What is no parameter is refused with what to write instead."""
    with pytest.raises(typer.BadParameter, match=words):
        read_params(texts, files)


def test_no_text(tmp_path: Path) -> None:
    """A file that is no text is not sent as one."""
    (tmp_path / "picture").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(typer.BadParameter, match="it is not UTF-8 text"):
        read_params([f"a=@{tmp_path}/picture"], [])


def test_header_twice() -> None:
    """The second of two headers of one name is not taken in the place of the first; neither value is shown."""
    with pytest.raises(typer.BadParameter, match=r"^--header: 'x-key' is given twice$"):
        read_headers(["X-Key: one", "x-key: two"])


def test_file_without_an_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file is read up to a bound: a device has no end."""
    monkeypatch.setattr(_params, "_LARGEST_TEXT", 4096)
    (tmp_path / "endless").write_bytes(b"x" * 4097)
    with pytest.raises(typer.BadParameter, match="it is larger than 4 kB"):
        read_params([f"a=@{tmp_path}/endless"], [])


def _complete(complete: Any, file: str | None, incomplete: str) -> list[str]:
    return [text for text, _ in complete(SimpleNamespace(params={"file": file}, args=[]), incomplete)]


def test_completion() -> None:
    """The shell offers the graph's own parameters, then the options of a choice."""
    assert _complete(complete_text, TXT2IMG, "pr") == ["prompt="]
    assert "sampler=" in _complete(complete_text, TXT2IMG, "")
    options = _complete(complete_text, TXT2IMG, "sampler=")
    assert len(options) > 1
    assert all(option.startswith("sampler=") and option != "sampler=" for option in options)
    assert _complete(complete_file, BLEND, "") == ["image="]
    assert _complete(complete_file, TXT2IMG, "") == []


def test_completion_without_a_graph() -> None:
    """A shell gets nothing, and no error, where there is no graph to ask."""
    assert _complete(complete_text, None, "") == []
    assert _complete(complete_text, "absent.json", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (f"run {TXT2IMG} -p ", "prompt="),
        (f"run {TXT2IMG} --param sam", "sampler="),
        (f"submit {TXT2IMG} -p prompt=x -p sampler=dd", "sampler=ddim"),
        (f"check {BLEND} --file ", "image="),
    ],
    ids=["empty", "begun", "second", "file"],
)
def test_completion_by_shells(shell: str, words: str, found: str) -> None:
    """So a shell asks: with the line so far in the environment."""
    line = f"comfycontrol {words}"
    environment = {
        "_COMFYCONTROL_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    result = CliRunner().invoke(app, [], env=environment, prog_name="comfycontrol")
    assert result.exit_code == 0
    assert found in result.output

"""Names of files: harmless on every system, and told apart on each."""

import ntpath
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfycontrol_async import InvalidArgumentError
from comfycontrol_async.runs import _file_names
from comfycontrol_async.runs._file_names import extension, folded, name_of, safe_name, target_names

SAFE = {
    "plain": ("a.png", "a.png"),
    "spaces-inside": ("a b.png", "a b.png"),
    "spaces-around": ("  a.png  ", "a.png"),
    "letters": ("\u732b-\u00e9.png", "\u732b-\u00e9.png"),
    "joined-emoji": ("\U0001f468\u200d\U0001f469.png", "\U0001f468\u200d\U0001f469.png"),
    "decomposed": ("e\u0301.png", "\u00e9.png"),
    "empty": ("", "_"),
    "dots": ("..", "_"),
    "only-spaces": ("   ", "_"),
    "slash": ("a/b", "a_b"),
    "backslash": ("..\\up", "_.._up"),
    "drive": ("C:\\x", "C__x"),
    "stream": ("a:stream", "a_stream"),
    "wildcards": ("a*?.png", "a__.png"),
    "quotes": ('"a"<b>|', "_a__b__"),
    "zero": ("a\0b", "a_b"),
    "newline": ("a\r\nb", "a__b"),
    "control": ("a\x85\x9f", "a__"),
    "line-separator": ("a\u2028b", "a_b"),
    "direction": ("\u202egnp.exe", "_gnp.exe"),
    "isolate": ("a\u2066b\u2069", "a_b_"),
    "byte-order": ("\ufeffa", "_a"),
    "surrogate": ("a\ud800b", "a_b"),
    "hidden": (".bashrc", "_.bashrc"),
    "option": ("-rf", "_-rf"),
    "trailing-dots": ("a. . .", "a"),
    "trailing-space": ("a.png ", "a.png"),
    "device": ("con", "_con"),
    "device-extension": ("NUL.tar.gz", "_NUL.tar.gz"),
    "device-space": ("con .txt", "_con .txt"),
    "device-input": ("CONIN$", "_CONIN$"),
    "device-port": ("com1.png", "_com1.png"),
    "device-superscript": ("LPT\u00b3", "_LPT\u00b3"),
    "no-device": ("console.png", "console.png"),
    "no-device-ten": ("com10", "com10"),
    "long": ("x" * 300 + ".png", "x" * 196 + ".png"),
    "long-extension": ("x." + "y" * 300, "x." + "y" * 198),
    "long-letters": ("\u732b" * 100, "\u732b" * 66),
    "long-cut-at-a-dot": ("x" * 195 + ". . . .png", "x" * 195 + ".png"),
}


@pytest.mark.parametrize("name", SAFE)
def test_safe_name(name: str) -> None:
    """Each text becomes one harmless component."""
    text, expected = SAFE[name]
    assert safe_name(text) == expected


@given(st.text(st.characters(exclude_categories=()), max_size=300))
def test_safe_name_holds_everywhere(text: str) -> None:
    """Whatever the text: one component, in NFC, not hidden, no device, not too long; and safe again is the same."""
    name = safe_name(text)
    assert name
    assert not set(name) & set('/\\:*?"<>|\0')
    assert name == unicodedata.normalize("NFC", name)
    assert name[0] not in ".- "
    assert name[-1] not in ". "
    assert not _file_names._is_device(name)
    assert len(name.encode()) <= 200
    assert safe_name(name) == name


@pytest.mark.skipif(not hasattr(ntpath, "isreserved"), reason="Python 3.13 knows the rule")
@given(st.text(max_size=12))
def test_reserved(text: str) -> None:
    """No safe name is reserved on Windows, by Python's own rule."""
    assert not ntpath.isreserved(safe_name(text))  # type: ignore[attr-defined,unused-ignore] # newer than 3.11


@pytest.mark.parametrize("device", sorted(_file_names._DEVICES))
def test_every_device(device: str) -> None:
    """Our own table names the same devices as Python's, with an extension and without."""
    for name in (device, device.upper(), f"{device}.png", f"{device} .png"):
        assert _file_names._is_device(name)
        assert safe_name(name) == f"_{name}"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("A.png", "a.PNG", id="case"),
        pytest.param("\u00e9", "e\u0301", id="accent"),
        pytest.param("STRASSE", "stra\u00dfe", id="sharp-s"),
        pytest.param("\u212b", "\u00e5", id="angstrom"),
        pytest.param("\u01c5", "\u01c6", id="titlecase"),
    ],
)
def test_folded(one: str, other: str) -> None:
    """Names that are one file somewhere are equal."""
    assert folded(one) == folded(other)


class TestTargets:
    """Names by a template."""

    def test_fields(self) -> None:
        """Every field is filled in; the index counts from 1."""
        names = target_names("{name}-{index:03}-{id}{ext}", [".png", ""], name="n", id="i")
        assert names == ["n-001-i.png", "n-002-i"]

    @pytest.mark.parametrize(
        ("template", "end"),
        [
            ("{name}-{index:03}{ext}", "-007.png"),
            ("{name}{name}_{index}{ext}", "_7.png"),
            ("{id}-{name:>40}-{index}{ext}", "-7.png"),
        ],
    )
    @pytest.mark.parametrize("name", ["x" * 300, "\u732b" * 200, "e\u0301" * 150, "a. " * 100, "\ud800" * 300])
    def test_long_names(self, template: str, end: str, name: str) -> None:
        """A long name is cut, and what tells the outputs apart stays."""
        names = target_names(template, [".png"] * 12, name=name, id="w")
        assert len({*names}) == 12
        assert names[6].endswith(end)
        assert all(190 < len(found.encode()) <= 200 for found in names)

    @pytest.mark.parametrize("extensions", [[".png", ".PNG"], [".png", ".png"], ["", ""]])
    def test_one_file(self, extensions: list[str]) -> None:
        """Two outputs never share a file, on no system."""
        with pytest.raises(InvalidArgumentError, match="index"):
            target_names("{name}{ext}", extensions, name="n", id="i")

    @pytest.mark.parametrize(
        "template",
        [
            "{nothing}",
            "{}",
            "{0}",
            "{name",
            "{index:q}",
            "{name.nothing}",
            "{index:%d}",
            "{name:>9999999999999}",
            "{index:999999999}",
            5,
            None,
        ],
    )
    def test_slips(self, template: str) -> None:
        """A template with a slip is an error of ours."""
        with pytest.raises(InvalidArgumentError, match="template"):
            target_names(template, [".png"], name="n", id="i")


@pytest.mark.parametrize(
    ("url", "suffix", "name"),
    [
        pytest.param("https://h/o/image001.png?signature=s", ".png", "image001.png", id="plain"),
        pytest.param("https://h/o/a%20b.PNG", ".PNG", "a b.PNG", id="escaped"),
        pytest.param("https://h/o/..%2f..%2fx.png", ".png", "_.._.._x.png", id="traversal"),
        pytest.param("https://h/o/x.p%2Fng", "", "x.p_ng", id="slash-in-extension"),
        pytest.param("https://h/o/", "", "output-003", id="no-name"),
        pytest.param("https://h", "", "output-003", id="no-path"),
        pytest.param("https://h/..", "", "output-003", id="dots"),
        pytest.param("http://[bad/x.png", "", "output-003", id="no-url"),
        pytest.param("", "", "output-003", id="empty"),
        pytest.param("https://h/o/archive.tar.gz#x", ".gz", "archive.tar.gz", id="two-suffixes"),
        pytest.param("https://h/o/x.averylongsuffix", "", "x.averylongsuffix", id="no-extension"),
    ],
)
def test_url(url: str, suffix: str, name: str) -> None:
    """The end of a URL's path gives a harmless name and extension, or none."""
    assert extension(url) == suffix
    assert name_of(url, 2) == name

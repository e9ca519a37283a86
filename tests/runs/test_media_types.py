"""Media types of outputs."""

import pytest

from comfycontrol_async.runs._media_types import media_type


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [(".png", "image/png"), (".JPG", "image/jpeg"), (".mp4", "video/mp4"), ("", "application/octet-stream")],
)
def test_media_type(suffix: str, kind: str) -> None:
    """An extension tells the media type, whatever the system's table says."""
    assert media_type(suffix) == kind

"""The files that a workflow leaves: names, counts, types, contents."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from comfycontrol_async import NodeDefinitions
from comfycontrol_async.testing import LocalServer, read_png_text
from comfycontrol_async.testing.server._outputs import MEDIA_TYPES, make_content, name_outputs, saves_files
from support.bare_api import serving
from support.waiting import eventually


def picture(batch: int = 1) -> dict[str, Any]:
    """Return a node that makes pictures."""
    return {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": batch, "color": 255}}


def saver(class_type: str, source: str = "1", **inputs: Any) -> dict[str, Any]:
    """Return a node that saves them."""
    return {"class_type": class_type, "inputs": {"images": [source, 0], "filename_prefix": "pic", **inputs}}


def names(graph: dict[str, Any]) -> list[str]:
    """Return the names of the files of a graph."""
    return [name for _, name in name_outputs(graph)]


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        pytest.param(saver("SaveImage"), ["pic_00001_.png", "pic_00002_.png"], id="one-for-each-picture"),
        pytest.param(saver("SaveImageExtended"), ["pic_00001_.png", "pic_00002_.png"], id="custom-pictures"),
        pytest.param(saver("Image Save", extension="webp"), ["pic_00001_.webp", "pic_00002_.webp"], id="custom-format"),
        pytest.param(saver("JPGSave", format="jpg"), ["pic_00001_.jpg", "pic_00002_.jpg"], id="custom-jpg"),
        pytest.param(saver("SaveVideo", format="auto"), ["pic_00001_.mp4"], id="video"),
        pytest.param(saver("SaveWEBM"), ["pic_00001_.webm"], id="webm"),
        pytest.param(saver("SaveAnimatedWEBP"), ["pic_00001_.webp"], id="webp"),
        pytest.param(saver("SaveAnimatedPNG"), ["pic_00001_.png"], id="animated-png"),
        pytest.param(saver("SaveLatent"), ["pic_00001_.latent"], id="latent"),
        pytest.param(saver("SaveAudio"), ["pic_00001_.flac"], id="flac"),
        pytest.param(saver("SaveAudioMP3"), ["pic_00001_.mp3"], id="mp3"),
        pytest.param(saver("SaveGLB"), ["pic_00001_.glb"], id="mesh"),
        pytest.param(saver("VHS_VideoCombine", format="video/h264-mp4"), ["pic_00001.mp4"], id="video-helper"),
        pytest.param(saver("VHS_VideoCombine", format="image/gif"), ["pic_00001.gif"], id="video-helper-gif"),
        pytest.param(saver("VHS_VideoCombine", format="video/h264-mp4", save_output=False), [], id="video-helper-temp"),
        pytest.param(saver("PreviewImage"), [], id="preview"),
        pytest.param(saver("SaveImageWebsocket"), [], id="websocket"),
        pytest.param(saver("CheckpointSave"), [], id="model"),
        pytest.param(saver("SaveVideo", filename_prefix="a/b c/../pic"), ["a/b_c/pic_00001_.mp4"], id="folder"),
    ],
)
def test_names(node: dict[str, Any], expected: list[str]) -> None:
    """The class decides the type and whether each picture has a file."""
    assert names({"1": picture(2), "2": node}) == expected


def test_counted_per_prefix() -> None:
    """Files of one prefix are counted on, over several nodes; another prefix or folder begins again."""
    graph = {"1": picture(2), "2": saver("SaveImage"), "3": saver("SaveImage"), "4": saver("SaveImage")}
    graph["4"]["inputs"]["filename_prefix"] = "other"
    graph["5"] = saver("SaveVideo", filename_prefix="video/pic")
    assert names(graph) == [
        *(f"pic_0000{number}_.png" for number in (1, 2, 3, 4)),
        "other_00001_.png",
        "other_00002_.png",
        "video/pic_00001_.mp4",
    ]


@pytest.mark.parametrize(
    ("nodes", "count"),
    [
        pytest.param({"1": picture(3)}, 3, id="made"),
        pytest.param(
            {"0": picture(3), "1": {"class_type": "ImageInvert", "inputs": {"image": ["0", 0]}}}, 3, id="passed"
        ),
        pytest.param(
            {
                "8": picture(2),
                "9": picture(3),
                "1": {"class_type": "ImageBatch", "inputs": {"image1": ["8", 0], "image2": ["9", 0]}},
            },
            5,
            id="joined",
        ),
        pytest.param(
            {"0": picture(2), "1": {"class_type": "RepeatImageBatch", "inputs": {"image": ["0", 0], "amount": 4}}},
            8,
            id="repeated",
        ),
        pytest.param({"1": picture(0)}, 1, id="none"),
        pytest.param({"1": {"class_type": "EmptyImage", "inputs": {"batch_size": "two"}}}, 1, id="no-number"),
        pytest.param({"1": picture(10**9)}, 4096, id="too-many"),
    ],
)
def test_batches(nodes: dict[str, Any], count: int) -> None:
    """The size of a batch is followed from the node that makes it to the one that saves it."""
    assert len(names({**nodes, "2": saver("SaveImage")})) == count


def test_savers() -> None:
    """Loaders whose name speaks of outputs save nothing."""
    assert [
        saves_files(name) for name in ("SaveImage", "ImageSaver", "LoadImageOutput", "LoadSavedImage", "KSampler")
    ] == [
        True,
        True,
        False,
        False,
        False,
    ]


BEGINNINGS = {
    ".png": b"\x89PNG\r\n\x1a\n",
    ".jpg": b"\xff\xd8\xff",
    ".gif": b"GIF89a",
    ".webm": b"\x1a\x45\xdf\xa3",
    ".flac": b"fLaC",
    ".mp3": b"ID3",
    ".opus": b"OggS",
    ".svg": b"<svg",
    ".wav": b"RIFF",
    ".glb": b"glTF",
}


@pytest.mark.parametrize("extension", [*MEDIA_TYPES, ".latent", ".unknown"])
def test_contents(extension: str) -> None:
    """Files begin as their type does; a name of no known type has a picture."""
    prompt = {"1": picture(), "2": saver("SaveImage")}
    data = make_content(f"pic_00001_{extension}", prompt, 7)
    assert data.startswith(BEGINNINGS.get(extension, b""))
    if extension in (".mp4", ".mov"):
        assert data[4:8] == b"ftyp"
        assert data[20:28] == struct.pack(">I", len(data) - 20) + b"free"
    elif extension == ".latent":
        (length,) = struct.unpack("<Q", data[:8])
        assert json.loads(data[8 : 8 + length])["latent_tensor"]["data_offsets"] == [0, len(data) - 8 - length]
    elif extension == ".glb":
        assert struct.unpack("<I", data[8:12]) == (len(data),)
        assert json.loads(data[20:])["asset"]["version"] == "2.0"
    elif extension == ".webp":
        assert (data[:4], data[8:12], struct.unpack("<I", data[4:8])) == (b"RIFF", b"WEBP", (len(data) - 8,))
    elif extension in (".png", ".unknown"):
        assert json.loads(read_png_text(data)["prompt"]) == prompt


async def test_over_http() -> None:
    """Outputs come in order, with their names, media types and distinct paths; previews are not listed."""
    graph = {
        "1": picture(2),
        "2": saver("SaveImage"),
        "3": saver("PreviewImage"),
        "4": saver("SaveVideo", filename_prefix="video/pic"),
        "5": saver("SaveLatent", filename_prefix="x"),
    }
    async with serving(speed=1000.0, output_size=5000) as api:
        id = await api.create(graph)
        await eventually(lambda: api.server.workflows[id].status == "completed")
        outputs = await api.get(f"/v1/workflow/{id}/outputs")
        assert len({output["id"] for output in outputs}) == 4
        replies = [await api.call("GET", output["src"], headers={}) for output in outputs]
        paths = [output["src"].partition("?")[0].partition(id)[2] for output in outputs]
        assert paths == ["/pic_00001_.png", "/pic_00002_.png", "/video/pic_00001_.mp4", "/x_00001_.latent"]
        types = [reply.headers["Content-Type"] for reply in replies]
        assert types == ["image/png", "image/png", "video/mp4", "application/octet-stream"]
        assert [(reply.status, len(reply.body)) for reply in replies] == [(200, 5000)] * 4


async def test_prompt_without_a_runner() -> None:
    """The graph of a workflow that waits for a runner is filled in as well."""
    graph = {"1": picture(), "2": saver("SaveImage", stamp="$timestamp()")}
    async with serving(tier="free") as api:
        (own,) = api.server.runners
        await api.call("PUT", f"/v1/runner/{own}", json={"status": "disabled"})
        id = await api.create(graph)
        assert api.server.workflows[id].status == "accepted"
        assert api.server.workflows[id].prompt["2"]["inputs"]["stamp"] > 1e12


async def test_invalid_says_why() -> None:
    """A graph that ComfyUI would refuse ends invalid, with the node and ComfyUI's error type."""
    async with serving(speed=1000.0) as api:
        id = await api.create({"2": saver("SaveImage")})
        await eventually(lambda: api.server.workflows[id].status == "invalid")
        full = await api.get(f"/v1/workflow/{id}")
        assert (full["error_node"], full["exception_type"]) == ("2", "exception_during_validation")
        assert "'1'" in full["exception_message"]


DEFINITIONS = Path(__file__).parents[1] / "data" / "comfyui" / "object_info.json"


async def test_node_definitions() -> None:
    """With definitions a graph that their ComfyUI refuses is invalid; of one that is half right the rest runs."""
    async with serving(speed=1000.0, node_definitions=NodeDefinitions.load(DEFINITIONS)) as api:
        wide = picture()
        wide["inputs"]["width"] = "$text(width)"
        half = {
            "1": wide,
            "2": saver("SaveImage"),
            "3": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}},
        }
        ids = [await api.create(half, **{"$width": width}) for width in ("8", "8.0", "99999")]
        found = []
        for id in ids:
            await eventually(lambda: api.server.workflows[ids[-1]].status in ("completed", "invalid"))
            full = await api.get(f"/v1/workflow/{id}")
            found.append((full["status"], full["error_node"], full["exception_type"]))
        assert found == [
            ("completed", None, None),
            ("invalid", "1", "invalid_input_type"),
            ("invalid", "1", "value_bigger_than_max"),
        ]
        assert [output.name for output in api.server.workflows[ids[0]].outputs] == ["pic_00001_.png"]
    with pytest.raises(ValueError, match="node_definitions must be NodeDefinitions"):
        LocalServer(node_definitions="object_info.json")  # type: ignore[arg-type] # what is tested

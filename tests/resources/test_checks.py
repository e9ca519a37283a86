"""Arguments that the API is known to refuse, found before a request is spent."""

import uuid
from typing import Any

import pytest

from comfycontrol_async import InvalidArgumentError
from comfycontrol_async.resources._checks import (
    check_endpoint,
    check_headers,
    check_id,
    check_per_page,
    check_tags,
    check_text,
    join_tags,
)
from support import documented

SECRET = "hunter2"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(documented.RUNNER_ID, id="uuid"),
        pytest.param(documented.RUNNER_ID.upper(), id="upper-case"),
        pytest.param(documented.TEMPLATE_ID, id="no-hex-as-in-the-documentation"),
        pytest.param(uuid.UUID(documented.RUNNER_ID), id="uuid-object"),
    ],
)
def test_id(value: Any) -> None:
    """An id is UUID-like text: the documentation's own examples are no valid UUIDs."""
    assert check_id(value) == str(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "5",
        "550e8400e29b41d4a716446655440000",
        "550e8400-e29b-41d4-a716-44665544000",
        "550e8400-e29b-41d4-a716-4466554400000",
        "550e8400-e29b-41d4-a716-446655440000\n",
        " 550e8400-e29b-41d4-a716-446655440000",
        "../../../-e29b-41d4-a716-446655440000",
        "550e8400/e29b-41d4-a716-446655440000",
        "550e8400-e29b-41d4-a716-44665544000?",
        "\u066550e8400-e29b-41d4-a716-446655440000",
        "output-1a2b3c4d-5e6f-7890-abcd-ef1234567890",
        None,
        5,
    ],
    ids=repr,
)
def test_id_refused(value: Any) -> None:
    """Nothing that could be another path, and no other text, is an id."""
    with pytest.raises(InvalidArgumentError, match="an id is text like"):
        check_id(value)


@pytest.mark.parametrize("value", ["a", "x" * 100, "ünï", " a "], ids=["one", "longest", "not-ascii", "blanks-around"])
def test_text(value: str) -> None:
    """Text within its length is taken as it is."""
    assert check_text("a name", value, 100) == value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param("", "a name must not be empty", id="empty"),
        pytest.param(" \n", "a name must not be empty", id="blank"),
        pytest.param("x" * 101, "a name has 101 characters, but the API takes at most 100", id="too-long"),
        pytest.param(None, "a name must be text, not NoneType", id="none"),
        pytest.param(5, "a name must be text, not int", id="number"),
        pytest.param(b"a", "a name must be text, not bytes", id="bytes"),
    ],
)
def test_text_refused(value: Any, message: str) -> None:
    """What is wrong with a text is said in its own words."""
    with pytest.raises(InvalidArgumentError, match=message):
        check_text("a name", value, 100)


@pytest.mark.parametrize(
    "value", ["https://comfy.example.com", "http://192.168.1.100:8188", "http://[::1]:8188/comfy", "HTTPS://a.test"]
)
def test_endpoint(value: str) -> None:
    """Every http or https URL is taken as it is written."""
    assert check_endpoint(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "comfy.example.com",
        "ftp://comfy.example.com",
        "https://",
        "https:///path",
        "http://[::1",
        f"comfy://user:{SECRET}@comfy.example.com",
        None,
        5,
    ],
    ids=repr,
)
def test_endpoint_refused(value: Any) -> None:
    """What is no such URL is refused, without the password that may be in it."""
    with pytest.raises(InvalidArgumentError, match="an endpoint is a URL like") as caught:
        check_endpoint(value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        pytest.param((), [], id="none"),
        pytest.param(["a", "b"], ["a", "b"], id="list"),
        pytest.param((tag for tag in ("a", "b")), ["a", "b"], id="generator"),
        pytest.param({"a": 1}, ["a"], id="keys"),
        pytest.param(["a", "a"], ["a", "a"], id="twice"),
        pytest.param(["t"] * 10, ["t"] * 10, id="as-many-as-there-may-be"),
    ],
)
def test_tags(value: Any, tags: list[str]) -> None:
    """Any iterable of texts is a list of tags."""
    assert check_tags(value, 10) == tags


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param("gpu", r"write tags=\['gpu'\]", id="text-is-no-list"),
        pytest.param(b"gpu", "tags must be a list of texts", id="bytes"),
        pytest.param(5, "tags must be a list of texts", id="number"),
        pytest.param(None, "tags must be a list of texts", id="none"),
        pytest.param(["a", ""], "a tag is text that is not empty", id="empty"),
        pytest.param([" "], "a tag is text that is not empty", id="blank"),
        pytest.param(["a", 5], "a tag is text that is not empty, not 5", id="number-inside"),
        pytest.param(["t"] * 11, "there are 11 tags, but the API takes at most 10", id="too-many"),
    ],
)
def test_tags_refused(value: Any, message: str) -> None:
    """What is no list of at most so many texts is refused."""
    with pytest.raises(InvalidArgumentError, match=message):
        check_tags(value, 10)


def test_joined_tags() -> None:
    """A workflow's tags are one text, so none of them can have a comma."""
    assert join_tags(["a", "b c"]) == "a,b c"
    assert join_tags([]) == ""
    assert join_tags([f"t{index}" for index in range(50)]).count(",") == 49
    with pytest.raises(InvalidArgumentError, match="the tag 'a,b' has a comma"):
        join_tags(["a,b"])


def test_headers() -> None:
    """Headers are taken as a mapping of texts, and copied."""
    given = {"Authorization": f"Bearer {SECRET}"}
    taken = check_headers(given)
    assert taken == given
    assert taken is not given


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param([("a", SECRET)], "headers must be a mapping of names to texts, not list", id="pairs"),
        pytest.param(SECRET, "headers must be a mapping of names to texts, not str", id="text"),
        pytest.param({"X-Key": [SECRET]}, "the header 'X-Key' must have text as its value", id="list"),
        pytest.param({"X-Key": SECRET.encode()}, "the header 'X-Key' must have text as its value", id="bytes"),
        pytest.param({5: SECRET}, "the header 5 must have text as its value", id="number-for-a-name"),
    ],
)
def test_headers_refused(value: Any, message: str) -> None:
    """What is no mapping of texts is refused, and no value is shown."""
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        check_headers(value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("value", [1, 10, 100])
def test_per_page(value: int) -> None:
    """A page has 1 to 100 items."""
    assert check_per_page(value) == value


@pytest.mark.parametrize("value", [0, -1, 101, 1.0, "10", True, None], ids=repr)
def test_per_page_refused(value: Any) -> None:
    """Any other size is refused."""
    with pytest.raises(InvalidArgumentError, match="per_page must be from 1 to 100"):
        check_per_page(value)

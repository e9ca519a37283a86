"""Page: one page of a listing."""

from typing import Any, Generic, TypeVar

import attrs

from comfycontrol_async.models._pydantic import PydanticModel

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class InvalidItem(PydanticModel):
    """An item of a page that is not what the API documents: its position, the fault and the raw JSON."""

    index: int
    message: str
    raw: Any = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Page(PydanticModel, Generic[T]):
    """One page of a listing, newest first.

    `total` counts the items of all pages as the server saw them at that moment; `number` starts at 1. One malformed
    item does not lose the page: it stands in `invalid_items` instead of `items`.
    """

    items: list[T]
    total: int
    number: int
    per_page: int
    invalid_items: list[InvalidItem] = attrs.field(factory=list)

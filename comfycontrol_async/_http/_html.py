"""What an HTML error page says: its title or its text, read in linear time, whatever the page is."""

# A page's title stands at its beginning, and its text is cut there too.
_LOOKED_AT = 16_384


def html_text(body: bytes | bytearray) -> str:
    """Return what an HTML error page says: its title, or the text of its beginning."""
    page = bytes(body[:_LOOKED_AT]).decode(errors="replace")
    lowered = page.lower()
    if len(lowered) != len(page):  # a few letters grow when they are lowered
        lowered = page
    title = _between(page, lowered)
    return " ".join((title if title is not None else _without_tags(page, lowered)).split())


def _between(page: str, lowered: str) -> str | None:
    """Return what stands in the first title element, None when there is none."""
    start = lowered.find("<title")
    opened = page.find(">", start) + 1 if start >= 0 else 0
    end = lowered.find("</title", opened) if opened else -1
    return page[opened:end] if end >= 0 else None


def _without_tags(page: str, lowered: str) -> str:
    """Return the text between the tags; what scripts and styles hold is none."""
    texts: list[str] = []
    at = 0
    while (start := page.find("<", at)) >= 0:
        texts.append(page[at:start])
        for name in ("script", "style"):
            if lowered.startswith(f"<{name}", start):
                closing = lowered.find(f"</{name}", start)
                start = closing if closing >= 0 else len(page)
        end = page.find(">", start)
        if end < 0:
            return " ".join(texts)
        at = end + 1
    return " ".join([*texts, page[at:]])

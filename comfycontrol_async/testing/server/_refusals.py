"""The bodies of a 429: an edge's HTML page, a problem document, or the API's own envelope."""

import json

from comfycontrol_async.testing.server._records import Answer, error_answer

REFUSALS = ("html", "problem", "json")

_PAGE = """<!DOCTYPE html>
<html>
<head><title>Error 1015 | {host} | Cloudflare</title></head>
<body>
<h1>Error 1015</h1>
<p>Too many requests came from your address, so {host} answers none of them for a while.</p>
<p>Ray ID: {ray}</p>
</body>
</html>
"""


def refuse(style: str, host: str, ray: str, cooling: float, retry_after: float | None) -> Answer:
    """Return a 429 in the given style.

    Args:
        style: One of `REFUSALS`.
        host: The name in the HTML page.
        ray: The id of the request at the edge.
        cooling: Real seconds until the edge lets requests pass again.
        retry_after: Real seconds for a Retry-After header, or None for no such header.
    """
    headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
    if style == "html":
        return Answer(429, _PAGE.format(host=host, ray=ray).encode(), "text/html; charset=UTF-8", headers)
    if style == "json":
        return Answer(429, error_answer(429).body, headers=headers)
    wait = cooling if retry_after is None else retry_after
    problem = {
        "title": "Error 1015: rate limited",
        "status": 429,
        "detail": "Too many requests came from your address.",
        "retry_after": round(wait, 3),
        "ray_id": ray,
    }
    return Answer(429, json.dumps(problem).encode(), "application/problem+json", headers)

"""`comfycontrol doctor`: what is set, what works, and what to do about what does not. One request."""

import asyncio
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import attrs

from comfycontrol_async import ComfyControl, ComfyControlError, ConfigurationError, RetryPolicy
from comfycontrol_async.cli._execute import connect, read_token, without_token
from comfycontrol_async.cli._exit_codes import DONE, TOKEN_VARIABLE, advice_for, exit_code_of
from comfycontrol_async.cli._limits import is_shared, look_at
from comfycontrol_async.cli._show import print_json, print_result, sanitize

# Seconds by which this machine's clock may differ from the service's before it is worth a word.
_SKEW = 5.0
_SUPPORT = "try again, or ask the service's support with the request id"
_PACKAGES = ("comfycontrol-async", "aiohttp", "attrs", "cattrs", "orjson", "uvloop", "redis", "obstore", "pyarrow")
_PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")


@attrs.frozen
class Finding:
    """One line of the report; `code` is the exit code that a failure asks for."""

    level: Literal["ok", "warn", "fail"]
    topic: str
    text: str
    code: int = DONE


async def examine(*, as_json: bool) -> int:
    """Print what was found; the exit code is that of the first failure."""
    findings = [*_versions(), *_environment()]
    if all(one.level != "fail" for one in findings):
        findings += await _connection()
    if as_json:
        print_json([attrs.asdict(finding, filter=lambda field, _: field.name != "code") for finding in findings])
    else:
        for one in findings:
            print_result(f"{one.level:<5} {one.topic:<9} {sanitize(one.text)}")
    return next((one.code for one in findings if one.level == "fail"), DONE)


def _versions() -> Iterator[Finding]:
    found = [f"Python {sys.version.split()[0]}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    yield Finding("ok", "versions", ", ".join(found))


def _environment() -> Iterator[Finding]:
    try:
        token = read_token()
    except ConfigurationError as error:
        yield Finding("fail", "token", str(error), exit_code_of(error))
    else:
        known = token.startswith("cfc_")
        yield Finding(
            "ok" if known else "warn",
            "token",
            "is set" if known else f"does not begin with cfc_: is {TOKEN_VARIABLE} the right one?",
        )
    try:
        yield Finding("ok", "server", without_token().base_url)
    except ConfigurationError as error:
        yield Finding("fail", "settings", str(error), exit_code_of(error))
    if proxies := [name for name in _PROXIES if os.environ.get(name)]:
        yield Finding("ok", "proxy", f"set by {', '.join(proxies)}")


async def _connection() -> list[Finding]:
    try:
        comfy = connect(RetryPolicy(attempts=1))
    except ConfigurationError as error:
        return [Finding("fail", "token", str(error), exit_code_of(error))]
    async with comfy:
        try:
            limit = await _limiter(comfy)
        except ComfyControlError as error:  # it is made when first used
            return [Finding("fail", "limit", str(error), exit_code_of(error))]
        return [limit, *await _reach(comfy)]


async def _limiter(comfy: ComfyControl) -> Finding:
    limiter = comfy.limiter
    now = await look_at(limiter)
    path = getattr(limiter, "path", None)
    place = "shared with other programs by Redis" if is_shared(limiter) else "this process only"
    place = f"shared with other programs by {path}" if path is not None else place
    text = f"{now.used} of {now.limit} in {now.period:g} s used, {place}"
    if now.cooldown:
        return Finding("warn", "limit", f"{text}; nothing may be sent for {now.cooldown:.0f} s after a 429")
    return Finding("ok", "limit", text)


async def _reach(comfy: ComfyControl) -> list[Finding]:
    begun = asyncio.get_running_loop().time()
    try:
        answer = await comfy.request("GET", "/v1/user", raw=True)
    except ComfyControlError as error:
        return [Finding("fail", "reach", f"{error}; {advice_for(error) or _SUPPORT}", exit_code_of(error))]
    seconds = asyncio.get_running_loop().time() - begun
    return [
        Finding("ok", "reach", f"{answer.status} after {seconds:.2f} s"),
        *clock_findings(answer.headers.get("Date"), datetime.now(UTC)),
    ]


def clock_findings(date: str | None, now: datetime) -> Iterator[Finding]:
    """Compare the Date of an answer with this machine's clock."""
    try:
        moment = parsedate_to_datetime(date or "")
    except ValueError:
        yield Finding("warn", "clock", "the server sends no Date, so the clocks cannot be compared")
        return
    skew = (now - (moment if moment.tzinfo else moment.replace(tzinfo=UTC))).total_seconds()
    if abs(skew) <= _SKEW:
        yield Finding("ok", "clock", f"differs from the server's by {abs(skew):.0f} s")
    else:
        side = "ahead of" if skew > 0 else "behind"
        yield Finding("warn", "clock", f"{abs(skew):.0f} s {side} the server's: set it, lost submits are found by time")

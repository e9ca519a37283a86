"""OpenTelemetry: a CLIENT span for each call of a client, and metrics; needs the extra `otel`.

    from comfycontrol_async.ext.otel import instrument

    async with ComfyControl() as comfy:
        instrument(comfy)

Attributes follow the semantic conventions for HTTP clients (OpenTelemetry, HTTP spans 1.23); our own begin with
`comfycontrol.`. Spans hold no query, header or body. Within a call its span is the current one.
"""

import re
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

from comfycontrol_async import ComfyControl, ConfigurationError, InvalidArgumentError, __version__
from comfycontrol_async.events import CallFinished, CallStarted, CooldownStarted, RequestFinished, RetryScheduled

try:
    from opentelemetry import context, metrics, trace
except ImportError as _error:
    raise ConfigurationError(
        "comfycontrol_async.ext.otel needs OpenTelemetry's API: pip install 'comfycontrol-async[otel]'"
    ) from _error

_NAME = "comfycontrol_async"
# Ids vary: they are no part of a span's name or of a metric (cardinality).
_ID = re.compile(r"/[0-9A-Za-z]{8}(-[0-9A-Za-z]{4}){3}-[0-9A-Za-z]{12}(?=/|$)")
# What one task has open: the span of its call, and what to put back at its end.
_Open = tuple[trace.Span, Any]


def instrument(
    comfy: ComfyControl,
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> Callable[[], None]:
    """Make spans and metrics of everything that this client and its siblings send; return a function that ends that.

    Args:
        comfy: a client.
        tracer_provider, meter_provider: default: the global ones.

    Metrics: `http.client.request.duration` (s), of each attempt; `comfycontrol.limiter.wait` (s), of each call;
    `comfycontrol.retries` and `comfycontrol.cooldowns`, counted.

    Raises:
        InvalidArgumentError: `comfy` is no client.
    """
    if not isinstance(comfy, ComfyControl):
        raise InvalidArgumentError(f"comfy must be a ComfyControl, not {type(comfy).__name__}")
    telemetry = _Telemetry(comfy.base_url, tracer_provider, meter_provider)
    ends = [
        comfy.on(CallStarted, telemetry.started),
        comfy.on(RequestFinished, telemetry.attempted),
        comfy.on(RetryScheduled, telemetry.retried),
        comfy.on(CallFinished, telemetry.finished),
        comfy.on(CooldownStarted, telemetry.cooling),
    ]

    def uninstrument() -> None:
        for end in ends:
            end()

    return uninstrument


class _Telemetry:
    """The spans and metrics of one client. Callbacks run in the task of their call, and so in its context."""

    def __init__(
        self,
        base_url: str,
        tracer_provider: trace.TracerProvider | None,
        meter_provider: metrics.MeterProvider | None,
    ) -> None:
        self._tracer = trace.get_tracer(_NAME, __version__, tracer_provider)
        meter = metrics.get_meter(_NAME, __version__, meter_provider)
        self._duration = meter.create_histogram(
            "http.client.request.duration", "s", "Duration of one attempt, from sending to the end of the answer."
        )
        self._wait = meter.create_histogram("comfycontrol.limiter.wait", "s", "Time a call waited for the rate limit.")
        self._retries = meter.create_counter("comfycontrol.retries", "{retry}", "Attempts after the first.")
        self._cooldowns = meter.create_counter("comfycontrol.cooldowns", "{cooldown}", "Gates that a 429 closed.")
        self._open: ContextVar[tuple[_Open, ...]] = ContextVar("comfycontrol_spans", default=())
        url = urlsplit(base_url)
        self._server: dict[str, Any] = {"server.address": url.hostname or ""}
        self._server["server.port"] = url.port or (443 if url.scheme == "https" else 80)

    def started(self, event: CallStarted) -> None:
        """Begin the span of a call, as the current one of its task."""
        span = self._tracer.start_span(
            f"{event.method} {_template(event.path)}",
            kind=trace.SpanKind.CLIENT,
            attributes={
                **self._server,
                "http.request.method": event.method,
                "url.path": event.path,
                "url.template": _template(event.path),
            },
        )
        token = context.attach(trace.set_span_in_context(span))
        self._open.set((*self._open.get(), (span, token)))

    def attempted(self, event: RequestFinished) -> None:
        """Measure an attempt, and note it in its span."""
        attributes = self._facts(event.method, event.path, event.status, event.error)
        self._duration.record(event.seconds, attributes)
        if opened := self._open.get():
            facts = {
                "comfycontrol.attempt": event.attempt,
                "comfycontrol.seconds": event.seconds,
                "comfycontrol.limiter.wait": event.limiter_wait,
            }
            opened[-1][0].add_event("attempt", facts | _outcome(event.status, event.error))

    def retried(self, event: RetryScheduled) -> None:
        """Count an attempt that is made again."""
        self._retries.add(1, self._facts(event.method, event.path, event.status, event.error))

    def finished(self, event: CallFinished) -> None:
        """End the span of a call."""
        self._wait.record(event.limiter_wait, self._facts(event.method, event.path, event.status, event.error))
        *outer, (span, token) = self._open.get() or ((trace.INVALID_SPAN, None),)
        if token is None:  # instrumented while the call was under way
            return
        self._open.set(tuple(outer))
        span.set_attributes(_outcome(event.status, event.error))
        span.set_attribute("comfycontrol.attempts", event.attempts)
        span.set_attribute("comfycontrol.limiter.wait", event.limiter_wait)
        if event.attempts > 1:
            span.set_attribute("http.request.resend_count", event.attempts - 1)
        if event.request_id is not None:
            span.set_attribute("comfycontrol.request_id", event.request_id)
        if event.error is not None:
            span.set_status(trace.StatusCode.ERROR, str(event.error))
        span.end()
        context.detach(token)

    def cooling(self, event: CooldownStarted) -> None:
        """Count a cooldown."""
        self._cooldowns.add(1, self._server)

    def _facts(self, method: str, path: str, status: int | None, error: BaseException | None) -> dict[str, Any]:
        facts = {"http.request.method": method, "url.template": _template(path)}
        return {**self._server, **facts, **_outcome(status, error)}


def _template(path: str) -> str:
    return _ID.sub("/{id}", path)


def _outcome(status: int | None, error: BaseException | None) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if status is not None:
        facts["http.response.status_code"] = status
    if error is not None:
        facts["error.type"] = str(status) if status is not None and status >= 400 else type(error).__qualname__
    return facts

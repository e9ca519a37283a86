"""Spans and metrics of a client, in the real SDK's in-memory exporters."""

import asyncio
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from comfycontrol_async import (
    ComfyControl,
    ConfigurationError,
    InvalidArgumentError,
    LocalLimiter,
    NotFoundError,
    RetryPolicy,
)
from comfycontrol_async.ext.otel import instrument
from support import documented
from support.graphs import GRAPH
from support.scripted import BASE_URL, TOKEN, ScriptedApi
from support.services import connected


@attrs.frozen
class Telemetry:
    """The real SDK, with its exporters in memory."""

    tracer_provider: TracerProvider
    meter_provider: MeterProvider
    _exporter: InMemorySpanExporter
    _reader: InMemoryMetricReader

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """Every span that ended."""
        return self._exporter.get_finished_spans()

    def instrument(self, comfy: ComfyControl) -> Callable[[], None]:
        """Instrument a client."""
        return instrument(comfy, tracer_provider=self.tracer_provider, meter_provider=self.meter_provider)

    def metrics(self) -> dict[str, list[Any]]:
        """Every data point, by the metric's name."""
        data: Any = self._reader.get_metrics_data()
        metrics = [metric for it in data.resource_metrics for scope in it.scope_metrics for metric in scope.metrics]
        return {metric.name: list(metric.data.data_points) for metric in metrics}


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Set up the SDK, and shut it down."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    yield Telemetry(tracers, meters, exporter, reader)
    tracers.shutdown()
    meters.shutdown()


async def test_a_call(api: ScriptedApi, comfy: ComfyControl, telemetry: Telemetry) -> None:
    """A call is one CLIENT span with what the conventions ask for, and nothing secret."""
    id = documented.WORKFLOW_ID
    api.answer("GET", f"/v1/workflow/{id}", documented.WORKFLOW, headers={"cf-ray": "ray-1"})
    telemetry.instrument(comfy)
    await comfy.workflows.get(id)
    (span,) = telemetry.spans
    assert (span.name, span.kind) == ("GET /v1/workflow/{id}", trace.SpanKind.CLIENT)
    attributes = dict(span.attributes or {})
    assert attributes.pop("comfycontrol.limiter.wait") >= 0.0  # type: ignore[operator] # a number
    assert attributes == {
        "server.address": "api.test",
        "server.port": 443,
        "http.request.method": "GET",
        "url.path": f"/v1/workflow/{id}",
        "url.template": "/v1/workflow/{id}",
        "http.response.status_code": 200,
        "comfycontrol.attempts": 1,
        "comfycontrol.request_id": "ray-1",
    }
    assert span.status.status_code is trace.StatusCode.UNSET
    assert TOKEN not in span.to_json()


async def test_retries_and_failure(api: ScriptedApi, comfy: ComfyControl, telemetry: Telemetry) -> None:
    """Attempts are events of the span, which counts what was sent again; an error marks it."""
    api.answer("GET", "/v1/user", status=503)
    api.answer("GET", "/v1/user", {"message": "no such user"}, status=404)
    telemetry.instrument(comfy)
    with pytest.raises(NotFoundError):
        await comfy.user.get()
    (span,) = telemetry.spans
    attributes = dict(span.attributes or {})
    assert (attributes["comfycontrol.attempts"], attributes["http.request.resend_count"]) == (2, 1)
    assert (attributes["http.response.status_code"], attributes["error.type"]) == (404, "404")
    assert span.status.status_code is trace.StatusCode.ERROR
    assert span.status.description == "GET /v1/user: 404 no such user"
    assert [dict(event.attributes or {})["http.response.status_code"] for event in span.events] == [503, 404]


async def test_metrics(api: ScriptedApi, telemetry: Telemetry) -> None:
    """Durations of attempts, waits of calls, retries and cooldowns."""
    api.answer("GET", "/v1/user", status=503)
    api.answer("GET", "/v1/user", status=429)
    api.answer("GET", "/v1/user", documented.USER)
    async with ComfyControl(
        TOKEN, base_url=BASE_URL, limiter=LocalLimiter(1000, 0.05), retry=RetryPolicy(base_delay=0.0)
    ) as comfy:
        telemetry.instrument(comfy)
        await comfy.user.get()
    points = telemetry.metrics()
    assert sum(point.count for point in points["http.client.request.duration"]) == 3
    assert sum(point.value for point in points["comfycontrol.retries"]) == 2
    assert sum(point.value for point in points["comfycontrol.cooldowns"]) == 1
    (wait,) = points["comfycontrol.limiter.wait"]
    assert 0.02 <= wait.sum < 5.0
    assert wait.attributes["url.template"] == "/v1/user"


async def test_concurrent_calls_keep_their_parents(api: ScriptedApi, comfy: ComfyControl, telemetry: Telemetry) -> None:
    """Each call's span is a child of what its own task is in, and the current span afterwards is that again."""
    api.answer("GET", "/v1/user", documented.USER, times=6)
    telemetry.instrument(comfy)
    tracer = telemetry.tracer_provider.get_tracer("test")

    async def work(name: str) -> None:
        with tracer.start_as_current_span(name) as span:
            await comfy.user.get()
            await comfy.user.get()
            assert trace.get_current_span() is span

    await asyncio.gather(*(work(name) for name in "abc"))
    parents = {span.name: span.context.span_id for span in telemetry.spans if span.name in "abc" and span.context}
    calls = [span for span in telemetry.spans if span.name == "GET /v1/user"]
    assert sorted(span.parent.span_id for span in calls if span.parent) == sorted([*parents.values()] * 2)


async def test_cancelled(api: ScriptedApi, comfy: ComfyControl, telemetry: Telemetry) -> None:
    """A call that is cancelled ends its span as well."""
    waiting = api.hold("GET", "/v1/user")
    telemetry.instrument(comfy)
    task = asyncio.ensure_future(comfy.user.get())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (span,) = telemetry.spans
    assert dict(span.attributes or {})["error.type"] == "CancelledError"


async def test_uninstrument(api: ScriptedApi, comfy: ComfyControl, telemetry: Telemetry) -> None:
    """Instrumenting can be ended, also while a call is under way."""
    api.answer("GET", "/v1/user", documented.USER, times=2)
    end = telemetry.instrument(comfy)
    await comfy.user.get()
    end()
    await comfy.user.get()
    assert len(telemetry.spans) == 1
    waiting = api.hold("GET", "/v1/user")
    task = asyncio.ensure_future(comfy.user.get())
    await waiting.wait()
    telemetry.instrument(comfy)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(telemetry.spans) == 1


async def test_the_tree_of_a_run_and_of_a_map_row(telemetry: Telemetry) -> None:
    """What a run, and a row of a batch, send stands below the span that they run in."""
    tracer = telemetry.tracer_provider.get_tracer("test")
    async with connected() as (_, comfy):
        telemetry.instrument(comfy)
        with tracer.start_as_current_span("run"):
            await comfy.run(GRAPH)
        with tracer.start_as_current_span("map"):
            results = [result async for result in comfy.map(GRAPH, [{}])]
    assert [result.error for result in results] == [None]
    names = {span.context.span_id: span.name for span in telemetry.spans if span.context}
    tree: dict[str, set[str]] = {}
    for span in telemetry.spans:
        tree.setdefault(names.get(span.parent.span_id, "") if span.parent else "", set()).add(span.name)
    assert {"run", "map"} <= tree[""]
    assert "POST /v1/workflow" in tree["run"]
    assert "POST /v1/workflow" in tree["map"]
    lines = [f"{parent or '(root)'}: {', '.join(sorted(children))}" for parent, children in sorted(tree.items())]
    print("\n".join(lines))


def test_no_client() -> None:
    """What is no client is refused."""
    with pytest.raises(InvalidArgumentError, match="comfy must be a ComfyControl, not str"):
        instrument("comfy")  # type: ignore[arg-type] # what is tested


def test_without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the error names it."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "comfycontrol_async.ext.otel")
    with pytest.raises(ConfigurationError, match=r"comfycontrol-async\[otel\]"):
        importlib.import_module("comfycontrol_async.ext.otel")

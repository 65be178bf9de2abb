"""One run is one trace, told by ids and codes; delivering an activity twice adds no second call; nothing of the content shows."""

import dataclasses

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from activities.compose_answer import compose_answer
from engine.adapters.otel.telemetry import OtelTelemetry
from tests.support.world import World, failing, plan_of, step

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CANARY = 987_654_321


async def _traced_run():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    world = World()
    telemetry = OtelTelemetry(provider.get_tracer("test"), MeterProvider().get_meter("test"))
    world.deps = dataclasses.replace(world.deps, telemetry=telemetry)
    create = world.runs.create

    async def with_parent(run, events, claim):
        return await create(run.model_copy(update={"traceparent": PARENT}), events, claim)

    world.runs.create = with_parent
    await world.submit(plan_of(step("a", n=CANARY), step("b")))
    await world.perform("a")
    world.invoker.behaviours["calc.double"] = failing("agent.error", retryable=False)
    await world.perform("b")
    report = {"steps": {"succeeded": ["a"], "failed": ["b"]}, "codes": {}}
    await compose_answer({"tenant_id": "contoso", "run_id": "run-1"} | report, world.deps)
    return world, exporter


async def test_a_run_is_one_trace_with_a_span_for_planning_each_step_each_call_and_composing():
    _, exporter = await _traced_run()
    spans = exporter.get_finished_spans()
    assert {format(span.context.trace_id, "032x") for span in spans} == {PARENT.split("-")[1]}
    tree = {(span.name, span.attributes.get("app.step.id")): span for span in spans}
    assert set(tree) == {
        ("plan", None),
        ("execute_tool", "a"),
        ("execute_tool", "b"),
        ("invoke_agent calc", None),
        ("compose_answer", None),
    }
    calls = [span for span in spans if span.name == "invoke_agent calc"]
    steps = {tree["execute_tool", name].context.span_id for name in "ab"}
    assert {span.parent.span_id for span in calls} == steps
    assert tree["execute_tool", "b"].attributes["error.type"] == "agent.error"


async def test_no_span_carries_content_or_the_tenants_name():
    _, exporter = await _traced_run()
    told = " ".join(span.to_json() for span in exporter.get_finished_spans())
    assert str(CANARY) not in told
    assert "contoso" not in told.lower()


async def test_a_second_delivery_of_a_finished_step_calls_nobody():
    world, exporter = await _traced_run()
    exporter.clear()
    await world.perform("a")
    assert exporter.get_finished_spans() == ()

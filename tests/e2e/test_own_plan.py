"""A caller's own plan: conditions, failures, maps and waits as the plan says; refusals in full; cancel; idempotent submission."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.client import Answer, Client
from tests.e2e.plans import pause, request_of, search
from tests.e2e.stack import Stack

NOT_A_QUERY = {"$ref": "run#/context/values/query"}
EVERY_KIND = request_of(
    search("found"),
    search("unwanted", when={"left": 1, "op": "gt", "right": 2}),
    search("after_unwanted", query={"$template": "{it}", "it": {"$ref": "steps.unwanted#/passages/0/title"}}),
    search("with_default", query={"$ref": "steps.unwanted#/passages/0/title", "default": "budget"}),
    search("broken", query=NOT_A_QUERY, optional=True, retry={"max_attempts": 1}),
    search(
        "after_broken", query={"$template": "{it}", "it": {"$ref": "steps.broken#/passages/0/title"}}, optional=True
    ),
    {
        "id": "each",
        "for_each": {"$ref": "run#/context/values/channels"},
        "max_items": 5,
        "concurrency": 2,
        "capability": "rag.search",
        "inputs": {"query": {"$template": "notes on {channel}", "channel": {"$ref": "item#/name"}}, "top_k": 1},
    },
    pause("nap", 0.5, "found"),
    {
        "id": "report",
        "capability": "marketing.query_performance",
        "inputs": {"from": {"$ref": "run#/context/values/start"}, "to": "2026-09-27", "grain": "quarter"},
        "needs": ["nap"],
    },
    uses=["report", "each", "found"],
    context={
        "values": {
            "query": 5,
            "start": "2026-07-06",
            "channels": [{"name": "tv"}, {"name": "email"}, {"name": "display"}],
        }
    },
)


@pytest.fixture(scope="module")
def every_kind(stack: Stack) -> tuple[Client, str]:
    client = stack.client()
    run_id = client.submit(EVERY_KIND)
    client.finished(run_id)
    return client, run_id


def test_the_run_succeeds_although_optional_parts_do_not(every_kind: tuple[Client, str]) -> None:
    client, run_id = every_kind
    run = client.run(run_id)
    assert run["status"] == "succeeded", run
    assert run["answer"]["kpis"]
    assert {kpi["step_id"] for kpi in run["answer"]["kpis"]} == {"report"}


def test_each_step_ends_as_the_plan_says(every_kind: tuple[Client, str]) -> None:
    client, run_id = every_kind
    steps = client.steps(run_id)
    ended = {step_id: step["status"] for step_id, step in steps.items()}
    assert ended == {
        "found": "succeeded",
        "unwanted": "skipped",
        "after_unwanted": "skipped",
        "with_default": "succeeded",
        "broken": "denied",
        "after_broken": "skipped",
        "each": "succeeded",
        "nap": "succeeded",
        "report": "succeeded",
    }
    assert steps["unwanted"]["error"]["code"] == "step.when_false"
    assert steps["broken"]["error"]["code"] == "policy.inputs_invalid"
    assert steps["after_broken"]["error"]["code"] == "step.needs_denied"


def test_what_never_ran_never_started(every_kind: tuple[Client, str]) -> None:
    client, run_id = every_kind
    started = {event["data"]["step_id"] for event in client.events(run_id) if event["type"] == "step.started"}
    assert started == {"found", "with_default", "each", "nap", "report"}


def test_a_map_has_one_output_per_item_and_their_array(every_kind: tuple[Client, str], stack: Stack) -> None:
    client, run_id = every_kind
    outputs = client.output(run_id, "each")
    assert len(outputs) == 3
    assert [client.output(run_id, "each", item) for item in range(3)] == outputs
    beyond = client.get(f"/api/runs/{run_id}/steps/each/output?item=3")
    assert (beyond.status, beyond.code) == (422, "step.item_unknown")
    keys = {key.removeprefix(run_id + "/") for key in stack.executions() if key.startswith(run_id)}
    assert keys == {"found", "with_default", "each/0", "each/1", "each/2", "report"}


def test_an_output_is_refused_where_there_is_none(every_kind: tuple[Client, str]) -> None:
    client, run_id = every_kind
    skipped = client.get(f"/api/runs/{run_id}/steps/unwanted/output")
    unknown = client.get(f"/api/runs/{run_id}/steps/nobody/output")
    assert (skipped.status, skipped.code) == (409, "step.no_output")
    assert (unknown.status, unknown.code) == (422, "step.unknown")


def test_bound_values_are_what_the_agent_got(every_kind: tuple[Client, str]) -> None:
    client, run_id = every_kind
    report = client.output(run_id, "report")
    assert (report["from"], report["to"], report["grain"]) == ("2026-07-06", "2026-09-27", "quarter")


def test_a_needed_step_that_fails_makes_the_run_partial_and_names_what_is_missing(contoso: Client) -> None:
    request = request_of(
        search("good"), search("bad", query=NOT_A_QUERY), search("after", "bad"), uses=["good", "after"],
        context={"values": {"query": 5}},
    )  # fmt: skip
    run_id = contoso.submit(request)
    run = contoso.finished(run_id)
    steps = contoso.steps(run_id)
    assert run["status"] == "partial", run
    assert steps["good"]["status"] == "succeeded"
    assert steps["after"]["status"] == "skipped"
    assert any("after" in entry for entry in run["answer"]["missing"])


def test_a_bad_plan_is_refused_with_everything_that_is_wrong_and_leaves_nothing(stack: Stack, contoso: Client) -> None:
    request = request_of(
        {"id": "a", "capability": "email.send", "inputs": {}},
        search("b", query=5),
        search("c", "nobody"),
        search("d", query={"$ref": "steps.b#/nothing"}),
        search("d", "d"),
        uses=["e"],
    )
    listed = contoso.get("/api/runs?limit=200").json
    before = stack.traces()
    answer = contoso.post("/api/runs", request)
    assert (answer.status, answer.code) == (422, "plan.invalid")
    assert {error["pointer"] for error in answer.json["errors"]} >= {
        "/plan/steps/0/capability", "/plan/steps/1/inputs/query", "/plan/steps/2/needs/0", "/plan/steps/3/inputs/query/$ref",
        "/plan/steps/4/id", "/plan/answer/uses/0",
    }  # fmt: skip
    assert len({error["code"] for error in answer.json["errors"]}) >= 5
    assert stack.traces() == before
    assert contoso.get("/api/runs?limit=200").json == listed


def test_a_capability_the_tenant_does_not_have_is_refused(fabrikam: Client) -> None:
    answer = fabrikam.post("/api/runs", request_of({"id": "mix", "capability": "mmm.fit", "inputs": {}}))
    assert (answer.status, answer.code) == (422, "plan.invalid")
    assert [error["pointer"] for error in answer.json["errors"]] == ["/plan/steps/0/capability"]


def test_a_cancelled_run_ends_cancelled_with_what_it_has(stack: Stack, contoso: Client) -> None:
    run_id = contoso.submit(request_of(search("a"), pause("long", 600, "a"), search("b", "long"), uses=["a", "b"]))
    contoso.until_event(run_id, "step.started", "long")

    first, again = contoso.post(f"/api/runs/{run_id}/cancel"), contoso.post(f"/api/runs/{run_id}/cancel")
    assert (first.status, first.json["status"]) == (202, "cancelling")
    assert again.status == 202 or (again.status, again.code) == (409, "run.finished")

    run = contoso.finished(run_id)
    assert run["status"] == "cancelled"
    assert {step_id: step["status"] for step_id, step in contoso.steps(run_id).items()} == {
        "a": "succeeded",
        "long": "cancelled",
        "b": "cancelled",
    }
    assert contoso.output(run_id, "a")["passages"]
    status = contoso.get(f"/api/runs/{run_id}/status")
    assert (status.status, status.json["runtimeStatus"]) == (200, "Terminated")
    late = contoso.post(f"/api/runs/{run_id}/cancel")
    assert (late.status, late.code) == (409, "run.finished")
    assert f"{run_id}/b" not in stack.executions()


def submitted_at_once(client: Client, request: dict[str, Any], key: str, times: int) -> list[Answer]:
    """Answers to the same submission from many threads; who is told that the first is still in flight asks again."""

    def post(_: int) -> Answer:
        for _ in range(100):
            answer = client.post("/api/runs", request, Idempotency_Key=key)
            if answer.code != "idempotency.in_flight":
                return answer
            assert answer.status == 409
            assert int(answer.headers["retry-after"]) >= 1
        raise AssertionError("in flight for ever")

    with ThreadPoolExecutor(times) as threads:
        return list(threads.map(post, range(times)))


def test_ten_submissions_at_once_under_one_key_are_one_run(stack: Stack, contoso: Client) -> None:
    request = request_of(search("a"))
    before = stack.traces()
    answers = submitted_at_once(contoso, request, "ten-at-once", 10)
    assert {answer.status for answer in answers} == {202}
    ids = {answer.json["run_id"] for answer in answers}
    assert len(ids) == 1
    run_id = ids.pop()
    contoso.finished(run_id)
    after = stack.traces()
    assert (after["runs"], after["instances"]) == (before["runs"] + 1, before["instances"] + 1)
    assert [event["type"] for event in contoso.events(run_id)].count("run.accepted") == 1

    later = contoso.post("/api/runs", request, Idempotency_Key="ten-at-once")
    assert (later.status, later.json["run_id"]) == (202, run_id)


def test_a_key_used_with_another_body_is_refused(stack: Stack, contoso: Client) -> None:
    run_id = contoso.submit(request_of(search("a")), Idempotency_Key="one-body")
    contoso.finished(run_id)
    before = stack.traces()
    answer = contoso.post("/api/runs", request_of(search("b")), Idempotency_Key="one-body")
    assert (answer.status, answer.code) == (422, "idempotency.mismatch")
    assert stack.traces() == before


def test_a_key_is_the_callers_own(stack: Stack, contoso: Client, fabrikam: Client) -> None:
    request = request_of(search("a"))
    callers = (contoso, fabrikam, stack.client("contoso", "carl"))
    runs = [(caller, caller.submit(request, Idempotency_Key="everybodys")) for caller in callers]
    assert len({run_id for _, run_id in runs}) == 3
    assert {caller.finished(run_id)["status"] for caller, run_id in runs} == {"succeeded"}

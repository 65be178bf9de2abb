"""The main job: an intent goes in over HTTP, a vetted plan is executed by agents, one answer comes out."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

import pytest
import rfc8785
import yaml

from engine.domain.principal import Role
from tests.e2e.client import Answer, Client
from tests.e2e.plans import SAMPLE_INTENT
from tests.e2e.stack import ROOT, Stack, rows


class Job:
    """The sample intent from submission to answer, with what a client saw on the way."""

    def __init__(self, client: Client) -> None:
        self.accepted: Answer = client.post("/api/runs", {"intent": SAMPLE_INTENT})
        self.run_id = str(self.accepted.json["run_id"])
        self.status_while_running = client.get(f"/api/runs/{self.run_id}/status")
        self.events = client.events(self.run_id)
        self.status_when_done = client.get(f"/api/runs/{self.run_id}/status")
        self.run = client.run(self.run_id)
        self.steps = client.steps(self.run_id)
        self.plan = client.get(f"/api/runs/{self.run_id}/plan")
        self.outputs = {step_id: client.output(self.run_id, step_id) for step_id in self.steps}

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [event["data"] for event in self.events if event["type"] == kind]


@pytest.fixture(scope="module")
def job(stack: Stack) -> Job:
    return Job(stack.client())


def test_a_submission_is_accepted_with_where_to_look_and_when(job: Job) -> None:
    assert job.accepted.status == 202
    assert job.accepted.headers["location"] == f"/api/runs/{job.run_id}"
    assert int(job.accepted.headers["retry-after"]) >= 1
    assert job.accepted.json["statusQueryGetUri"].endswith(f"/api/runs/{job.run_id}/status")


def test_the_status_query_says_running_until_the_run_is_over(job: Job) -> None:
    running, done = job.status_while_running, job.status_when_done
    assert (running.status, done.status) == (202, 200)
    assert running.headers["location"] == f"/api/runs/{job.run_id}/status"
    assert int(running.headers["retry-after"]) >= 1
    assert running.json["runtimeStatus"] in {"Pending", "Running"}
    assert done.json["runtimeStatus"] == "Completed"
    assert done.json["customStatus"]["status"] == "succeeded"
    assert done.json["output"] == job.run["answer"]
    assert done.json["instanceId"] == job.run_id


def test_the_run_succeeds_and_says_that_no_model_had_a_part_in_it(job: Job) -> None:
    assert job.run["status"] == "succeeded"
    assert job.run["degraded"] is True
    assert job.run["degraded_reason"]
    assert job.run["answer"]["degraded_reason"] == job.run["degraded_reason"]
    entered = job.of_type("degraded.entered")
    assert {data["part"] for data in entered} == {"planner", "composer"}
    assert all(data["reason"] for data in entered)


def test_every_step_of_the_plan_succeeded_and_has_its_output(job: Job) -> None:
    planned = [step["id"] for step in job.plan.json["plan"]["steps"]]
    assert list(job.steps) == planned
    assert len(planned) >= 5
    assert {step["status"] for step in job.steps.values()} == {"succeeded"}
    assert all(job.outputs[step_id] for step_id in planned)
    assert {step["kind"] for step in job.steps.values()} == {"call", "map"}
    fanned_out = next(step for step in job.steps.values() if step["kind"] == "map")
    assert fanned_out["item_count"] == len(job.outputs[fanned_out["id"]]) > 1


def test_the_log_is_gapless_and_ends_once(job: Job) -> None:
    types = [event["type"] for event in job.events]
    assert [event["seq"] for event in job.events] == list(range(1, len(job.events) + 1))
    assert types[0] == "run.accepted"
    assert types[-1] == "run.succeeded"
    assert sum(kind in {"run.succeeded", "run.partial", "run.failed", "run.cancelled"} for kind in types) == 1
    assert {event["run_id"] for event in job.events} == {job.run_id}
    assert [event["at"] for event in job.events] == sorted(event["at"] for event in job.events)


def test_each_step_starts_and_succeeds_once_in_the_log_and_after_its_needs(job: Job) -> None:
    settled: dict[str, int] = {}
    started: dict[str, int] = {}
    for event in job.events:
        step_id, item = event["data"].get("step_id"), event["data"].get("item")
        if step_id is None or item is not None or event["type"] == "step.progressed":
            continue
        seen = {"step.started": started, "step.succeeded": settled}[event["type"]]
        assert step_id not in seen
        seen[step_id] = event["seq"]
    assert started.keys() == settled.keys() == job.steps.keys()
    for step in job.plan.json["plan"]["steps"]:
        for needed in step.get("needs", ()):
            assert settled[needed] < started[step["id"]]


def test_the_pieces_of_the_answer_in_the_log_are_its_summary(job: Job) -> None:
    deltas = job.of_type("answer.delta")
    assert [delta["index"] for delta in deltas] == list(range(len(deltas)))
    assert "".join(delta["text"] for delta in deltas).strip() == job.run["answer"]["summary"]


def test_every_figure_of_the_answer_stands_in_the_output_of_the_step_it_names(job: Job) -> None:
    kpis = job.run["answer"]["kpis"]
    assert len(kpis) >= 5
    for kpi in kpis:
        found = [entry for entry in job.outputs[kpi["step_id"]]["kpis"] if entry["name"] == kpi["name"]]
        assert len(found) == 1, kpi
        assert {name: kpi.get(name) for name in found[0]} == found[0]


def test_the_findings_of_the_answer_are_those_of_the_steps(job: Job) -> None:
    insights = job.run["answer"]["insights"]
    assert insights
    for insight in insights:
        texts = [entry["text"] for step_id in insight["step_ids"] for entry in job.outputs[step_id]["insights"]]
        assert insight["text"] in texts


def test_the_plan_has_one_hash_everywhere(job: Job, stack: Stack) -> None:
    computed = hashlib.sha256(rfc8785.dumps(job.plan.json["plan"])).hexdigest()
    query = "SELECT document FROM audit_records WHERE run_id = ?"
    audited = [json.loads(text)["body"] for (text,) in rows(stack.data / "livoa.db", query, job.run_id)]
    assert {
        job.run["plan_hash"],
        job.plan.json["plan_hash"],
        job.plan.headers["etag"].strip('"'),
        *(data["plan_hash"] for kind in ("plan.proposed", "plan.vetted") for data in job.of_type(kind)),
    } == {computed}
    # Records commit to it by a keyed hash: the same in all of them, and with the key anybody can tell that it is this plan.
    (committed,) = {body["plan_hash"] for body in audited if "plan_hash" in body}
    auditor = Client(stack.url, lambda: stack.tokens.mint("contoso", roles=(Role.AUDIT_READ,)))
    shown = auditor.get(f"/api/runs/{job.run_id}/audit/content/{committed}").json
    key = bytes.fromhex(shown["commitment_key"])
    assert hmac.new(key, bytes.fromhex(computed), hashlib.sha256).hexdigest() == committed
    assert shown["sha256"] == computed
    assert sum("plan_hash" in body for body in audited) > len(job.steps)


def test_the_run_cost_what_the_catalog_says_its_calls_cost(job: Job) -> None:
    calls = [data for data in job.of_type("step.succeeded") if "item_count" not in data]
    assert len(calls) > len(job.steps)
    assert job.run["cost_micro_usd"] == sum(_price_micro_usd(data["capability"]) for data in calls)


def _price_micro_usd(capability: str) -> int:
    manifest = yaml.safe_load((ROOT / "catalog" / "capabilities" / f"{capability}.yaml").read_text(encoding="utf-8"))
    return int(manifest["cost"]["per_call_micro_usd"])


@pytest.mark.parametrize(
    ("intent", "capability"),
    [
        ("Show me clicks and spend by month for display and email in 2025", "marketing.query_performance"),
        ("We have 400k for advertising over the coming quarter, how should it be divided?", "mmm.allocate_budget"),
        ("Is there anything about retargeting in our documents?", "rag.search"),
        ("How many euros are 99 pounds worth?", "rates.lookup"),
        ("Compare paid social this autumn with the quarter before", "marketing.compare_periods"),
    ],
)
def test_an_intent_nobody_wrote_a_playbook_for_is_answered(contoso: Client, intent: str, capability: str) -> None:
    run_id = contoso.submit({"intent": intent})
    run = contoso.finished(run_id)
    assert run["status"] == "succeeded", run["error"]
    assert capability in {step["capability"] for step in contoso.steps(run_id).values()}
    assert run["answer"]["summary"]
    assert run["answer"]["kpis"] or run["answer"]["tables"]
    assert run["answer"]["missing"] == []


@pytest.mark.parametrize("intent", ["Bake me a chocolate cake", "Repariere bitte mein Fahrrad", "asdf qwer"])
def test_an_intent_out_of_scope_fails_and_says_what_could_be_asked(contoso: Client, intent: str) -> None:
    run_id = contoso.submit({"intent": intent})
    run = contoso.finished(run_id)
    assert run["status"] == "failed"
    assert run["error"]["code"] == "plan.no_capability"
    assert "exchange rate" in run["error"]["message"].lower()
    assert run["answer"] is None
    types = [event["type"] for event in contoso.events(run_id)]
    assert "plan.rejected" in types
    assert not any(kind.startswith("step.") for kind in types)


def test_a_tenant_is_offered_only_what_it_has(fabrikam: Client) -> None:
    run = fabrikam.finished(fabrikam.submit({"intent": "What is the exchange rate from pounds to euros?"}))
    assert run["error"]["code"] == "plan.no_capability"
    assert "exchange rate" not in run["error"]["message"].lower()


def test_the_hosts_log_tells_of_runs_and_not_of_the_state_of_links(job: Job, stack: Stack) -> None:
    log = stack.data / "logs" / "host.log"
    until = time.monotonic() + 20  # the orchestration ends a moment after the run
    while not (ends := [line for line in log.read_text().splitlines() if "run over" in line and job.run_id in line]):
        assert time.monotonic() < until, "no line of the log says that the run is over"
        time.sleep(0.1)
    assert json.loads(ends[0])["status"] == "succeeded"
    assert [line for line in log.read_text().splitlines() if " INFO azure." in line] == []

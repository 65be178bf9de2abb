"""A step fails for good and a model finds another way: the whole product, from the failure to the answer."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from engine.domain.principal import Role
from tests.e2e.client import Client
from tests.e2e.stack import Stack, up
from tests.support.model_server import Answer, ModelRequest, ModelServer, as_json, failure
from tests.support.model_server.answers import slow
from tests.support.model_server.scripts import demo

INTENT = "Why did paid-search ROI fall in Q3 2026 and how should the Q4 budget move?"
REPAIRED = "Part of an earlier plan"
WORDS = {"mix": "mix_again", "allocation": "allocation_again", "findings": "findings_again"}
AUDITOR = (Role.RUNS_READ, Role.AUDIT_READ)


def first_plan() -> dict[str, Any]:
    """The demo's plan, whose mix is compared with a period that lies after the data: the agent refuses."""
    plan = demo.proposal()
    mix = next(step for step in plan["steps"] if step["id"] == "mix")
    mix["on_failure"], mix["needs"] = "repair", ["notes"]
    for each in mix["inputs"]:
        each["value"] = {"compare_from": '"2031-04-01"', "compare_to": '"2031-06-30"'}.get(each["name"], each["value"])
    return plan


def the_rest() -> dict[str, Any]:
    """The lost steps under new ids, with a period that there is."""
    plan = demo.proposal()
    steps = [step for step in plan["steps"] if step["id"] in WORDS]
    for step in steps:
        step["id"] = WORDS[step["id"]]
        for each in step["inputs"]:
            each["value"] = re.sub(r"^steps\.(\w+)#", lambda found: f"steps.{_now(found[1])}#", each["value"])
    uses = [_now(step_id) for step_id in plan["answer"]["uses"]]
    return plan | {"steps": steps, "answer": plan["answer"] | {"uses": uses}}


def _now(step_id: str) -> str:
    return WORDS.get(step_id, step_id)


def scripted(request: ModelRequest) -> Answer:
    """The demo's script with a plan that fails on the way; what it says to the failure depends on the intent."""
    if request.work != "livoa_plan_proposal":
        return demo.answer(request)
    if REPAIRED not in request.prompt:
        return as_json(first_plan())
    if "nobody knows" in request.prompt:
        return failure(503)
    if "same again" in request.prompt:
        return as_json(demo.proposal())
    answer = as_json(the_rest())
    return slow(answer, before_headers_s=3.0) if "take your time" in request.prompt else answer


@pytest.fixture(scope="module")
def provider() -> Iterator[ModelServer]:
    """A scripted provider."""
    with ModelServer() as server:
        server.script(scripted)
        yield server


@pytest.fixture(scope="module")
def modelled(provider: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with a model."""
    with up(tmp_path_factory.mktemp("repair"), "--model-endpoint", provider.url, "--model", "gpt-4o") as running:
        yield running


@pytest.fixture(scope="module")
def client(modelled: Stack) -> Client:
    """Ana of contoso."""
    return modelled.client("contoso")


@pytest.fixture(scope="module")
def run_id(client: Client) -> str:
    """A finished run whose plan was repaired."""
    run_id = client.submit({"intent": INTENT})
    client.finished(run_id)
    return run_id


def test_the_run_succeeds_on_the_repaired_plan_and_says_what_happened(client: Client, run_id: str) -> None:
    run = client.run(run_id)
    assert run["status"] == "succeeded", run
    assert (run["plan_version"], run["degraded"]) == (2, False)
    assert set(run["answer"]["cited"]) >= {"findings_again", "mix_again"}
    steps = client.steps(run_id)
    ended = {step_id: (step["status"], (step["error"] or {}).get("code")) for step_id, step in steps.items()}
    assert ended["mix"] == ("failed", "data.period_empty")
    assert ended["allocation"] == ended["findings"] == ("skipped", "step.replaced")
    assert {ended[step_id] for step_id in ("change", "notes", *WORDS.values())} == {("succeeded", None)}
    plan = client.get(f"/api/runs/{run_id}/plan").json
    assert plan["plan_version"] == 2
    assert [step["id"] for step in plan["plan"]["steps"]] == ["change", "notes", *WORDS.values()]
    told = [event["type"] for event in client.events(run_id)]
    assert told.index("step.failed") < told.index("plan.repaired") < told.index("answer.completed")


def test_finished_work_is_kept_and_nothing_is_done_twice(client: Client, run_id: str, modelled: Stack) -> None:
    keys = sorted(key.removeprefix(f"{run_id}/") for key in modelled.executions() if key.startswith(run_id))
    assert keys == sorted(["change", "notes", "mix", *WORDS.values()])
    started = [event["data"]["step_id"] for event in client.events(run_id) if event["type"] == "step.started"]
    assert len(started) == len(set(started))


def test_the_evidence_names_both_plans_the_difference_and_the_decision(
    client: Client, run_id: str, modelled: Stack
) -> None:
    auditor = modelled.client("contoso", "aud", AUDITOR)
    records = auditor.get(f"/api/runs/{run_id}/audit").json["records"]
    (repaired,) = [record for record in records if record["type"] == "plan.repaired"]
    body = repaired["body"]
    assert (body["failed_step"], body["failed_code"], body["verdict"]) == ("mix", "data.period_empty", "allow")
    assert body["model"] == "gpt-4o"
    content = {
        name: json.loads(auditor.get(f"/api/runs/{run_id}/audit/content/{body[name]}").json["text"])
        for name in ("plan_hash", "replaced_plan_hash", "diff_sha256")
    }
    assert content["diff_sha256"]["removed"] == ["mix", "allocation", "findings"]
    assert content["diff_sha256"]["added"] == list(WORDS.values())
    ids = [{step["id"] for step in content[name]["steps"]} for name in ("replaced_plan_hash", "plan_hash")]
    assert ids[1] - ids[0] == set(WORDS.values())
    intents = [record["body"] for record in records if record["type"] == "dispatch.intended"]
    assert {intent["plan_hash"] for intent in intents} == {body["plan_hash"], body["replaced_plan_hash"]}


def test_the_planner_was_shown_no_output(provider: ModelServer, run_id: str) -> None:
    asked = [request for request in provider.requests if REPAIRED in request.prompt]
    assert asked
    shown = asked[0].prompt.split(REPAIRED)[1].replace("\u02c6", " ")  # data is marked in place of blanks
    assert "array of" in shown
    assert "data.period_empty" in shown
    assert "GBP" not in shown


def test_a_rerun_takes_the_last_version_and_what_it_has_done(client: Client, run_id: str) -> None:
    again = client.post(f"/api/runs/{run_id}/rerun", {"from": "findings_again"})
    assert again.status == 202, again.body
    rerun = again.json["run_id"]
    assert client.finished(rerun)["status"] == "succeeded"
    steps = client.steps(rerun)
    assert set(steps) == {"change", "notes", *WORDS.values()}
    assert steps["mix_again"]["reused_from"] == run_id
    assert client.run(rerun)["plan_version"] == 1


@pytest.mark.parametrize("words", ["nobody knows", "same again"])
def test_without_a_repair_the_run_is_partial_and_says_why(client: Client, words: str) -> None:
    run_id = client.submit({"intent": f"{INTENT} ({words})"})
    run = client.finished(run_id)
    assert (run["status"], run["error"]["code"], run["plan_version"]) == ("partial", "data.period_empty", 1), run
    events = client.events(run_id)
    (refused,) = [event for event in events if event["type"] == "plan.rejected"]
    assert refused["data"]["message"].startswith("mix failed and the plan was not repaired")
    steps = client.steps(run_id)
    assert {steps["allocation"]["error"]["code"], steps["findings"]["error"]["code"]} == {"step.needs_failed"}


def test_a_host_that_dies_while_the_plan_is_repaired_leaves_one_version(client: Client, modelled: Stack) -> None:
    run_id = client.submit({"intent": f"{INTENT} (take your time)"})
    client.until_event(run_id, "step.failed", "mix")
    time.sleep(1.0)  # the planner's request is under way for three seconds
    modelled.kill_host()
    run = client.finished(run_id, patience_s=150)  # a host starts anew meanwhile, and the planner is asked again
    assert (run["status"], run["plan_version"]) == ("succeeded", 2), run
    assert [event["type"] for event in client.events(run_id)].count("plan.repaired") == 1


def test_a_cancel_while_the_plan_is_repaired_ends_the_run(client: Client) -> None:
    run_id = client.submit({"intent": f"{INTENT} (take your time, please)"})
    client.until_event(run_id, "step.failed", "mix")
    assert client.post(f"/api/runs/{run_id}/cancel").status == 202
    run = client.finished(run_id)
    assert (run["status"], run["plan_version"]) == ("cancelled", 1)

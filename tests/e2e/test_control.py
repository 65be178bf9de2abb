"""Holding a run, letting it go on and ending it at once, over the whole product."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from engine.domain.principal import Role
from tests.e2e.client import Client
from tests.e2e.plans import pause, request_of, search
from tests.e2e.stack import Stack


def kinds(client: Client, run_id: str) -> list[str]:
    return [event["type"] for event in client.events(run_id)]


def test_a_suspended_run_starts_nothing_and_goes_on_where_it_was(contoso: Client) -> None:
    run_id = contoso.submit(request_of(pause("early", 1.0), search("late", "early"), uses=["late"]))
    contoso.until_event(run_id, "step.started", "early")
    assert contoso.post(f"/api/runs/{run_id}/suspend", {}).status == 202
    page = contoso.page(run_id, wait_s=2)
    assert contoso.run(run_id)["status"] == "suspended"
    assert contoso.steps(run_id)["late"]["status"] == "pending", page
    assert contoso.post(f"/api/runs/{run_id}/resume", {}).status == 202
    assert contoso.finished(run_id)["status"] == "succeeded"
    assert contoso.steps(run_id)["late"]["attempt"] == 1


def test_the_items_of_a_map_are_held_and_told_too(contoso: Client) -> None:
    many = search("many", query={"$ref": "item#"}, for_each={"$ref": "run#/context/values/queries"}, concurrency=1)
    run_id = contoso.submit(
        request_of(many, uses=["many"], context={"values": {"queries": [f"budget {n}" for n in range(80)]}})
    )
    contoso.until_event(run_id, "step.succeeded", "many")
    assert contoso.post(f"/api/runs/{run_id}/suspend", {}).status == 202
    contoso.page(run_id, wait_s=2)
    done = sum(event["type"] == "step.succeeded" for event in contoso.page(run_id)["events"])
    assert done < 80, "the items went on"
    assert contoso.post(f"/api/runs/{run_id}/resume", {}).status == 202
    # Were the part of the map not told, its watchdog would ring after five minutes.
    assert contoso.finished(run_id)["status"] == "succeeded"


def test_terminating_ends_a_run_at_once(stack: Stack, contoso: Client) -> None:
    run_id = contoso.submit(request_of(pause("long", 30.0), search("never", "long")))
    contoso.until_event(run_id, "step.started", "long")
    answer = contoso.post(f"/api/runs/{run_id}/terminate", {})
    assert (answer.status, answer.json["status"]) == (200, "terminated")
    assert kinds(contoso, run_id)[-1] == "run.terminated"
    steps = contoso.steps(run_id)
    assert {steps[name]["status"] for name in ("long", "never")} == {"cancelled"}
    reader = stack.client(user="rita", roles=(Role.RUNS_READ,))
    assert reader.post(f"/api/runs/{run_id}/terminate", {}).status == 403


def test_a_rerun_takes_over_what_succeeded_and_does_the_rest_again(stack: Stack, contoso: Client) -> None:
    run_id = contoso.submit(request_of(search("a"), search("b", "a"), search("c", "b"), uses=["c"]))
    assert contoso.finished(run_id)["status"] == "succeeded"
    answer = contoso.post(f"/api/runs/{run_id}/rerun", {"from": "b"})
    assert answer.status == 202
    again = contoso.finished(answer.json["run_id"])
    assert (again["status"], again["parent_run_id"]) == ("succeeded", run_id)
    steps = contoso.steps(answer.json["run_id"])
    assert {name: step["reused_from"] for name, step in steps.items()} == {"a": run_id, "b": None, "c": None}
    keys = [key for key in stack.executions() if answer.json["run_id"] in key]
    assert len(keys) == 2, keys


def test_the_evidence_of_a_run_can_be_exported_verified_tampered_with_and_caught(
    stack: Stack, contoso: Client, tmp_path: Path
) -> None:
    run_id = contoso.submit(request_of(search("a"), uses=["a"]))
    contoso.finished(run_id)
    connection = ["--url", contoso.url, "--data", str(stack.data)]
    story = livoa("audit", "show", run_id, *connection)
    assert story.returncode == 0, story.stderr
    assert "dispatch.intended" in story.stdout
    export = tmp_path / "audit.jsonl"
    exported = livoa("audit", "export", str(export), *connection)
    assert exported.returncode == 0, exported.stderr
    head = exported.stdout.strip()
    assert livoa("audit", "verify", str(export), "--head", head).returncode == 0
    lines = export.read_text().splitlines(keepends=True)
    export.write_text("".join(lines[:-1]))
    assert "chain.head_missing" in livoa("audit", "verify", str(export), "--head", head).stdout
    export.write_text("".join(lines).replace('"status":"succeeded"', '"status":"failed"', 1))
    caught = livoa("audit", "verify", str(export))
    assert (caught.returncode, "chain.hash_mismatch" in caught.stdout) == (1, True)


def test_the_commands_in_the_readme_show_that_tampering_is_caught(
    stack: Stack, contoso: Client, tmp_path: Path
) -> None:
    contoso.finished(contoso.submit(request_of(search("a"), uses=["a"])))
    root = Path(__file__).parents[2]
    block = next(b for b in re.findall(r"```sh\n(.*?)```", (root / "README.md").read_text(), re.S) if "audit" in b)
    commands = [line.split("#")[0].strip() for line in block.splitlines()]
    environment = os.environ | {"LIVOA_HOME": str(stack.data), "LIVOA_URL": contoso.url}
    (tmp_path / "livoa").symlink_to(root / "livoa")
    done = [
        subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        for command in commands
    ]
    assert [each.returncode for each in done] == [0, 0, 0, 0, 1], [each.stderr for each in done]
    assert "signed checkpoints up to record" in done[2].stdout
    assert done[4].stdout.startswith("chain.gap  line 5  record 5 is missing\n")


def livoa(*arguments: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-m", "cli", *arguments], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )

"""Each command through its front door, against a scripted API."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest

from cli.exit_codes import MEANINGS, ExitCode
from cli.main import COMMANDS
from cli.output import write_bytes
from cli.paths import ROOT
from engine.domain.execute import MAY_HAVE_HAD_ITS_EFFECT
from tests.unit.cli.api_double import EVENTS, RUN_ID, event, problem


def test_run_submits_follows_and_prints_one_object(connected, double):
    result = connected(
        "run", "why?", "--goal", "g", "--value", "n=3", "--value", "t=text", "--max-steps", "5", "--json"
    )
    assert result.code == ExitCode.OK
    assert double.heard[0]["body"] == {
        "intent": "why?",
        "goals": ["g"],
        "context": {"values": {"n": 3, "t": "text"}},
        "constraints": {"max_steps": 5},
    }
    assert double.heard[0]["headers"]["authorization"] == "Bearer a-token"
    told = {"run_id", "status", "degraded", "plan_hash", "planner", "error", "steps", "answer", "seconds"}
    assert set(result.json) == told
    fit = {"id": "fit", "status": "succeeded", "attempt": 2, "duration_ms": 2100, "error": None}
    assert result.json["steps"][1] == fit


def test_run_shows_plan_steps_and_answer_to_people(connected):
    result = connected("run", "why?")
    assert all(text in result.err for text in ("spend", "mmm.fit", "2.1 s", "attempt 2"))
    assert all(text in result.out for text in ("Because of", "-37.0%", "385,600", "Spend less there."))


RUN_ERROR = {
    "code": "run.required_step_failed",
    "message": "A step that the answer needs has failed: " + "word " * 60 + "end.",
}
STEP_ERROR = {"code": "agent.refused", "message": "The agent said: " + "detail " * 60 + "done."}


@pytest.fixture
def failed(double):
    double.status = "failed"
    steps = [
        {**step, "status": "failed", "error": STEP_ERROR} if step["id"] == "fit" else step for step in double.steps()
    ]
    view = {**double.run(), "error": RUN_ERROR, "answer": None}
    double.scripts[f"GET /api/runs/{RUN_ID}"] = lambda asked: (200, view)
    double.scripts[f"GET /api/runs/{RUN_ID}/steps"] = lambda asked: (200, {"run_id": RUN_ID, "steps": steps})


@pytest.mark.parametrize("command", [("run", "why?"), ("show", RUN_ID)])
def test_a_failed_run_gives_the_whole_reason_of_the_run_and_its_steps(connected, failed, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    out = connected(*command).out
    for error in (RUN_ERROR, STEP_ERROR):
        assert f"{error['code']}: {error['message']}" in out


def test_a_failed_run_gives_its_reason_to_machines(connected, failed):
    result = connected("run", "why?", "--json").json
    assert result["error"] == RUN_ERROR
    assert [step["error"] for step in result["steps"]] == [None, STEP_ERROR, None]


def test_a_list_of_runs_in_a_pipe_is_whole(connected, double, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    run = {**double.run(), "run_id": "run-" + "7" * 60, "title": "long " * 18 + "title"}
    double.scripts["GET /api/runs"] = lambda asked: (200, {"runs": [run], "next_cursor": None})
    row = next(line for line in connected("runs").out.splitlines() if run["run_id"] in line)
    assert run["title"] in row
    assert "(degraded)" in row


def test_text_of_a_run_cannot_drive_the_terminal(connected):
    assert "\x1b" not in connected("run", "why?").out


@pytest.mark.parametrize("status", ["partial", "denied", "failed", "cancelled", "terminated"])
def test_a_run_that_did_not_succeed_is_exit_code_1(connected, double, status):
    double.status = status
    assert connected("run", "why?", "--json").code == ExitCode.FAILED


def test_run_without_waiting_prints_where_to_look(connected, double):
    result = connected("run", "why?", "--no-wait", "--idempotency-key", "k-1")
    assert (result.code, result.out) == (ExitCode.OK, f"{RUN_ID}\n")
    assert double.heard[0]["headers"]["idempotency-key"] == "k-1"
    assert len(double.heard) == 1


def test_an_own_plan_and_documents_travel_in_the_request(connected, double, tmp_path):
    (tmp_path / "plan.json").write_text('{"goal": "x"}')
    (tmp_path / "brief.txt").write_text("word")
    connected("run", "i", "--plan", f"{tmp_path}/plan.json", "--document", f"b={tmp_path}/brief.txt", "--no-wait")
    assert double.heard[0]["body"]["plan"] == {"goal": "x"}
    assert double.heard[0]["body"]["context"]["documents"] == [{"name": "b", "text": "word"}]


def test_a_host_that_goes_away_for_a_moment_ends_nothing(connected, double, monkeypatch):
    monkeypatch.setattr("cli.client.time.sleep", lambda s: None)
    gone = [0]

    def flaky(asked):
        gone[0] += 1
        return (0, None) if gone[0] in {2, 3} else (200, double.page(int(asked["query"]["after"][0])))

    double.scripts[f"GET /api/runs/{RUN_ID}/events"] = flaky
    result = connected("events", RUN_ID, "--follow", "--json")
    assert [event["seq"] for event in result.lines] == [event["seq"] for event in EVENTS]
    assert "waiting" in result.err


def test_events_are_one_line_each_and_resume_after_a_number(connected):
    result = connected("events", "last", "--after", "9", "--json")
    assert [event["seq"] for event in result.lines] == [10, 11]
    assert "step.succeeded" in connected("events", RUN_ID).out


def test_following_is_bounded_by_its_timeout(connected, double):
    double.events = double.events[:3]
    double.scripts[f"GET /api/runs/{RUN_ID}/events"] = lambda asked: (
        200,
        {"events": [], "next_after": 3, "ended": False},
    )
    result = connected("events", RUN_ID, "--follow", "--timeout", "0", "--json")
    assert result.code == ExitCode.TIMEOUT
    assert result.json["error"]["code"] == "cli.timeout"


LINK = {
    "url": f"http://proxy.example/api/links/contoso/{RUN_ID}/tok",
    "link_id": "l1",
    "expires_at": "2026-11-22T12:05:00Z",
    "size_bytes": 13,
    "media_type": "application/json",
}


def linking(double):
    double.scripts[f"POST /api/runs/{RUN_ID}/links"] = lambda asked: (201, LINK)
    double.scripts[f"GET /api/links/contoso/{RUN_ID}/tok"] = lambda asked: (200, {"rows": [1, 2]})


def test_show_makes_a_link_to_an_output(connected, double):
    linking(double)
    shown = connected("show", RUN_ID, "--link", "spend", "--item", "2", "--valid-s", "60")
    assert shown.out.strip() == LINK["url"]
    assert double.heard[-1]["body"] == {"step_id": "spend", "item": 2, "valid_s": 60}
    assert connected("show", RUN_ID, "--link", "spend", "--json").json == LINK


def test_show_writes_an_output_as_it_is_and_shows_the_link_no_token(connected, double):
    linking(double)
    assert connected("show", RUN_ID, "--payload", "spend").out == '{"rows": [1, 2]}'
    assert double.heard[-2]["body"] == {"step_id": "spend", "valid_s": 10}
    asked = double.heard[-1]
    assert asked["path"] == f"/api/links/contoso/{RUN_ID}/tok", (
        "of the host that is spoken to, whatever it calls itself"
    )
    assert "authorization" not in {name.lower() for name in asked["headers"]}


def test_an_output_does_not_drive_the_terminal_it_is_shown_on(capfdbinary, monkeypatch):
    """In a file it is what it was, to the byte; on a terminal it could rename the window, or type."""
    hostile = '{"note": "a\x9b31mb\u202ec",\n "é": 1}'.encode() + b"\x1b]0;x\x07\xff"
    write_bytes(hostile)
    assert capfdbinary.readouterr().out == hostile
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    write_bytes(hostile)
    assert capfdbinary.readouterr().out.decode() == '{"note": "a31mbc",\n "é": 1}]0;x\ufffd'


def test_a_step_that_ended_before_it_began_is_shown_with_its_capability(connected, double):
    steps = [double.steps()[1] | {"status": "cancelled", "capability": None, "duration_ms": None}]
    double.scripts[f"GET /api/runs/{RUN_ID}/steps"] = lambda asked: (200, {"steps": steps})
    line = next(line for line in connected("show", RUN_ID).out.splitlines() if "cancelled" in line)
    assert line.split()[:4] == ["■", "fit", "mmm.fit", "cancelled"]


def test_show_runs_and_cancel_print_what_the_api_says(connected, double):
    shown = connected("show", RUN_ID, "--json").json
    assert set(shown) == {"run", "plan", "steps", "approvals"}
    assert connected("runs", "--status", "running", "--json").json["runs"][0]["run_id"] == RUN_ID
    assert double.heard[-1]["query"]["status"] == ["running"]
    assert connected("cancel", RUN_ID, "--json").json["status"] == "cancelling"
    assert "fit" in connected("show", "last").out
    assert RUN_ID in connected("runs").out


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (401, "auth.expired", 4),
        (403, "auth.role_missing", 4),
        (404, "run.not_found", 1),
        (422, "request.invalid", 1),
        (503, "x", 1),
    ],
)
def test_problems_become_exit_codes_words_and_one_json_line(connected, double, status, code, expected):
    errors = [{"code": "request.type", "pointer": "/goals/0", "message": "not a string"}]
    double.scripts["POST /api/runs"] = lambda asked: (status, problem(code, status, "No.", errors=errors))
    result = connected("run", "x", "--json")
    assert result.code == expected
    assert result.json["error"]["code"] == code
    assert "/goals/0" in result.err
    assert "request.type" in result.err


def test_a_token_never_follows_a_redirect(connected, double):
    double.scripts["GET /api/runs"] = lambda asked: (302, b"")
    assert connected("runs").code == ExitCode.FAILED


def test_something_else_on_the_port_is_said_to_be_something_else(connected, double):
    double.scripts["GET /api/runs"] = lambda asked: (200, b"<html>")
    result = connected("runs")
    assert result.code == ExitCode.UNREACHABLE
    assert "LIVOA_URL" in result.err


def test_no_host_at_all_is_exit_code_3_and_names_the_next_step(livoa):
    result = livoa("runs", "--url", "http://127.0.0.1:9", "--json")
    assert result.code == ExitCode.UNREACHABLE
    assert "./livoa up" in result.json["error"]["hint"]


def test_the_next_step_starts_the_folder_that_was_named(livoa, tmp_path):
    result = livoa("runs", "--data", str(tmp_path / "mine"), "--url", "http://127.0.0.1:9", "--json")
    assert f"./livoa up --data {tmp_path / 'mine'}" in result.json["error"]["hint"]


def test_a_host_that_its_stack_starts_again_is_waited_for(livoa, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "up.json").write_text(json.dumps({"url": "http://127.0.0.1:9", "pid": os.getpid()}))
    hint = livoa("runs", "--data", str(folder), "--json").json["error"]["hint"]
    assert f"process {os.getpid()}" in hint
    assert "try again" in hint
    elsewhere = livoa("runs", "--data", str(folder), "--url", "http://127.0.0.1:1", "--json")
    assert "./livoa up" in elsewhere.json["error"]["hint"]


def test_where_there_is_no_last_run_the_next_step_submits_one_to_the_same_host(connected, double):
    double.scripts["GET /api/runs"] = lambda asked: (200, {"runs": [], "next_cursor": None})
    error = connected("show", "last", "--tenant", "fabrikam", "--json").json["error"]
    assert (error["code"], error["hint"]) == ("run.none", './livoa run "…" --tenant fabrikam submits one')


def test_a_slip_in_a_command_is_answered_with_the_command_that_was_meant(livoa):
    slip = livoa("shwo", "last")
    assert (slip.code, slip.err.splitlines()[1]) == (
        ExitCode.USAGE,
        "Next: did you mean show? ./livoa --help describes them all",
    )
    assert "one of demo, test, up" in livoa("frobnicate").err


@pytest.mark.parametrize(
    ("code", "next_step"),
    [
        ("run.not_finished", "./livoa terminate RUN"),
        ("run.no_plan", "./livoa show RUN"),
        ("run.erased", "./livoa audit show RUN"),
        ("tenants.invalid", "mend what is named"),
    ],
)
def test_what_cannot_be_done_to_a_run_comes_with_what_can(connected, double, code, next_step):
    double.scripts["GET /api/runs"] = lambda asked: (409, problem(code, 409, "No."))
    assert next_step in connected("runs", "--json").json["error"]["hint"]


def test_a_host_elsewhere_needs_a_token_of_its_own(livoa):
    result = livoa("runs", "--url", "https://runs.example.invalid", "--json")
    assert result.code == ExitCode.FORBIDDEN
    assert "LIVOA_TOKEN" in result.json["error"]["hint"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["runs", "--url", "ftp://x"],
        ["run"],
        ["run", "x", "--value", "novalue"],
        ["run", "x", "--plan", "/no/such/file"],
        ["plan", "check", "/no/such/file"],
        ["plan", "check", __file__, "--tenant", "nobody"],
        ["token", "--role", "King"],
        ["token", "--lifetime", "999999999"],
        ["host", "--app", "/no/such/folder"],
    ],
)
def test_wrong_usage_is_exit_code_2_and_no_traceback(livoa, arguments):
    result = livoa(*arguments)
    assert result.code == ExitCode.USAGE
    assert result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (("run", "x", "--value", "a"), "run"),
        (("policy", "test", "x"), "policy"),
        (("agent", "new", "Bad_Name"), "agent"),
    ],
)
def test_wrong_usage_that_a_command_finds_leads_to_its_help(livoa, arguments, command):
    result = livoa(*arguments)
    assert result.code == ExitCode.USAGE
    assert f"Next: ./livoa {command} --help" in result.err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_and_the_exit_codes(livoa, name):
    result = livoa(name, "--help")
    assert result.code == 0
    assert "example:" in result.out
    assert f"./livoa {name}" in result.out.split("example:")[1]
    assert all(meaning in result.out for meaning in MEANINGS.values())
    assert "--json" in result.out


@pytest.mark.parametrize(
    ("name", "action"),
    [
        *[("audit", action) for action in ("show", "content", "export", "checkpoint", "pubkey", "verify")],
        *[("agent", action) for action in ("new", "check", "contract")],
        *[("retention", action) for action in ("run", "erase")],
    ],
)
def test_every_action_has_help_with_an_example_of_its_own(livoa, name, action):
    result = livoa(name, action, "--help")
    assert result.code == 0
    examples = [line for line in result.out.split("example:")[1].splitlines() if line.startswith("  ./livoa")]
    assert examples
    assert all(f"{line} ".startswith(f"  ./livoa {name} {action} ") for line in examples)


@pytest.mark.parametrize("arguments", [("up", "--port", "abc"), ("audit", "verify"), ("audit", "shwo"), ("run",)])
def test_wrong_usage_says_what_is_wrong_and_what_to_do_next(livoa, arguments):
    result = livoa(*arguments, "--json")
    assert result.code == ExitCode.USAGE
    assert json.loads(result.out)["error"]["code"] == "cli.usage"
    assert "Next: ./livoa " in result.err
    assert "--help" in result.err
    assert "_port" not in result.err


@pytest.mark.parametrize("number", ["x", "", "1.5", "-1", "9", "9" * 5_000])
def test_a_number_of_workers_that_cannot_be_is_told_in_words(livoa, number):
    result = livoa("up", f"--workers={number}", "--json")
    assert result.code == ExitCode.USAGE
    assert json.loads(result.out)["error"]["message"] == "argument --workers: must be 0 to 8"


def test_help_lists_every_command_and_loads_nothing_heavy():
    code = (
        "import sys; from cli.main import main; main(['--help'])\n"
        "heavy = {'rich', 'pydantic', 'aiohttp', 'asyncio', 'jwt', 'engine'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert all(f"  {name}" in result.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", [["up"], ["demo"], ["host", "--app", "."]])
@pytest.mark.parametrize("name", ["file", "file/below", "/proc/livoa"])
def test_a_data_folder_that_cannot_be_one_is_said_in_words(livoa, tmp_path, command, name):
    (tmp_path / "file").write_text("x")
    result = livoa(*command, "--data", str(tmp_path / name), "--json")
    assert result.code == ExitCode.USAGE
    assert result.json["error"]["code"] == "cli.data_folder"
    assert f"cannot use {tmp_path / name} as data folder: " in result.err
    assert "Next: " in result.err


def test_a_home_that_is_a_file_is_said_in_words_too(livoa, monkeypatch, tmp_path):
    (tmp_path / "home").write_text("x")
    assert livoa("demo").code == ExitCode.USAGE


def test_ctrl_c_says_that_the_run_goes_on_and_how_to_follow_it(connected, monkeypatch, tmp_path):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.watch.watch_run", interrupt)
    result = connected("run", "why?", "--data", str(tmp_path / "a b"), "--json")
    assert result.code == ExitCode.INTERRUPTED
    assert f"goes on without us ({RUN_ID})" in result.json["error"]["message"]
    assert f"./livoa events {RUN_ID} --follow --data '{tmp_path}/a b'" in result.json["error"]["hint"]


def test_an_unknown_tenant_is_answered_with_the_known_ones(connected, double):
    double.scripts["POST /api/runs"] = lambda asked: (401, problem("auth.tenant_unknown", 401, "Not onboarded."))
    hint = connected("run", "x", "--tenant", "nobody", "--json").json["error"]["hint"]
    assert "contoso" in hint
    assert "fabrikam" in hint


def test_an_error_of_the_system_is_words_and_not_a_traceback(livoa, monkeypatch):
    def full(options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x")

    monkeypatch.setattr("cli.commands.runs.run", full)
    result = livoa("runs", "--json")
    assert result.code == ExitCode.FAILED
    assert result.json["error"]["message"] == "/data/x: No space left on device"
    assert "Next: " in result.err


def test_a_token_is_minted_with_a_private_key_nobody_else_can_read(livoa, tmp_path):
    import jwt

    result = livoa("token", "--tenant", "fabrikam", "--user", "bo", "--role", "Runs.Read", "--json")
    claims = jwt.decode(result.json["token"], options={"verify_signature": False})
    assert claims["roles"] == ["Runs.Read"]
    keys = [path for path in (tmp_path / "home").iterdir() if path.suffix == ".pem"]
    assert [path.stat().st_mode & 0o077 for path in keys] == [0]
    assert livoa("token").out.count(".") == 2


def test_no_development_token_outside_the_local_environment(livoa, monkeypatch):
    monkeypatch.setenv("LIVOA_ENV", "azure")
    assert livoa("token").code == ExitCode.FORBIDDEN


def test_no_token_for_a_tenant_that_is_not_there_unless_asked_for(livoa, monkeypatch, tmp_path):
    refused = livoa("token", "--tenant", "nobody", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (ExitCode.USAGE, "cli.tenant")
    assert "one of contoso, fabrikam; --any-tenant" in refused.json["error"]["hint"]
    assert livoa("token", "--tenant", "nobody", "--any-tenant").out.count(".") == 2
    (tmp_path / "tenants").mkdir()
    (tmp_path / "tenants" / "nobody.yaml").touch()
    monkeypatch.setenv("LIVOA_CATALOG", str(tmp_path))
    assert livoa("token", "--tenant", "nobody").code == ExitCode.OK
    assert livoa("token").code == ExitCode.USAGE


def test_of_what_is_no_json_only_the_fault_is_told(livoa, tmp_path):
    (tmp_path / "plan.json").write_text("this is no json")
    said = livoa("plan", "check", f"{tmp_path}/plan.json")
    assert said.out.splitlines()[0].split() == ["error", "/", "plan.syntax"]
    assert ("steps:" in said.out, "edges:" in said.out, said.code) == (False, False, ExitCode.FAILED)


def test_notes_of_inferred_edges_are_counted_unless_asked_for(livoa):
    plan = str(ROOT / "catalog" / "samples" / "plans" / "mail_report.json")
    short, whole = livoa("plan", "check", plan), livoa("plan", "check", plan, "-v")
    assert short.out.splitlines()[0] == "note  1 edge is inferred from references (-v shows each)"
    assert ("plan.edge_inferred" in short.out, "plan.edge_inferred" in whole.out) == (False, True)
    assert "plan.edge_inferred" in {one["code"] for one in livoa("plan", "check", plan, "--json").json["warnings"]}


def test_a_key_that_was_used_for_another_request_comes_with_a_way_out(connected, double):
    double.scripts["POST /api/runs"] = lambda asked: (422, problem("idempotency.mismatch", 422, "used"))
    said = connected("run", "why?", "--idempotency-key", "k", "--json").json["error"]
    assert said["code"] == "idempotency.mismatch"
    assert "take another --idempotency-key, or leave it out" in said["hint"]


def test_plan_check_lists_every_fault_at_once_offline(livoa, tmp_path):
    plan = {
        "schema_version": "1.0", "goal": "g", "rationale": "r",
        "steps": [{"id": "a", "capability": "no.such"}, {"id": "b", "capability": "rag.search", "inputs": {}, "needs": ["zzz"]}],
        "answer": {"uses": ["a"], "instructions": "i"},
    }  # fmt: skip
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    result = livoa("plan", "check", f"{tmp_path}/plan.json", "--json")
    assert result.code == ExitCode.FAILED
    assert result.json["ok"] is False
    assert {"plan.unknown_capability", "plan.unknown_reference"} <= {error["code"] for error in result.json["errors"]}
    assert all(error["pointer"].startswith("/steps/") for error in result.json["errors"])
    assert {"errors", "steps", "edges", "critical_path", "plan_hash"} <= set(result.json)
    assert "plan.unknown_capability" in livoa("plan", "check", f"{tmp_path}/plan.json").out


def test_nothing_that_a_plan_says_drives_the_terminal_of_who_checks_it(livoa, tmp_path):
    odd = "a\x1b]0;owned\x07\x9b31m\u202eb"
    plan = {"schema_version": "1.0", "goal": "g", "rationale": "r", odd: 1, "steps": [], "answer": {"uses": ["a"]}}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    shown = livoa("plan", "check", f"{tmp_path}/plan.json").out
    assert "a]0;owned31mb" in shown
    result = livoa("plan", "check", f"{tmp_path}/plan.json", "--json")
    assert any(error["pointer"] == f"/{odd}" for error in result.json["errors"]), "for a program it is as it was"
    assert not set(shown + result.out) & set(odd) - set("a]0;owned31mb")


def test_a_good_plan_passes_with_its_hash_and_critical_path(livoa, tmp_path):
    plan = {
        "schema_version": "1.0", "goal": "g", "rationale": "r",
        "steps": [{"id": "notes", "capability": "rag.search", "inputs": {"query": "budget"}}],
        "answer": {"uses": ["notes"], "instructions": "i"},
    }  # fmt: skip
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    result = livoa("plan", "check", f"{tmp_path}/plan.json", "--json")
    assert (result.code, result.json["ok"], result.json["critical_path"]) == (0, True, ["notes"]), result.err
    assert len(result.json["plan_hash"]) == 64


def test_the_version_is_one_and_the_same_everywhere(livoa):
    import tomllib

    from engine import VERSION

    assert (livoa("--version").out, livoa("--version", "--json").json) == (f"livoa {VERSION}\n", {"version": VERSION})
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert ("version" in project["project"], project["project"]["dynamic"]) == (False, ["version"])
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "engine.VERSION"}
    newest = next(line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## "))
    assert VERSION in newest


@pytest.mark.parametrize("words", [("run",), ("audit", "show"), ("plan",), ("agent", "check")])
def test_help_on_a_command_is_that_commands_help(livoa, words):
    asked = livoa("help", *words)
    assert (asked.code, asked.out) == (ExitCode.OK, livoa(*words, "--help").out)
    assert asked.out.startswith(f"usage: ./livoa {' '.join(words)}")


def test_help_alone_is_the_overview_and_on_no_command_says_so(livoa):
    assert livoa("help").out == livoa("--help").out == livoa("help", "--json").out
    wrong = livoa("help", "rnu")
    assert (wrong.code, "did you mean run?" in wrong.err) == (ExitCode.USAGE, True)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_line_is_cut_on_a_terminal_alone_and_keeps_what_it_is_about_and_why(
    connected, double, monkeypatch, is_terminal
):
    monkeypatch.setattr("cli.commands.events.sys.stdout.isatty", lambda: is_terminal, raising=False)
    facts = {"approval_id": "a" * 200, "subject": "tv", "code": "approval.plan_changed", "message": "another plan"}
    double.events = [event(1, "approval.voided", **facts)]
    out = connected("events", RUN_ID).out
    assert "subject=tv code=approval.plan_changed message=another plan approval_id=a" in out
    assert (out.rstrip().endswith("a" * 200), out.rstrip().endswith("a…")) == (not is_terminal, is_terminal)


def test_figures_of_events_are_shown_rounded(connected, double):
    double.events = [event(1, "step.progressed", step_id="fit", progress=0.8500000000000001)]
    assert connected("events", RUN_ID).out.rstrip().endswith("step_id=fit progress=0.85")


@pytest.mark.parametrize("unsure", [True, False])
def test_doing_again_what_may_have_had_its_effect_comes_with_a_warning(connected, double, unsure):
    words = f"The agent did not answer within 4.0 s. {MAY_HAVE_HAD_ITS_EFFECT if unsure else ''}".strip()
    failed = {**double.steps()[1], "status": "failed", "error": {"code": "agent.timeout", "message": words}}
    steps = {"run_id": RUN_ID, "steps": [double.steps()[0], failed]}
    double.scripts[f"GET /api/runs/{RUN_ID}/steps"] = lambda asked: (200, steps)
    double.scripts[f"POST /api/runs/{RUN_ID}/rerun"] = lambda asked: (202, {"run_id": "run-2", "status": "accepted"})
    told = connected("rerun", RUN_ID)
    assert told.code == ExitCode.OK
    assert ("warning: it does again what may have had its effect already: fit\n" in told.err) == unsure
    assert (MAY_HAVE_HAD_ITS_EFFECT in connected("show", RUN_ID).out) == unsure

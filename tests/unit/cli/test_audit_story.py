"""`./livoa audit show` for people: the run in words, and what an auditor looks for by hand found for them."""

from __future__ import annotations

from typing import Any

import pytest

from cli.audit_story import HASH_CHARS, hashes_of, story
from cli.commands import audit
from cli.errors import CliError

ASKER, SECOND = "dir:ana", "dir:ben"
HASH = "ab12cd34ef56" + "0" * 52


def record(seq: int, kind: str, body: dict[str, Any], actor: str = ASKER) -> dict[str, Any]:
    at = f"2026-11-29T10:00:{seq:02d}.500000Z"
    return {"seq": seq, "type": kind, "at": at, "run_id": "run-1", "tenant_id": "contoso", "actor": actor, "body": body}


def intent(seq: int, step: str, **more: Any) -> dict[str, Any]:
    decision = {"verdict": "allow", "policies": ["t/contoso/send"]}
    body = {
        "step": step,
        "attempt": 1,
        "capability": "mail.send",
        "capability_version": "1.0.0",
        "side_effect": "external",
    }
    return record(
        seq, "dispatch.intended", body | {"inputs_sha256": HASH, "decision": decision | more.pop("decision", {})} | more
    )


def result(seq: int, step: str, **more: Any) -> dict[str, Any]:
    body = {
        "step": step,
        "attempt": 1,
        "status": "succeeded",
        "cost_micro_usd": 1_500,
        "output_sha256": HASH,
        "output_bytes": 1_234,
    }
    return record(seq, "dispatch.result", body | more)


SUBMITTED = record(1, "run.submitted", {"request_sha256": HASH, "client_app": "console", "own_plan": True})
FINISHED = record(
    9, "run.finished", {"status": "failed", "code": "step.failed", "spent_micro_usd": 1_500, "degraded": True}
)


def test_the_head_says_who_asked_how_it_ended_and_what_it_holds() -> None:
    denied = record(
        5, "policy.decision", {"step": "b", "capability": "ads.set", "verdict": "deny", "policies": ["p"], "code": "no"}
    )
    lines = story([SUBMITTED, intent(3, "a"), result(4, "a"), denied, FINISHED])
    assert lines[:4] == [
        "run-1 of contoso: records 1 to 9",
        "  asked   2026-11-29 10:00:01 UTC by ana with app console",
        "  ended   failed (step.failed), degraded, after 8.0 s, spent 0.0015 USD",
        "  holds   1 call, 1 denied",
    ]
    assert story([SUBMITTED])[2] == "  ended   not yet, or its end is not on record"
    assert story([]) == []


def test_a_grant_that_was_voided_does_not_count_as_one() -> None:
    def approval(seq: int, end: str, of: str) -> dict[str, Any]:
        return record(seq, f"approval.{end}", {"approval_id": of, "subject": "a"})

    ends = [approval(3, "granted", "ap-1"), approval(4, "voided", "ap-1"), approval(5, "granted", "ap-2")]
    assert story([SUBMITTED, *ends])[3] == "  holds   0 calls, 1 approval granted, 1 approval voided"
    assert story([SUBMITTED, *ends[:2]])[3] == "  holds   0 calls, 1 approval voided"


def test_a_result_names_its_intent_and_how_long_it_took() -> None:
    lines = story(
        [SUBMITTED, intent(3, "a"), intent(4, "b"), result(6, "b"), result(8, "a", status="failed", code="agent.x")]
    )
    assert lines[-2].endswith(
        f"b succeeded after 2.0 s (record 4); output {HASH[:HASH_CHARS]}, 1,234 bytes; 0.0015 USD"
    )
    assert "a failed (agent.x) after 5.0 s (record 3)" in lines[-1]


def test_an_intent_without_a_result_stands_out_and_one_that_is_known_to_have_none_does_not() -> None:
    unknown = record(7, "result.unknown", {"intent_seq": 4, "step": "b", "attempt": 1, "capability": "mail.send"})
    lines = story([SUBMITTED, intent(3, "a"), intent(4, "b"), unknown])
    assert lines[-3].endswith("NO RESULT IS ON RECORD")
    assert "NO RESULT" not in lines[-2]
    assert "intent_seq=4" in lines[-1]


def test_attempts_items_and_what_stands_in_are_kept_apart() -> None:
    calls = [
        intent(3, "a", item=2),
        intent(4, "a", attempt=2, item=2),
        intent(5, "a", item=2, attempt=2, purpose="fallback"),
    ]
    lines = story([SUBMITTED, *calls, result(6, "a", item=2, attempt=2)])
    assert "a[2] calls mail.send 1.0.0 (external)" in lines[-4]
    assert lines[-4].endswith("NO RESULT IS ON RECORD")
    assert "a[2] (attempt 2) calls" in lines[-3]
    assert "NO RESULT" not in lines[-3]
    assert "a[2] (fallback, attempt 2) calls" in lines[-2]
    assert "(record 4)" in lines[-1]


def test_cures_and_second_persons_are_named() -> None:
    asked = {"step": "a", "capability": "mail.send", "verdict": "transform", "policies": ["plat.pii-egress"]}
    cures = [{"kind": "redaction", "detail": "/lines/0/value"}, {"kind": "masking", "detail": "/body"}]
    decision = {"redacted": ["/lines/0/value"], "masked": ["/body"], "approved_by": SECOND}
    granted = record(4, "approval.granted", {"approval_id": "x", "subject": "a", "arguments_sha256": HASH}, SECOND)
    lines = story(
        [SUBMITTED, record(3, "policy.decision", asked | {"cures": cures}), granted, intent(5, "a", decision=decision)]
    )
    assert "must be changed by plat.pii-egress; needs redaction /lines/0/value; needs masking /body" in lines[-3]
    assert lines[-2].endswith("approval_id=x  subject=a; by ben")
    assert "allowed by t/contoso/send; redacted /lines/0/value; masked /body; approved by ben" in lines[-1]


def test_prompts_are_paired_with_their_completions() -> None:
    where = {"work": "plan", "node": "plan", "request": 1}
    prompt = record(2, "planner.prompt", where | {"model": "m", "prompt_sha256": HASH})
    lost = record(3, "planner.prompt", where | {"request": 2, "model": "m"})
    done = record(4, "planner.completion", where | {"status": "succeeded", "output_sha256": HASH, "output_bytes": 9})
    lines = story([SUBMITTED, prompt, lost, done])
    assert "NO RESULT" not in lines[-3]
    assert lines[-2].endswith("NO RESULT IS ON RECORD")


def test_the_hashes_are_those_of_content() -> None:
    other = "f" * 64
    assert hashes_of([SUBMITTED, record(2, "x", {"inputs_sha256": other, "answer_sha256": "e" * 64})]) == {
        HASH,
        "e" * 64,
    }


class Kept:
    """An API with one page of records."""

    def __init__(self, *hashes: str) -> None:
        self.records = [record(n, "x", {"output_sha256": one}) for n, one in enumerate(hashes)]

    def run_audit(self, run_id: str, **_: Any) -> dict[str, Any]:
        return {"records": self.records, "next_after": 0, "more": False}


def test_the_beginning_of_a_hash_will_do_as_long_as_it_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(HASH, "ab12ff" + "0" * 58)
    monkeypatch.setattr(audit, "_pages", lambda api, run_id: iter(api.records))
    whole: Any = audit._whole
    assert whole(HASH[:12], "run-1", kept) == HASH
    assert whole("ab12f", "run-1", kept) == "ab12f", "too short to be looked for"
    assert whole("cdcdcdcd", "run-1", kept) == "cdcdcdcd", "the host says that there is none"
    with pytest.raises(CliError, match="2 hashes"):
        whole("ab12ff", "run-1", Kept("ab12ff" + "0" * 58, "ab12ff" + "1" * 58))

"""What a caller says in confidence is encrypted in the payload store, and nowhere in the clear: no log, no durable history, no
queue, no row, no file."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from engine.domain.principal import Role
from tests.e2e.client import Client
from tests.e2e.plans import request_of, search
from tests.e2e.stack import Stack

IN_INTENT = "canary-in-intent-4f1c"
IN_GOAL = "canary-in-goal-8d2e"
IN_VALUES = "canary-in-values-77ab"
IN_DOCUMENT = "canary-in-document-c0de"
IN_LITERAL = "canary-in-step-inputs-91ee"
IN_KEY = "canary_in_a_name-5b5b"
IN_NOWHERE = "canary-never-sent"
CANARIES = (IN_INTENT, IN_GOAL, IN_VALUES, IN_DOCUMENT, IN_LITERAL, IN_KEY)
PRIVATE = "payloads"
A_TOKEN = re.compile(rb"eyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}")


@pytest.fixture(scope="module")
def confided(stack: Stack) -> tuple[str, str]:
    """A run full of canaries, with a step that succeeds and one that is refused; and the token it was submitted with."""
    token = stack.tokens.mint("contoso")
    client = Client(stack.url, lambda: token)
    request = request_of(
        search("a", query={"$template": "budget {it}", "it": {"$ref": "run#/context/values/secret"}}),
        search("b", "a", query=IN_LITERAL),
        search("c", query={"$ref": "run#/context/values/wrong"}, optional=True),
        uses=["a", "b"],
        goals=[IN_GOAL],
        context={
            "values": {"secret": IN_VALUES, "wrong": {IN_KEY: IN_VALUES}},
            "documents": [{"name": "note", "text": IN_DOCUMENT}],
        },
    )
    # The title of a run is the beginning of its intent, so the canary stands behind it.
    run_id = client.submit(request | {"intent": "Carry out this plan. " * 10 + IN_INTENT})
    assert client.finished(run_id)["status"] == "succeeded"
    for path in ("", "/status", "/plan", "/steps", "/events", "/steps/a/output"):
        client.get(f"/api/runs/{run_id}{path}", Accept="application/json")
    client.post("/api/runs", {"intent": IN_INTENT, "context": {"values": IN_VALUES}, IN_KEY: 1})
    client.post("/api/runs", b'{"intent": "' + IN_INTENT.encode() + b'"')
    return run_id, token


def files_with(data: Path, text: bytes) -> set[str]:
    """Paths below a data folder, first two parts, of files that contain a text as it is or in base64."""
    forms = {text} | {_middle_of_base64(text, shift) for shift in range(3)}
    found = [path for path in data.rglob("*") if path.is_file() and any(form in path.read_bytes() for form in forms)]
    return {"/".join(path.relative_to(data).parts[:2]) for path in found}


def _middle_of_base64(text: bytes, shift: int) -> bytes:
    """The part of a base64 text that does not depend on what stands around."""
    return base64.b64encode(b"\0" * shift + text)[4:-4]


@pytest.mark.parametrize("canary", CANARIES)
def test_what_a_caller_says_is_nowhere_in_the_clear(stack: Stack, confided: tuple[str, str], canary: str) -> None:
    assert files_with(stack.data, canary.encode()) == set()


def test_what_a_caller_says_is_in_the_encrypted_evidence(
    stack: Stack, contoso: Client, confided: tuple[str, str]
) -> None:
    run_id, _ = confided
    auditor = Client(stack.url, lambda: stack.tokens.mint("contoso", roles=(Role.AUDIT_READ,)))
    records = auditor.get(f"/api/runs/{run_id}/audit").json["records"]
    (asked,) = [record["body"] for record in records if record["type"] == "run.submitted"]
    found = auditor.get(f"/api/runs/{run_id}/audit/content/{asked['request_sha256']}").json["text"]
    assert [canary for canary in CANARIES if canary not in found] == []
    assert list((stack.data / PRIVATE / "contoso" / run_id).iterdir())


def test_the_search_looks_into_the_files_that_matter(stack: Stack, confided: tuple[str, str]) -> None:
    run_id, _ = confided
    found = files_with(stack.data, run_id.encode())
    for place in ("logs/host.log", "livoa.db", "host/durable.sqlite", "agents/executions.db"):
        assert any(path.startswith(place) for path in found), place
    assert files_with(stack.data, IN_NOWHERE.encode()) == set()


def header(token: bytes) -> str:
    """The type that a signed text states of itself."""
    first = token.split(b".")[0]
    return str(json.loads(base64.urlsafe_b64decode(first + b"=" * (-len(first) % 4))).get("typ"))


def test_no_token_is_written_down_anywhere(stack: Stack, confided: tuple[str, str]) -> None:
    _, token = confided
    for part in (token, token.split(".")[2]):
        assert files_with(stack.data, part.encode()) == set()
    signed = {found for path in stack.data.rglob("*") if path.is_file() for found in A_TOKEN.findall(path.read_bytes())}
    # Signed checkpoints have a token's shape and are published on purpose; nobody gets in with them.
    assert {header(found) for found in signed} <= {"livoa-checkpoint"}


def test_outputs_are_not_in_durable_history_or_logs(stack: Stack, contoso: Client, confided: tuple[str, str]) -> None:
    run_id, _ = confided
    passage = contoso.output(run_id, "a")["passages"][0]["text"][:40].encode()
    places = files_with(stack.data, passage)
    assert not {place for place in places if place.startswith(f"{PRIVATE}/")}
    # The answer quotes passages, so the event log has them as answer text; nothing else may.
    assert not {place for place in places if place.startswith(("logs/", "host/"))}


def test_everything_but_the_public_keys_is_for_its_owner_only(stack: Stack, confided: tuple[str, str]) -> None:
    not_ours = {"development-jwks.json", "test.log"}  # public on purpose; written by the test
    private = [path for path in stack.data.rglob("*") if path.is_file() and path.name not in not_ours]
    assert len(private) > 8
    assert [path for path in private if path.stat().st_mode & 0o077] == []

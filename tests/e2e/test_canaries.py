"""What must not be anywhere but in the evidence, on every way a run can end: success, failure, denial, a second person's no,
a model that cannot plan, and requests that never become a run.

The agents here are hostile in the way that matters: what they are given they repeat, in outputs and in their error messages.
Logs, durable history, rows, files, events, spans, metrics and error texts are looked through byte by byte; the auditor's door
shows that the evidence is whole. ``test_the_search_would_find_a_leak`` plants one of each kind, so that a search that finds
nothing means something.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from engine.domain.principal import Role
from tests.e2e.client import Client
from tests.e2e.plans import request_of, search
from tests.e2e.stack import Stack, host_alone, rows
from tests.support.model_server import Answer, ModelRequest, ModelServer, as_json, text
from tests.support.model_server.scripts import demo

SECRET = "canary-7d1f-in-a-prompt"
PERSON = "Wilhelmina Krahwinkel, 853-37-1694, wilhelmina@krahwinkel.example"
MODEL_SAID = "canary-29aa-of-a-model"
TITLE = "Canary-51c3 begins the intent"
COMMENT = "canary-6e6e-of-an-approver"
FIELD = "canary-0c0c-names-a-member"
NEVER = "canary-never-said"
PIECES = (SECRET, "Wilhelmina Krahwinkel", "853-37-1694", "wilhelmina@krahwinkel.example", MODEL_SAID)
EXPORTED = ("POST runs", "execute_tool", "invoke_agent", "chat", "app.steps.finished")


@dataclass
class Collector:
    """Takes whatever is posted to it: what an OTLP exporter sends, and what agents are asked."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)


def _execute(asked: dict[str, Any]) -> dict[str, Any]:
    """An agent that repeats what it is told."""
    said = json.dumps(asked["inputs"], ensure_ascii=False)
    if asked["capability"] == "rag.search" and "please fail" not in said:
        passage = dict.fromkeys(("document", "title", "section", "date", "citation"), "x")
        output = {"passages": [passage | {"text": said, "score": 1}], "tables": []}
        return {"status": "succeeded", "output": output}
    return {"status": "failed", "error": {"code": "agent.refused", "message": f"cannot do {said}", "retryable": False}}


@contextmanager
def listening() -> Iterator[Collector]:
    """A collector on loopback."""
    kept = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer: dict[str, Any] = {}
            if self.path == "/execute":
                kept.asked.append(json.loads(body))
                answer = _execute(kept.asked[-1])
            else:
                kept.bodies.append(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        kept.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield kept
        server.shutdown()


def scripted(request: ModelRequest) -> Answer:
    """A model that repeats its canary wherever it can, plans once, and will not plan where it is told so."""
    if request.work == "livoa_plan_proposal":
        if "please do not plan" in request.prompt:
            return text(f"no, {MODEL_SAID}")
        return as_json(demo.proposal() | {"rationale": MODEL_SAID})
    return demo.answer(request)


@dataclass
class Confided:
    """A host that was told in confidence, what it sent out, and every answer it gave that was no success."""

    stack: Stack
    collector: Collector
    runs: dict[str, str]
    errors: list[bytes]
    token: str

    @property
    def client(self) -> Client:
        return Client(self.stack.url, lambda: self.token)


def _asked(**more: Any) -> dict[str, Any]:
    context = {
        "values": {"secret": SECRET, "person": PERSON},
        "documents": [{"name": "brief", "text": f"{SECRET} {PERSON} eve@evil.example"}],
    }
    return {"goals": [f"for {PERSON}"], "context": context} | more


def _plans() -> dict[str, dict[str, Any]]:
    """A submission per way to end, by its name; the status it must come to beside it."""
    both = {
        "$template": "{s} {p}",
        "s": {"$ref": "run#/context/values/secret"},
        "p": {"$ref": "run#/context/values/person"},
    }
    fails = {"$template": "please fail {s} {p}"} | {name: both[name] for name in ("s", "p")}
    mail = {
        "id": "tell",
        "capability": "mail.send",
        "inputs": {"to": ["bob@agency.example"], "subject": SECRET, "body": PERSON},
    }
    stolen = mail["inputs"] | {"to": [{"$ref": "run#/context/documents/0/text"}]}
    return {
        "succeeded": _asked(**request_of(search("a", query=both), search("b", "a", query=SECRET))),
        "failed": _asked(**request_of(search("a", query=fails, on_failure="fail"))),
        "denied": _asked(**request_of(mail | {"inputs": stolen})),
        "refused": _asked(**request_of(mail)),
        "modelled": _asked(intent=f"{demo_intent()} {SECRET} {PERSON}"),
        "unplannable": _asked(intent=f"{TITLE}, please do not plan. {'Say nothing. ' * 10}{SECRET} {PERSON}"),
    }


def demo_intent() -> str:
    return "Why did paid-search ROI fall in Q3 2026 and how should the Q4 budget move? It is about sales and not about anybody"


def _malformed(client: Client) -> list[bytes]:
    """Requests that never become a run, each with a canary in the offending place."""
    bad: list[Any] = [
        {"intent": SECRET, FIELD: PERSON},
        {"intent": "x", "context": {"values": SECRET}},
        {"intent": "x", "context": {"documents": [{"name": 1, "text": [PERSON]}]}},
        {"intent": ["x", PERSON]},
        {"intent": "x", "constraints": {"max_steps": PERSON}},
        {"intent": "x", "plan": {"schema_version": SECRET, "goal": PERSON, "steps": PERSON}},
        {"intent": "x", "plan": {"steps": [{"id": PERSON, "capability": SECRET, "inputs": SECRET}]}},
        request_of(search("a", query={"$ref": PERSON})),
        request_of(search("a", query={SECRET: 1})),
        request_of(search("a", query=[PERSON])),
        request_of(search("a") | {"when": {"value": {"$ref": SECRET}, "op": PERSON}}),
        f'{{"intent": "{SECRET}"'.encode(),
        f'{{"intent": "{PERSON}", "intent": "{SECRET}"}}'.encode(),
        f'"{PERSON}"'.encode(),
    ]
    answers = [client.post(path, body) for body in bad for path in ("/api/runs", "/api/plans")]
    answers.append(client.post("/api/runs", {"intent": "x"}, Idempotency_Key=f"{SECRET} {'x' * 300}"))
    stranger = Client(client.url, lambda: f"{SECRET}.{base64.b64encode(PERSON.encode()).decode()}.x")
    answers.append(stranger.post("/api/runs", {"intent": SECRET}))
    return [answer.body for answer in answers if answer.status >= 400]


@pytest.fixture(scope="module")
def confided(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Confided]:
    data = tmp_path_factory.mktemp("confided")
    with ModelServer() as provider, listening() as collector:
        provider.script(scripted)
        model = {
            "name": "m", "kind": "openai_compatible", "endpoint": provider.url, "model": "gpt-4o",
            "default_for": ["router", "planner", "synthesiser"],
        }  # fmt: skip
        names = ("analytics", "crm", "insights", "mmm", "outbox", "rag", "rates")
        settings = {
            "LIVOA_MODEL_DEPLOYMENTS": json.dumps([model]),
            "LIVOA_AGENT_ENDPOINTS": json.dumps(dict.fromkeys(names, collector.url)),
            "LIVOA_TELEMETRY": "otlp",
            "LIVOA_LOG_LEVEL": "DEBUG",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
        }
        with host_alone(data, settings) as stack:
            token = stack.tokens.mint("contoso")
            told = Confided(stack, collector, {}, [], token)
            told.errors += _malformed(told.client)
            told.runs |= {name: told.client.submit(request) for name, request in _plans().items()}
            refuse(stack, told.client, told.runs["refused"])
            for run_id in told.runs.values():
                told.client.finished(run_id, patience_s=90)
                told.errors.append(told.client.get(f"/api/runs/{run_id}/steps/none/output").body)
            until_exported(collector)
            yield told


def refuse(stack: Stack, client: Client, run_id: str) -> None:
    """A second person says no, with a word about somebody."""
    client.until_event(run_id, "approval.requested")
    second = stack.client("contoso", "ben", (Role.RUNS_APPROVE, Role.RUNS_READ))
    answered = second.post(f"/api/runs/{run_id}/approvals/tell", {"decision": "reject", "comment": COMMENT})
    assert answered.status == 200, answered.body


def until_exported(collector: Collector) -> None:
    until = time.monotonic() + 30
    while not all(any(name.encode() in body for body in collector.bodies) for name in EXPORTED):
        assert time.monotonic() < until, {n for n in EXPORTED if not any(n.encode() in one for one in collector.bodies)}
        time.sleep(0.2)


def forms(piece: str) -> set[bytes]:
    """A text as it is, as JSON escapes it, and the middle of its base64 at any position."""
    plain = piece.encode()
    encoded = {base64.b64encode(b"\0" * shift + plain)[4:-4] for shift in range(3)}
    return {plain, json.dumps(piece)[1:-1].encode(), plain.replace(b" ", b"%20"), *encoded}


def places_with(told: Confided, piece: str) -> set[str]:
    """Where a text is: files below the data folder, ``sent`` to the collector, ``told`` in an error, ``event`` of a run."""
    wanted = forms(piece)

    def holds(body: bytes) -> bool:
        return any(form in body for form in wanted)

    data = told.stack.data
    found = {str(path.relative_to(data)) for path in data.rglob("*") if path.is_file() and holds(path.read_bytes())}
    found |= {"sent"} if any(map(holds, told.collector.bodies)) else set()
    found |= {"told"} if any(map(holds, told.errors)) else set()
    for run_id in told.runs.values():
        events = told.client.page(run_id)["events"]
        words = [event for event in events if not event["type"].startswith("answer.")]
        found |= {"event"} if holds(json.dumps(words, ensure_ascii=False).encode()) else set()
    return found


def rows_with(data: Path, piece: str) -> set[str]:
    """Tables and columns of the database in which a text stands."""
    database = data / "livoa.db"
    tables = [name for (name,) in rows(database, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = set()
    for table in tables:
        columns = [row[1] for row in rows(database, f"PRAGMA table_info({table})")]  # names are ours
        for column in columns:
            query = f"SELECT count(*) FROM {table} WHERE instr(CAST({column} AS TEXT), ?) > 0"
            if rows(database, query, piece)[0][0]:
                found.add(f"{table}.{column}")
    return found


def test_every_way_to_end_was_taken(confided: Confided) -> None:
    ended = {name: confided.client.run(run_id)["status"] for name, run_id in confided.runs.items()}
    assert {name: ended[name] for name in ("succeeded", "failed", "denied", "refused")} == {
        "succeeded": "succeeded", "failed": "failed", "denied": "denied", "refused": "denied",
    }  # fmt: skip
    assert ended["modelled"] in ("failed", "partial")
    assert ended["unplannable"] == "failed"
    assert len(confided.errors) > 20
    assert any(SECRET in json.dumps(asked) for asked in confided.collector.asked), "agents were not told either"


@pytest.mark.parametrize("piece", PIECES)
def test_it_is_in_no_log_history_file_span_metric_event_or_error(confided: Confided, piece: str) -> None:
    found = places_with(confided, piece)
    assert {place for place in found if not place.startswith("livoa.db")} == set()


@pytest.mark.parametrize("piece", PIECES)
def test_rows_hold_only_what_is_said_to_stand_in_them(confided: Confided, piece: str) -> None:
    """docs/privacy.md: an agent's words in its step's record, masked; the text of answers. Nothing of what was asked."""
    allowed = {"steps.document", "events.data"} if piece in (SECRET, "Wilhelmina Krahwinkel") else set()
    assert rows_with(confided.stack.data, piece) <= allowed


def test_the_beginning_of_an_intent_is_the_runs_title_and_nothing_else(confided: Confided) -> None:
    assert rows_with(confided.stack.data, TITLE) == {"runs.document"}
    assert {place.split("-")[0] for place in places_with(confided, TITLE)} <= {"livoa.db"}


def test_what_an_approver_adds_stands_in_the_approval_and_nowhere_else(confided: Confided) -> None:
    assert {one.split(".")[0] for one in rows_with(confided.stack.data, COMMENT)} == {"approvals"}
    assert {place.split("-")[0] for place in places_with(confided, COMMENT)} <= {"livoa.db"}


def test_a_members_name_is_told_to_who_sent_it_as_the_place_of_the_offence(confided: Confided) -> None:
    assert places_with(confided, FIELD) == {"told"}


def test_the_token_is_nowhere(confided: Confided) -> None:
    for part in (confided.token, confided.token.split(".")[1], confided.token.split(".")[2]):
        assert places_with(confided, part) == set()


def test_the_evidence_is_whole(confided: Confided) -> None:
    auditor = Client(confided.stack.url, lambda: confided.stack.tokens.mint("contoso", roles=(Role.AUDIT_READ,)))
    everything = {}
    for name, run_id in confided.runs.items():
        records = auditor.get(f"/api/runs/{run_id}/audit").json["records"]
        hashes = set(re.findall(r'_sha256": "([0-9a-f]{64})"', json.dumps(records)))
        answers = [auditor.get(f"/api/runs/{run_id}/audit/content/{one}") for one in sorted(hashes)]
        everything[name] = "".join(answer.json["text"] for answer in answers if answer.status == 200)
        assert not any(piece in json.dumps(records, ensure_ascii=False) for piece in PIECES)
    for name, content in everything.items():
        assert SECRET in content, name
        assert PERSON in content, name
    assert MODEL_SAID in everything["modelled"]
    assert MODEL_SAID in everything["unplannable"]


def test_the_search_would_find_a_leak(confided: Confided) -> None:
    """One planted leak per place, each found; and nothing is found of what was never said."""
    assert places_with(confided, NEVER) == set()
    data = confided.stack.data
    planted = data / "logs" / "planted.log"
    planted.write_bytes(base64.b64encode(f"before {NEVER} after".encode()))
    confided.collector.bodies.append(f"span {NEVER}".encode())
    confided.errors.append(json.dumps({"detail": f"no such {NEVER}"}).encode())
    history = data / "host" / "durable.sqlite"
    with closing(sqlite3.connect(history)) as connection:
        connection.execute("CREATE TABLE planted (text TEXT)")
        connection.execute("INSERT INTO planted VALUES (?)", (NEVER,))
        connection.commit()
    try:
        found = places_with(confided, NEVER)
        assert {"logs/planted.log", "sent", "told"} <= found
        assert any(place.startswith("host/durable.sqlite") for place in found)
    finally:
        planted.unlink()
        confided.collector.bodies.pop()
        confided.errors.pop()
        with closing(sqlite3.connect(history)) as connection:
            connection.execute("DROP TABLE planted")
            connection.commit()

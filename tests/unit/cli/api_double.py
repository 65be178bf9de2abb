"""A test double of the HTTP API: a loopback server that speaks its contract from a script, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

RUN_ID = "run-01test"
PLAN = {
    "schema_version": "1.0",
    "goal": "why",
    "steps": [
        {"id": "spend", "capability": "marketing.query"},
        {"id": "fit", "capability": "mmm.fit", "needs": ["spend"]},
        {"id": "notes", "capability": "rag.search", "needs": ["fit", "spend"], "optional": True},
    ],
    "answer": {"uses": ["fit"]},
}
ANSWER = {
    "goal": "why",
    "summary": "Because of \x1b[31mprices.",
    "kpis": [{"name": "ROI", "value": 2.25, "unit": "x", "change": -0.37, "low": 2.1, "high": 2.43, "step_id": "fit"}],
    "tables": [{"title": "Split", "columns": ["Channel", "GBP"], "rows": [["TV", 385600]], "step_id": "fit"}],
    "insights": [{"text": "Spend less there.", "step_ids": ["fit"]}],
    "missing": [],
    "degraded_reason": "no model is configured",
}


def event(seq: int, kind: str, **data: Any) -> dict[str, Any]:
    return {"run_id": RUN_ID, "seq": seq, "type": kind, "at": "2026-11-22T12:00:00.123456Z", "data": data}


EVENTS = [
    event(1, "run.accepted"),
    event(2, "degraded.entered", part="planner", reason="no model is configured"),
    event(3, "plan.proposed", plan_hash="a" * 64, plan_version=1, playbook="explain"),
    event(4, "plan.vetted", plan_hash="a" * 64, plan_version=1),
    event(5, "step.started", step_id="spend", attempt=1),
    event(6, "step.succeeded", step_id="spend", attempt=1, duration_ms=420),
    event(7, "step.started", step_id="fit", attempt=1),
    event(8, "step.retried", step_id="fit", attempt=1, code="agent.busy"),
    event(9, "step.started", step_id="fit", attempt=2),
    event(10, "step.succeeded", step_id="fit", attempt=2, duration_ms=2100),
    event(11, "run.succeeded"),
]


def asking(**changes: Any) -> dict[str, Any]:
    """An approval as the API shows it."""
    return {
        "run_id": RUN_ID, "approval_id": "ap-1", "subject": "tell", "item": None, "kind": "step", "status": "pending",
        "capability": "mail.send", "reasons": ["mail outside needs a second\x1b[31m person"], "requested_by": "tid:ana",
        "requested_at": "2026-11-22T12:00:00Z", "expires_at": "2026-11-22T13:00:00Z", "decided_by": None, "decided_at": None,
        "comment": None, "answer": f"/api/runs/{RUN_ID}/approvals/tell",
        "arguments": {"capability": "mail.send", "inputs": {"to": "x@y.example"}},
        "findings": [{"policy_id": "t/contoso/mail", "path": ["steps.spend#/rows/0", "steps.tell"]}],
    } | changes  # fmt: skip


@dataclass
class Double:
    """What the server answers and what it heard. ``scripts`` maps ``METHOD path`` to an answer or a function of the request."""

    url: str = ""
    status: str = "succeeded"
    events: list[dict[str, Any]] = field(default_factory=lambda: list(EVENTS))
    heard: list[dict[str, Any]] = field(default_factory=list)
    scripts: dict[str, Callable[[dict[str, Any]], tuple[int, Any]]] = field(default_factory=dict)
    approvals: list[dict[str, Any]] = field(default_factory=list)
    page_size: int = 4
    etag: str = ""

    def answer(self, asked: dict[str, Any]) -> tuple[int, Any]:
        self.heard.append(asked)
        if script := self.scripts.get(f"{asked['method']} {asked['path']}"):
            return script(asked)
        match asked["method"], asked["path"].removeprefix("/api/runs").removeprefix(f"/{RUN_ID}"):
            case "POST", "":
                return 202, {"id": RUN_ID, "run_id": RUN_ID, "status": "accepted"}
            case "GET", "" if asked["path"] == "/api/runs":
                return 200, {"runs": [self.run()], "next_cursor": None}
            case "GET", "":
                return 200, {**self.run(), "answer": ANSWER}
            case "GET", "/plan":
                return 200, {"run_id": RUN_ID, "plan_version": 1, "plan_hash": "a" * 64, "plan": PLAN}
            case "GET", "/steps":
                return 200, {"run_id": RUN_ID, "steps": self.steps()}
            case "GET", "/approvals":
                return 200, {"run_id": RUN_ID, "approvals": self.approvals}
            case "GET", "/api/approvals":
                return 200, {"approvals": self.approvals}
            case "POST", path if path.startswith("/approvals/"):
                granted = asked["body"]["decision"] == "approve"
                return 200, asking(status="granted" if granted else "refused", decided_by="tid:ben")
            case "GET", "/events":
                return 200, self.page(int(asked["query"].get("after", ["0"])[0]))
            case "POST", "/cancel":
                return 202, {**self.run(), "status": "cancelling"}
        return 404, problem("run.not_found", 404, "There is no such run.")

    def run(self) -> dict[str, Any]:
        return {
            "run_id": RUN_ID, "status": self.status, "title": "why", "degraded": True, "plan_hash": "a" * 64, "error": None,
            "created_at": "2026-11-22T12:00:00Z", "finished_at": "2026-11-22T12:00:09Z",
        }  # fmt: skip

    def steps(self) -> list[dict[str, Any]]:
        rest = {"kind": "call", "error": None, "output": None, "cost_micro_usd": 0}
        return [
            {"id": name, "status": "succeeded", "attempt": attempt, "duration_ms": ms, "capability": "x", **rest}
            for name, attempt, ms in (("spend", 1, 420), ("fit", 2, 2100), ("notes", 1, 5))
        ]

    def page(self, after: int) -> dict[str, Any]:
        events = [entry for entry in self.events if entry["seq"] > after][: self.page_size]
        last = events[-1]["seq"] if events else after
        return {"events": events, "next_after": last, "ended": last >= len(self.events)}


def problem(code: str, status: int, detail: str, **more: Any) -> dict[str, Any]:
    return {"type": f"urn:livoa:problem:{code}", "title": "t", "status": status, "detail": detail, "code": code, **more}


@contextmanager
def serve_double() -> Iterator[Double]:
    double = Double()

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            asked = {
                "method": self.command, "path": parts.path, "query": parse_qs(parts.query),
                "headers": {name.lower(): value for name, value in self.headers.items()},
                "body": json.loads(body) if body else None,
            }  # fmt: skip
            status, answer = double.answer(asked)
            if status == 0:  # the connection breaks, as when the host is killed
                self.close_connection = True
                self.connection.close()
                return
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            if double.etag:
                self.send_header("etag", double.etag)
            self.send_header("content-length", str(len(data)))
            if status == 302:
                self.send_header("location", "http://192.0.2.1/elsewhere")
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = _any  # noqa: N815  # names of the base class

        def log_message(self, *_: object) -> None:
            """Quiet."""

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (OSError, ValueError):
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    double.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()

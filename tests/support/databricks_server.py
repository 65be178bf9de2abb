"""The part of the Databricks Jobs API 2.2 that the lakehouse agent uses, on a loopback port, for Databricks' own SDK.

Jobs are functions of this process: parameters in, text of ``dbutils.notebook.exit`` out. A run moves one state each time somebody
looks. Faults are answers to be given instead of the next ones.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "dapi-for-tests"
STATES = ("QUEUED", "PENDING", "RUNNING", "TERMINATING", "TERMINATED")
Job = Callable[[dict[str, str]], str]


@dataclass
class JobRun:
    """One run of a job. ``ending`` is the termination code once it is over."""

    run_id: int
    job_id: int
    parameters: dict[str, str]
    step: int = 0
    ending: str = "SUCCESS"

    @property
    def state(self) -> str:
        return STATES[min(self.step, len(STATES) - 1)]


@dataclass
class DatabricksServer:
    """``jobs`` by id. ``endings`` are the codes of the next runs, ``faults`` the (status, error code) of the next requests."""

    jobs: dict[int, Job] = field(default_factory=dict)
    endings: list[str] = field(default_factory=list)
    faults: list[tuple[int, str]] = field(default_factory=list)
    never_ends: bool = False
    truncated: bool = False
    runs: dict[int, JobRun] = field(default_factory=dict)
    by_token: dict[str, int] = field(default_factory=dict)
    heard: list[str] = field(default_factory=list)
    looked: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> DatabricksServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._answer(self)

            def do_POST(self) -> None:
                outer._answer(self)

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path)
        length = int(request.headers.get("Content-Length") or 0)
        body = json.loads(request.rfile.read(length) or b"{}")
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        status, answer = self._judge(request, parts.path, query | body)
        data = json.dumps(answer).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        if status == 429:
            request.send_header("Retry-After", "1")
        request.end_headers()
        request.wfile.write(data)

    def _judge(self, request: BaseHTTPRequestHandler, path: str, given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        operation = path.removeprefix("/api/2.2/jobs/")
        if operation == path:
            return 404, {"error_code": "ENDPOINT_NOT_FOUND", "message": "no such endpoint"}
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {"error_code": "UNAUTHENTICATED", "message": "canary: who are you"}
        self.heard.append(operation)
        if self.faults:
            status, code = self.faults.pop(0)
            return status, {"error_code": code, "message": "canary: something of the workspace"}
        handlers: dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]] = {
            "run-now": self._run_now,
            "runs/get": self._get,
            "runs/get-output": self._output,
            "runs/cancel": self._cancel,
        }
        found = handlers[operation](given) if operation in handlers else None
        if found is None:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "canary: no such thing"}
        return 200, found

    def _run_now(self, given: dict[str, Any]) -> dict[str, Any] | None:
        token = given.get("idempotency_token", "")
        assert len(token) <= 64, "the API takes at most 64 characters"
        if given["job_id"] not in self.jobs:
            return None
        if token not in self.by_token:
            run = JobRun(1_000 + len(self.runs), given["job_id"], dict(given.get("job_parameters", {})))
            run.ending = self.endings.pop(0) if self.endings else "SUCCESS"
            self.runs[run.run_id] = run
            self.by_token[token] = run.run_id
        return {"run_id": self.by_token[token], "number_in_job": self.by_token[token]}

    def _get(self, given: dict[str, Any]) -> dict[str, Any] | None:
        run = self.runs.get(int(given["run_id"]))
        if run is None:
            return None
        status: dict[str, Any] = {"state": run.state}
        if run.state == "TERMINATED":
            status["termination_details"] = {"code": run.ending, "type": "SUCCESS", "message": "canary"}
        elif not (self.never_ends and run.state == "RUNNING"):
            run.step += 1
        self.looked.set()
        return {"run_id": run.run_id, "job_id": run.job_id, "status": status, "tasks": [{"run_id": run.run_id + 5_000}]}

    def _output(self, given: dict[str, Any]) -> dict[str, Any] | None:
        run = self.runs.get(int(given["run_id"]) - 5_000)
        if run is None:
            return None
        return {"notebook_output": {"result": self.jobs[run.job_id](run.parameters), "truncated": self.truncated}}

    def _cancel(self, given: dict[str, Any]) -> dict[str, Any] | None:
        run = self.runs.get(int(given["run_id"]))
        if run is None:
            return None
        run.step, run.ending = len(STATES) - 1, "CANCELED"
        return {}

"""The part of Azure AI Search's REST interface that the retrieval agent uses, on a loopback port: an index, uploads, searches.

Scores are counts of shared words. Filters are the ones that are sent: ``field eq 'x'`` and ``field ne 'x'``, joined by ``and``.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

QUERY_KEY, ADMIN_KEY = "query-key", "admin-key"
_TERM = re.compile(r"(\w+) (eq|ne) '([^']*)'")


@dataclass
class SearchServer:
    """``indexes`` by name, documents by id. ``faults`` are statuses of the next answers, ``extra`` goes into every answer."""

    indexes: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    faults: list[int] = field(default_factory=list)
    extra: list[dict[str, Any]] = field(default_factory=list)
    refuse_documents: bool = False
    heard: list[dict[str, Any]] = field(default_factory=list)

    def __enter__(self) -> SearchServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer._answer(self)

            def do_PUT(self) -> None:
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
        body = json.loads(request.rfile.read(int(request.headers.get("Content-Length") or 0)) or b"null")
        status, answer = self._judge(request, parts.path, parse_qs(parts.query), body)
        data = json.dumps(answer).encode() if answer is not None else b""
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def _judge(
        self, request: BaseHTTPRequestHandler, path: str, query: dict[str, list[str]], body: Any
    ) -> tuple[int, dict[str, Any] | None]:
        if query.get("api-version") != ["2024-07-01"]:
            return 400, {"error": {"code": "", "message": "the api-version is missing"}}
        key, writes = request.headers.get("api-key"), request.command == "PUT" or path.endswith("/docs/index")
        if key != ADMIN_KEY and (writes or key != QUERY_KEY):
            return 403, {"error": {"code": "Forbidden", "message": "canary"}}
        if self.faults:
            return self.faults.pop(0), {"error": {"code": "", "message": "canary"}}
        _, _, name, *rest = path.split("/")
        if request.command == "PUT":
            assert body["name"] == name
            self.fields[name] = {each["name"]: each for each in body["fields"]}
            known = name in self.indexes
            self.indexes.setdefault(name, {})
            return (204, None) if known else (201, body)
        if name not in self.indexes:
            return 404, {"error": {"code": "ResourceNotFound", "message": "canary"}}
        self.heard.append(body)
        return (200, self._write(name, body)) if rest == ["docs", "index"] else (200, self._search(name, body))

    def _write(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        assert len(body["value"]) <= 1_000, "the service takes at most a thousand"
        results = []
        for action in body["value"]:
            document = {field: value for field, value in action.items() if field != "@search.action"}
            assert document.keys() <= self.fields[name].keys()
            assert re.fullmatch(r"[A-Za-z0-9_=-]+", document["id"]), "the service takes no other keys"
            if not self.refuse_documents:
                if action["@search.action"] == "delete":
                    self.indexes[name].pop(document["id"], None)
                else:
                    self.indexes[name].setdefault(document["id"], {}).update(document)
            results.append({"key": document["id"], "status": not self.refuse_documents, "statusCode": 200})
        return {"value": results}

    def _search(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        terms = _TERM.findall(body["filter"])
        assert " and ".join(f"{a} {b} '{c}'" for a, b, c in terms) == body["filter"], "a filter that is not modelled"
        assert all(self.fields[name][each].get("filterable") for each, _, _ in terms)
        words = set(re.findall(r"\w+", body["search"].lower()))
        found = []
        for document in self.indexes[name].values():
            if all((document.get(each) == value) == (how == "eq") for each, how, value in terms):
                text = " ".join(
                    str(document[f]) for f, d in self.fields[name].items() if d.get("searchable") and f in document
                )
                score = len(words & set(re.findall(r"\w+", text.lower())))
                if score or body["search"] == "*":
                    kept = {each: document.get(each) for each in body["select"].split(",")}
                    found.append({"@search.score": float(score or 1), **kept})
        found.sort(key=lambda each: -each["@search.score"])
        return {"value": [*self.extra, *found[: body["top"]]]}

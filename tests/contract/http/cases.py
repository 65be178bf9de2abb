"""Forty-odd malformed submissions, each with the answer it deserves. The same list runs in memory and against a real host."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

MIB = 1024 * 1024
JSON_TYPE = {"content-type": "application/json"}


@dataclass(frozen=True)
class Case:
    """A body with headers, and what must come back. ``pointers`` must all be named in ``errors``."""

    name: str
    body: bytes
    status: int
    code: str
    pointers: tuple[str, ...] = ()
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON_TYPE))


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _fields(name: str, value: Any, *pointers: str) -> Case:
    return Case(name, _json(value), 422, "request.invalid", pointers)


def _text(name: str, body: bytes, code: str, *pointers: str) -> Case:
    return Case(name, body, 400, code, pointers)


def _with(**more: Any) -> dict[str, Any]:
    return {"intent": "hello", **more}


GOOD = _json(_with())

BODIES = (
    # not JSON, or more than JSON means to everybody
    _text("empty body", b"", "json.syntax"),
    _text("only blanks", b"  \n", "json.syntax"),
    _text("cut off", b'{"intent": "hel', "json.syntax"),
    _text("single quotes", b"{'intent': 'hello'}", "json.syntax"),
    _text("trailing comma", b'{"intent": "hello",}', "json.syntax"),
    _text("comment", b'{"intent": "hello"} // why not', "json.trailing_data"),
    _text("two values", GOOD + GOOD, "json.trailing_data"),
    _text("not UTF-8", b'{"intent": "\xff"}', "json.encoding"),
    _text("UTF-16", '{"intent": "hello"}'.encode("utf-16-le"), "json.syntax"),
    _text("byte order mark", b"\xef\xbb\xbf" + GOOD, "json.bom"),
    _text("NaN", b'{"intent": "hello", "context": {"values": {"x": NaN}}}', "json.not_a_number", "/context/values/x"),
    _text("Infinity", b'{"intent": "hello", "context": {"values": {"x": -Infinity}}}', "json.not_a_number"),
    _text("a number beyond a double", b'{"intent": "a", "context": {"values": {"x": 1e999}}}', "json.number_range"),
    _text("an integer nobody agrees on", b'{"intent": "a", "context": {"values": {"x": 9007199254740993}}}',
          "json.integer_range", "/context/values/x"),
    _text("duplicate key", b'{"intent": "hello", "intent": "goodbye"}', "json.duplicate_key", "/intent"),
    _text("duplicate key further down", b'{"intent": "a", "context": {"values": {"x": 1, "x": 2}}}',
          "json.duplicate_key", "/context/values/x"),
    _text("half a surrogate pair", b'{"intent": "\\ud800"}', "json.lone_surrogate", "/intent"),
    _text("raw control character", b'{"intent": "a\x00b"}', "json.syntax"),
    _text("200 arrays deep", b'{"intent": "a", "context": {"values": {"x": ' + b"[" * 200 + b"]" * 200 + b"}}}",
          "json.too_deep"),
    _text("200 objects deep", b'{"x":' * 200 + b"1" + b"}" * 200, "json.too_deep"),
    _text("100,000 brackets", b"[" * 100_000, "json.too_deep"),
    # JSON, but no request
    _fields("a list", [], ""),
    _fields("a string", "hello", ""),
    _fields("null", None, ""),
    _fields("a number", 5, ""),
    _fields("nothing in it", {}, "/intent"),
    _fields("intent is null", {"intent": None}, "/intent"),
    _fields("intent is a number", {"intent": 5}, "/intent"),
    _fields("intent is empty", {"intent": ""}, "/intent"),
    _fields("intent is blank", {"intent": " \n\t"}, "/intent"),
    _fields("intent is too long", {"intent": "a" * 8_001}, "/intent"),
    _fields("unknown field", _with(priority="high"), "/priority"),
    _fields("unknown fields everywhere", _with(a=1, context={"b": 1}, constraints={"c": 1}),
            "/a", "/context/b", "/constraints/c"),
    _fields("somebody else's tenant", _with(tenant_id="fabrikam"), "/tenant_id"),
    _fields("own run id", _with(run_id="run-mine"), "/run_id"),
    _fields("goals as text", _with(goals="one"), "/goals"),
    _fields("a goal that is none", _with(goals=["one", 2, None]), "/goals/1", "/goals/2"),
    _fields("51 goals", _with(goals=["g"] * 51), "/goals"),
    _fields("context as list", _with(context=[]), "/context"),
    _fields("values as list", _with(context={"values": []}), "/context/values"),
    _fields("document without text", _with(context={"documents": [{"name": "a"}]}), "/context/documents/0/text"),
    _fields("document without name", _with(context={"documents": [{"name": "", "text": ""}]}), "/context/documents/0/name"),
    _fields("document too long", _with(context={"documents": [{"name": "a", "text": "x" * 1_000_001}]}),
            "/context/documents/0/text"),
    _fields("number as text", _with(constraints={"max_steps": "63"}), "/constraints/max_steps"),
    _fields("truth as number", _with(constraints={"max_steps": True}), "/constraints/max_steps"),
    _fields("part of a step", _with(constraints={"max_steps": 1.5}), "/constraints/max_steps"),
    _fields("no steps", _with(constraints={"max_steps": 0}), "/constraints/max_steps"),
    _fields("negative cost", _with(constraints={"max_cost_micro_usd": -1}), "/constraints/max_cost_micro_usd"),
    _fields("no time", _with(constraints={"deadline_s": 0}), "/constraints/deadline_s"),
    _fields("plan as text", _with(plan="{}"), "/plan"),
    # a request, but not a plan
    Case("plan without anything", _json(_with(plan={})), 422, "plan.invalid"),
    Case("plan with a cycle", _json(_with(plan={
        "schema_version": "1.0", "goal": "g", "answer": {"uses": ["a"]},
        "steps": [{"id": "a", "capability": "rag.search", "inputs": {}, "needs": ["b"]},
                  {"id": "b", "capability": "rag.search", "inputs": {}, "needs": ["a"]}]})), 422, "plan.invalid"),
    Case("plan with a bad step id", _json(_with(plan={
        "schema_version": "1.0", "goal": "g", "answer": {"uses": ["a/b"]},
        "steps": [{"id": "a/b", "capability": "rag.search", "inputs": {}}]})), 422, "plan.invalid", ("/plan/steps/0/id",)),
    # size, media type, key
    Case("5 MiB", b'{"intent": "' + b"a" * (5 * MIB) + b'"}', 413, "http.body_too_large"),
    Case("one byte over", GOOD + b" " * (4 * MIB - len(GOOD) + 1), 413, "http.body_too_large"),
    Case("form", b"intent=hello", 415, "http.media_type", headers={"content-type": "application/x-www-form-urlencoded"}),
    Case("text", GOOD, 415, "http.media_type", headers={"content-type": "text/plain"}),
    Case("a JSON of another kind", GOOD, 415, "http.media_type", headers={"content-type": "application/json-patch+json"}),
    Case("another charset", GOOD, 415, "http.media_type", headers={"content-type": "application/json; charset=latin-1"}),
    Case("compressed", b"\x1f\x8b", 415, "http.media_type", headers=JSON_TYPE | {"content-encoding": "x-own"}),
    Case("key with a slash", GOOD, 400, "idempotency.key_invalid", headers=JSON_TYPE | {"idempotency-key": "a/b"}),
    Case("key with a blank", GOOD, 400, "idempotency.key_invalid", headers=JSON_TYPE | {"idempotency-key": "a b"}),
    Case("key of 101", GOOD, 400, "idempotency.key_invalid", headers=JSON_TYPE | {"idempotency-key": "a" * 101}),
)  # fmt: skip

TARGETS = (
    # method, path, status, code: bad ids, cursors and queries
    ("GET", "/api/runs?cursor=eyJmb3JlaWduIjoxfQ", 400, "cursor.invalid"),
    ("GET", "/api/runs?cursor=%00", 400, "cursor.invalid"),
    ("GET", "/api/runs?limit=many", 400, "query.invalid"),
    ("GET", "/api/runs?status=lost", 400, "query.invalid"),
    ("GET", "/api/runs/run-none", 404, "run.not_found"),
    ("GET", "/api/runs/" + "a" * 101, 404, "run.not_found"),
    ("GET", "/api/runs/a%20b/status", 404, "run.not_found"),
    ("GET", "/api/runs/a@b/plan", 404, "run.not_found"),
    ("GET", "/api/runs/run-none/steps", 404, "run.not_found"),
    ("GET", "/api/runs/run-none/steps/a/output", 404, "run.not_found"),
    ("GET", "/api/runs/run-none/events", 404, "run.not_found"),
    ("POST", "/api/runs/run-none/cancel", 404, "run.not_found"),
    ("GET", "/api/runs/run-none/approvals", 404, "run.not_found"),
    ("GET", "/api/schemas/none", 404, "schema.not_found"),
)

"""Requests that no HTTP library would send, as bytes on a socket. What a library can send is in tests/contract/http.

Each is answered with a 4xx or the connection is closed, soon, and nothing of it is ever a run.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from engine.domain.principal import Role
from tests.e2e.plans import request_of, search
from tests.e2e.stack import Stack

GOOD = b'{"intent": "How much did we spend in Q3?"}'
MIB = 1024 * 1024
EVE = "eve"
Head = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Raw:
    """A request as bytes. ``allowed`` are status codes that may come; None stands for a closed connection.

    ``authorized`` says how often the Authorization header is sent.
    """

    name: str
    headers: Head
    body: bytes
    allowed: tuple[int | None, ...]
    code: str | None = None
    authorized: int = 1
    line: str = "POST /api/runs HTTP/1.1"
    half_close: bool = False

    def encoded(self, token: str) -> bytes:
        fixed = (("Host", "127.0.0.1"), ("Content-Type", "application/json"))
        lines = [self.line, *(f"{name}: {value}" for name, value in (*fixed, *self.headers))]
        lines += [f"Authorization: Bearer {token}"] * self.authorized
        return "\r\n".join([*lines, "", ""]).encode() + self.body


def length(size: int) -> Head:
    return (("Content-Length", str(size)),)


def chunked(body: bytes, size: int = 64 * 1024) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


CHUNKED: Head = (("Transfer-Encoding", "chunked"),)
CASES = (
    Raw("two equal Authorization headers", length(len(GOOD)), GOOD, (400,), "auth.header_repeated", authorized=2),
    Raw("a body shorter than it says, then silence", length(len(GOOD) + 100), GOOD, (400, None), half_close=True),
    Raw("a body that ends before its JSON does", length(len(GOOD) - 5), GOOD[:-5], (400,), "json.syntax"),
    Raw("a body longer than it says", length(10), GOOD, (400, None)),
    Raw("5 MiB in chunks", CHUNKED, chunked(b'{"intent": "' + b"a" * (5 * MIB) + b'"}'), (413, None)),
    Raw("5 MiB of blanks in chunks", CHUNKED, chunked(GOOD + b" " * (5 * MIB)), (413, None)),
    Raw("a chunk size that is no number", CHUNKED, b"zz\r\n" + GOOD + b"\r\n0\r\n\r\n", (400, None)),
    Raw("a negative chunk size", CHUNKED, b"-5\r\n" + GOOD + b"\r\n0\r\n\r\n", (400, None)),
    Raw("chunks that end too early", CHUNKED, b"%x\r\n" % len(GOOD) + GOOD + b"\r\n", (400, None), half_close=True),
    Raw("a length and chunks at once", length(len(GOOD)) + CHUNKED, chunked(GOOD), (400, None)),
    Raw("two lengths that differ", length(len(GOOD)) + length(3), GOOD, (400, None)),
    Raw("a length that is no number", (("Content-Length", "forty"),), GOOD, (400, None)),
    Raw("a negative length", length(-1), GOOD, (400, None)),
    Raw("a length beyond all measure", length(10**18), GOOD, (400, 413, None), half_close=True),
    Raw("no length and no body", (), b"", (400,), "json.syntax"),
    Raw("another HTTP", length(len(GOOD)), GOOD, (400, 505, None), line="POST /api/runs HTTP/9.9"),
    Raw("no HTTP at all", (), GOOD, (400, None), line="HELLO"),
    Raw("an unknown method", length(len(GOOD)), GOOD, (400, 404, 405), line="STEAL /api/runs HTTP/1.1"),
    Raw("a blank before the colon of a header", (("Content-Length ", str(len(GOOD))),), GOOD, (400, None)),
    Raw("a line break inside a header", (*length(len(GOOD)), ("X-A", "b\r\n c\r\nX\x00: d")), GOOD, (400, None)),
    Raw("a header of 100 KiB", (*length(len(GOOD)), ("X-Long", "a" * 100_000)), GOOD, (400, 431, None)),
    Raw("an address of 100 KiB", length(0), b"", (400, 404, 414, None), line=f"GET /api/runs/{'a' * 100_000} HTTP/1.1"),
    Raw("a way out of the API", length(0), b"", (400, 404), line="GET /api/../../etc/passwd HTTP/1.1"),
    Raw("an encoded way out of the API", length(0), b"", (400, 404), line="GET /api/runs/..%2f..%2fadmin HTTP/1.1"),
    Raw("an absolute address elsewhere", length(0), b"", (200, 400, 404), line="GET http://192.0.2.1/api/x HTTP/1.1"),
)


@pytest.fixture(scope="module", params=["streaming", "whole"])
def target(request: pytest.FixtureRequest, stack: Stack, whole: Stack) -> Stack:
    chosen = stack if request.param == "streaming" else whole
    client = chosen.client()
    client.finished(client.submit(request_of(search("a"))))  # so that every store exists and can be compared
    return chosen


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bytes_that_are_no_good_request_get_a_refusal_and_leave_nothing(target: Stack, case: Raw) -> None:
    before = target.traces()
    answer = target.client().raw(case.encoded(target.tokens.mint("contoso", EVE)), half_close=case.half_close)
    assert (answer.status if answer is not None else None) in case.allowed, answer
    if case.code is not None:
        assert answer is not None
        assert answer.code == case.code
    if answer is not None:
        assert b"Traceback" not in answer.body
        assert len(answer.body) < 20_000
    assert target.traces() == before


def test_two_authorization_headers_of_two_tenants_are_nobody(target: Stack) -> None:
    tokens = [target.tokens.mint(tenant) for tenant in ("contoso", "fabrikam")]
    heads = [f"Authorization: Bearer {token}" for token in tokens]
    for order in (heads, heads[::-1]):
        data = "\r\n".join(["GET /api/runs HTTP/1.1", "Host: 127.0.0.1", *order, "", ""]).encode()
        answer = target.client().raw(data)
        assert answer is not None
        assert (answer.status, answer.code) == (400, "auth.header_repeated")


def test_what_follows_a_short_body_is_not_taken_for_somebodys_request(target: Stack) -> None:
    """The rest of a body is no second request of the same caller, unless it is one in full, with its own token."""
    before = target.traces()
    hidden = (
        b"POST /api/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 42\r\n\r\n" + GOOD
    )
    case = Raw("smuggled", length(2), b"{}" + hidden, (422,))
    answer = target.client().raw(case.encoded(target.tokens.mint("contoso", EVE)))
    assert answer is not None
    assert (answer.status, answer.code) == (422, "request.invalid")
    assert target.traces() == before


def test_the_host_still_serves_after_all_this(target: Stack) -> None:
    """Last in this module, so that what took its time would be there by now."""
    assert target.client(user=EVE, roles=(Role.RUNS_SUBMIT,)).get("/api/runs").json["runs"] == []
    client = target.client()
    assert client.finished(client.submit({"intent": "How much did we spend in Q3?"}))["status"] == "succeeded"

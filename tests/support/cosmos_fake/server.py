"""The HTTP side: requests as the SDK sends them, answers as it expects them."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from tests.support.cosmos_fake.faults import Fault, Faults
from tests.support.cosmos_fake.model import Account, AnswerError, Container, Key

MAX_BODY_BYTES = 4 * 1024 * 1024
_KINDS = {"throttled": (429, "TooManyRequests"), "retry_with": (449, "RetryWith"), "unavailable": (503, "Unavailable"),
          "timed_out": (408, "RequestTimeout"), "lost_answer": (408, "RequestTimeout")}  # fmt: skip
_ROUTE = re.compile(
    r"/dbs(?:/(?P<db>[^/]+)(?:/colls(?:/(?P<coll>[^/]+)(?:/(?P<feed>docs|pkranges)(?:/(?P<id>[^/]+))?)?)?)?)?/?"
)
Response = tuple[int, Any, dict[str, str]]


LEVELS = ("Eventual", "ConsistentPrefix", "Session", "BoundedStaleness", "Strong")


class CosmosFake:
    """Serves an ``Account`` on 127.0.0.1 while the ``with`` block lasts. ``requests`` counts by ``operation:container``."""

    KEY = "bm90LWEtc2VjcmV0LW9mLWFueWJvZHk="

    def __init__(self, account: Account) -> None:
        self.account, self.faults = account, Faults()
        self.requests: dict[str, int] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self) -> CosmosFake:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(fake: CosmosFake) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        service = fake

    return Handler


class _Handler(BaseHTTPRequestHandler):
    service: CosmosFake
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format: str, *args: object) -> None:
        """Tests have nothing to read here."""

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET  # noqa: N815 - names that the library looks for

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(min(length, MAX_BODY_BYTES))
        try:
            if length > MAX_BODY_BYTES:
                raise AnswerError(413, "RequestEntityTooLarge")
            if not unquote(self.headers.get("Authorization") or "").startswith("type=master&ver=1.0&sig="):
                raise AnswerError(401, "Unauthorized")
            status, answer, headers = self._with_faults(json.loads(body) if body else None)
        except AnswerError as failure:
            status, answer = failure.status, {"code": failure.code, "message": failure.message}
            headers = failure.headers
        except ConnectionAbortedError:
            self.close_connection = True
            self.connection.close()
            return
        self._answer(status, answer, headers)

    def _refuse_stronger(self) -> None:
        """A client may ask for less consistency than the account has, and not for more."""
        asked = self.headers.get("x-ms-consistency-level")
        if asked and LEVELS.index(asked) > LEVELS.index(self.service.account.consistency):
            raise AnswerError(400, "BadRequest", "the account has a weaker consistency")

    def _with_faults(self, body: Any) -> Response:
        self._refuse_stronger()
        operation, work = self._operation(body)
        fault = self.service.faults.next_for(operation) if operation else None
        with self.service.account.lock:
            if operation:
                self.service.requests[operation] = self.service.requests.get(operation, 0) + 1
            if fault is not None and fault.kind not in ("lost_answer", "lost_connection"):
                raise _failure(fault)
            response = work()
        if fault is not None and fault.kind == "lost_connection":
            raise ConnectionAbortedError
        if fault is not None:
            raise _failure(fault)
        return response

    def _operation(self, body: Any) -> tuple[str, Callable[[], Response]]:
        """The name faults know the request by ("" for what is about accounts and containers), and what it does."""
        if self.path == "/":
            return "", self._account
        match = _ROUTE.fullmatch(unquote(self.path))
        if match is None:
            raise AnswerError(501, "NotModelled", self.path)
        db, coll, feed, doc = match.group("db", "coll", "feed", "id")
        if feed is None:
            return "", lambda: self._definition(db, coll, body)
        if feed == "pkranges":
            return "", lambda: self._ranges(self.service.account.container(db, coll))
        name, work = self._documents(self.service.account.container(db, coll), doc, body)
        return f"{name}:{coll}", work

    def _documents(self, container: Container, doc: str | None, body: Any) -> tuple[str, Callable[[], Response]]:
        account, key, match = self.service.account, self._key(), self.headers.get("If-Match")
        flag = {name: (self.headers.get(f"x-ms-{name}") or "").lower() == "true" for name in _FLAGS}
        if "query+json" in (self.headers.get("Content-Type") or ""):
            return "query", lambda: self._query(container, body)
        if key is None:
            raise AnswerError(400, "BadRequest", "a partition key is needed")
        if flag["cosmos-is-batch-request"]:
            return "batch", lambda: (*account.batch(container, key, body), {})
        upsert = flag["documentdb-is-upsert"]
        match (self.command, doc):
            case ("POST", None):
                return "upsert" if upsert else "create", lambda: _created(
                    account.create(container, key, body, upsert=upsert)
                )
            case ("GET", str()):
                return "read", lambda: _found(account.read(container, key, doc))
            case ("PUT", str()):
                return "replace", lambda: _found(account.replace(container, key, doc, body, match))
            case ("DELETE", str()):
                return "delete", lambda: (204, account.delete(container, key, doc, match), {})
            case _:
                raise AnswerError(501, "NotModelled", f"{self.command} {self.path}")

    def _key(self) -> Key | None:
        text = self.headers.get("x-ms-documentdb-partitionkey")
        return tuple(json.loads(text)) if text else None

    def _query(self, container: Container, body: Any) -> Response:
        key = self._key()
        span: tuple[str, str] | None = None
        if key is None or len(key) != len(container.paths):
            key, span = None, self._span(container)
        found = self.service.account.query(container, body, key, span)
        start = int(self.headers.get("x-ms-continuation") or 0)
        asked = int(self.headers.get("x-ms-max-item-count") or -1)
        size = min(asked if asked > 0 else 100, self.service.account.page)
        page = found[start : start + size]
        headers = {"x-ms-item-count": str(len(page))}
        if start + len(page) < len(found):
            headers["x-ms-continuation"] = str(start + len(page))
        return 200, {"_rid": "r", "Documents": page, "_count": len(page)}, headers

    def _span(self, container: Container) -> tuple[str, str]:
        """The hashes a query without a full partition key is about: those of one physical partition, or a part of them."""
        number = self.headers.get("x-ms-documentdb-partitionkeyrangeid")
        if number is None:
            raise AnswerError(400, "BadRequest", "a query over all partitions needs a plan, which is not modelled")
        low, high = container.bounds()[int(number)]
        start, end = self.headers.get("x-ms-start-epk"), self.headers.get("x-ms-end-epk")
        return max(low, start or ""), min(high, end or "FF")

    def _account(self) -> Response:
        here = [{"name": "local", "databaseAccountEndpoint": self.service.url}]
        return 200, {"id": "fake", "_self": "", "_rid": "", "writableLocations": here, "readableLocations": here,
                     "enableMultipleWriteLocations": False,
                     "userConsistencyPolicy": {"defaultConsistencyLevel": self.service.account.consistency}}, {}  # fmt: skip

    def _definition(self, db: str | None, coll: str | None, body: Any) -> Response:
        account = self.service.account
        match (self.command, db, coll):
            case ("POST", None, None):
                if body["id"] in account.databases:
                    raise AnswerError(409, "Conflict")
                account.databases[body["id"]] = {}
                return 201, {"id": body["id"], "_rid": "d", "_self": f"dbs/{body['id']}"}, {}
            case ("GET", str(), None):
                if db not in account.databases:
                    raise AnswerError(404, "NotFound")
                return 200, {"id": db, "_rid": "d", "_self": f"dbs/{db}"}, {}
            case ("POST", str(), None):
                return 201, account.create_container(db, body), {}
            case ("GET", str(), str()):
                return 200, account.container(db, coll).properties, {}
            case _:
                raise AnswerError(501, "NotModelled", f"{self.command} {self.path}")

    def _ranges(self, container: Container) -> Response:
        # Without a 304 to its second question the SDK asks for ever.
        if self.headers.get("If-None-Match") == '"ranges"':
            return 304, None, {"etag": '"ranges"'}
        ranges = [
            {"id": str(number), "_rid": f"r{number}", "minInclusive": low, "maxExclusive": high, "status": "online"}
            for number, (low, high) in enumerate(container.bounds())
        ]
        return 200, {"_rid": "r", "PartitionKeyRanges": ranges, "_count": len(ranges)}, {"etag": '"ranges"'}

    def _answer(self, status: int, answer: Any, headers: dict[str, str]) -> None:
        content = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        charge = str(round(1.0 + len(content) / 1024, 2))
        common = {"Content-Type": "application/json", "Content-Length": str(len(content)), "x-ms-request-charge": charge,
                  "x-ms-session-token": f"0:-1#{self.service.account.lsn}", "date": formatdate(usegmt=True)}  # fmt: skip
        for name, value in (common | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if status != 304:
            self.wfile.write(content)


_FLAGS = ("cosmos-is-batch-request", "documentdb-is-upsert")


def _created(answer: tuple[int, dict[str, Any]]) -> Response:
    return answer[0], answer[1], {"etag": answer[1]["_etag"]}


def _found(document: dict[str, Any]) -> Response:
    return 200, document, {"etag": document["_etag"]}


def _failure(fault: Fault) -> AnswerError:
    status, code = _KINDS[fault.kind]
    return AnswerError(status, code, x_ms_retry_after_ms=str(fault.retry_after_ms))

"""A client of the HTTP API, as any other program could be: standard library, bounded waits, problems as CliError.

Deliberately no retries of writes and no redirects: a token must not follow a redirect to another host.
"""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPException, HTTPMessage
from typing import IO, Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.problems import Place, problem_of, run_named_in

T = TypeVar("T")

MAX_RESPONSE_BYTES = 64 * 1024 * 1024
LONG_POLL_S = 20
RECONNECT_S = 60.0
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
_PLANNING_S = 120.0
"""How long the host may plan before it answers."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


def opener_for(url: str) -> urllib.request.OpenerDirector:
    """An opener without redirects; for this machine also without the proxy that the environment may name."""
    direct = [urllib.request.ProxyHandler({})] if urlsplit(url).hostname in LOOPBACK_HOSTS else []
    return urllib.request.build_opener(_NoRedirects, *direct)


class Api:
    """The API at one address. ``token`` is asked before each call, so that a long watch outlives one token.

    ``again`` are the options that lead a further command to the same host, with a space before each, ``up_options`` those with
    which `up` would start it. ``stack_pid`` is the process of the `up` that keeps this host alive, where there is one.
    """

    def __init__(
        self,
        url: str,
        token: Callable[[], str],
        *,
        timeout_s: float = 30.0,
        again: str = "",
        up_options: str = "",
        stack_pid: int | None = None,
    ) -> None:
        if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
            raise CliError(
                f"{url!r} is not an address",
                hint="give one like http://127.0.0.1:7071 with --url or LIVOA_URL",
                exit_code=ExitCode.USAGE,
                code="cli.url",
            )
        self.url = url.rstrip("/")
        self.again = again
        self._up_options = up_options
        self._stack_pid = stack_pid
        self._token = token
        self._timeout_s = timeout_s
        self._opener = opener_for(self.url)

    def submit(self, request: Mapping[str, Any], idempotency_key: str | None = None) -> dict[str, Any]:
        """POST a run; returns the body of the 202."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._json("POST", "/api/runs", body=request, headers=headers)

    def preview_plan(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What the plan for a request would be, without a run. Models may take a while."""
        return self._json("POST", "/api/plans", body=request, extra_s=_PLANNING_S)

    def route(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What a request is about."""
        return self._json("POST", "/api/route", body=request, extra_s=_PLANNING_S)

    def runs(self, **query: Any) -> dict[str, Any]:
        """A page of runs: ``{runs, next_cursor}``."""
        return self._json("GET", "/api/runs", query=query)

    def run_counts(self, **query: Any) -> dict[str, Any]:
        """How many runs of the tenant stand where: ``{total, by_status, is_complete}``."""
        return self._json("GET", "/api/run-counts", query=query)

    def run(self, run_id: str) -> dict[str, Any]:
        """One run, with its answer once there is one."""
        return self._json("GET", f"/api/runs/{quote(run_id, safe='')}")

    def plan(self, run_id: str) -> dict[str, Any] | None:
        """The plan of a run, or None while (or because) it has none."""
        try:
            return self._json("GET", f"/api/runs/{quote(run_id, safe='')}/plan")
        except CliError as err:
            if err.code == "plan.not_found":
                return None
            raise

    def steps(self, run_id: str) -> list[dict[str, Any]]:
        """The steps of a run in the order of its plan."""
        steps: list[dict[str, Any]] = self._json("GET", f"/api/runs/{quote(run_id, safe='')}/steps")["steps"]
        return steps

    def link(self, run_id: str, step_id: str, item: int | None, valid_s: int) -> dict[str, Any]:
        """A link that opens the output of a step."""
        body = {"step_id": step_id, "valid_s": valid_s} | ({} if item is None else {"item": item})
        return self._json("POST", f"/api/runs/{quote(run_id, safe='')}/links", body=body)

    def linked(self, url: str) -> bytes:
        """What a link of this host opens. Its path alone is followed, here and without the token."""
        request = urllib.request.Request(f"{self.url}{urlsplit(url).path}")  # noqa: S310  # http or https, see __init__

        def read(response: IO[bytes]) -> bytes:
            return response.read(MAX_RESPONSE_BYTES)

        return self._opened(request, self._timeout_s, read)

    def cancel(self, run_id: str) -> dict[str, Any]:
        """Ask a run to stop."""
        return self._json("POST", f"/api/runs/{quote(run_id, safe='')}/cancel", body={})

    def suspend(self, run_id: str) -> dict[str, Any]:
        """Suspend a run."""
        return self._json("POST", f"/api/runs/{quote(run_id, safe='')}/suspend", body={})

    def resume(self, run_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Resume a suspended run."""
        return self._json("POST", f"/api/runs/{quote(run_id, safe='')}/resume", body=body)

    def rerun(self, run_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Do a finished run again."""
        return self._json("POST", f"/api/runs/{quote(run_id, safe='')}/rerun", body=body)

    def audit(self, run_id: str | None, after: int) -> dict[str, Any]:
        """A page of the audit records of a run, or of the whole tenant: ``{records, next_after, more}``."""
        path = "/api/audit" if run_id is None else f"/api/runs/{quote(run_id, safe='')}/audit"
        return self._json("GET", path, query={"after": after})

    def audit_content(self, run_id: str, sha256: str) -> dict[str, Any]:
        """Content of a run by its hash: ``{run_id, sha256, size_bytes, media_type, text | base64}``."""
        return self._json("GET", f"/api/runs/{quote(run_id, safe='')}/audit/content/{quote(sha256, safe='')}")

    def erase(self, run_id: str) -> dict[str, Any]:
        """Erase a run that is over: ``{run_id, objects}``."""
        return self._json("DELETE", f"/api/runs/{quote(run_id, safe='')}", extra_s=60)

    def retention(self, *, dry_run: bool) -> dict[str, Any]:
        """A batch of the tenant's retention, or what it would do."""
        return self._json("POST", "/api/retention", body={"dry_run": dry_run}, extra_s=120)

    def checkpoint(self) -> dict[str, Any]:
        """Have a checkpoint of the tenant's audit chain made; the latest one when there is nothing new."""
        return self._json("POST", "/api/audit/checkpoints", body={})

    def checkpoints(self, after: int) -> dict[str, Any]:
        """A page of the tenant's signed checkpoints: ``{tenant_id, checkpoints: [{number, jws}], next_after, more}``."""
        return self._json("GET", "/api/audit/checkpoints", query={"after": after})

    def terminate(self, run_id: str) -> dict[str, Any]:
        """End a run at once."""
        return self._json("POST", f"/api/runs/{quote(run_id, safe='')}/terminate", body={})

    def approvals(self, run_id: str) -> dict[str, Any]:
        """Everything that was asked about a run: ``{run_id, approvals}``, oldest first."""
        return self._json("GET", f"/api/runs/{quote(run_id, safe='')}/approvals")

    def pending_approvals(self, **query: Any) -> dict[str, Any]:
        """What waits for an answer in the tenant: ``{approvals}``."""
        return self._json("GET", "/api/approvals", query=query)

    def answer(self, run_id: str, subject: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Answer an approval; the same answer again gives the same approval."""
        path = f"/api/runs/{quote(run_id, safe='')}/approvals/{quote(subject, safe='')}"
        return self._json("POST", path, body=body)

    def events(self, run_id: str, *, after: int = 0, wait_s: int = 0) -> dict[str, Any]:
        """A page of the event log: ``{events, next_after, ended}``; waits up to ``wait_s`` for the first event."""
        query = {"after": after, "wait_s": wait_s}
        return self._json("GET", f"/api/runs/{quote(run_id, safe='')}/events", query=query, extra_s=wait_s)

    def follow(
        self,
        run_id: str,
        *,
        after: int = 0,
        deadline: float | None = None,
        on_gap: Callable[[CliError], None] = lambda err: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Iterator[dict[str, Any]]:
        """Every event after ``after`` until the run is over.

        Outlives a host that is away for up to a minute (``on_gap`` hears of it once). ``deadline`` is in ``time.monotonic()``
        seconds; raises CliError (TIMEOUT) when it passes.
        """
        lost_at: float | None = None
        while True:
            wait_s = LONG_POLL_S if deadline is None else max(0, min(LONG_POLL_S, int(deadline - time.monotonic())))
            try:
                page = self.events(run_id, after=after, wait_s=wait_s)
            except CliError as err:
                now = time.monotonic()
                if lost_at is None and err.exit_code is ExitCode.UNREACHABLE:
                    on_gap(err)
                    lost_at = now
                if err.exit_code is not ExitCode.UNREACHABLE or now - (lost_at or now) > RECONNECT_S:
                    raise
                sleep(0.25)
            else:
                lost_at = None
                yield from page["events"]
                after = page["next_after"]
                if page["ended"]:
                    return
            if deadline is not None and time.monotonic() >= deadline:
                raise _too_late(run_id, self.again)

    def tenant(self, tenant: str) -> tuple[dict[str, Any], str]:
        """A tenant's configuration, and the ETag that a change of it must name."""
        return self._exchange("GET", f"/api/tenants/{quote(tenant, safe='')}")

    def set_tenant(self, tenant: str, config: Mapping[str, Any], tag: str) -> dict[str, Any]:
        """Replace a tenant's configuration, if it is still the one of ``tag``."""
        return self._json("PUT", f"/api/tenants/{quote(tenant, safe='')}", body=config, headers={"If-Match": tag})

    def tenant_versions(self, tenant: str, **query: Any) -> dict[str, Any]:
        """A page of changes: ``{versions, operator_version, next_below}``."""
        return self._json("GET", f"/api/tenants/{quote(tenant, safe='')}/versions", query=query)

    def _json(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        return self._exchange(method, path, **more)[0]

    def _exchange(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        extra_s: float = 0.0,
    ) -> tuple[dict[str, Any], str]:
        """The body of the answer and its ETag, empty where it has none."""
        wanted = {name: value for name, value in (query or {}).items() if value is not None}
        url = f"{self.url}{path}{'?' + urlencode(wanted) if wanted else ''}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, method=method)  # noqa: S310  # http or https, see __init__
        sent = {"Accept": "application/json", "Authorization": f"Bearer {self._token()}", **(headers or {})}
        if data is not None:
            sent["Content-Type"] = "application/json"
        for name, value in sent.items():
            request.add_header(name, value)

        def read(response: Any) -> tuple[dict[str, Any], str]:
            return _object(response.read(MAX_RESPONSE_BYTES), url), response.headers.get("ETag", "")

        return self._opened(request, self._timeout_s + extra_s, read)

    def _opened(self, request: urllib.request.Request, timeout_s: float, read: Callable[[Any], T]) -> T:
        try:
            with self._opener.open(request, timeout=timeout_s) as response:
                return read(response)
        except urllib.error.HTTPError as err:
            with err:
                place = Place(self.url, run_named_in(urlsplit(request.full_url).path), self.again)
                raise problem_of(err.code, err.read(MAX_RESPONSE_BYTES), place) from err
        except (OSError, HTTPException) as err:
            raise self._unreachable(err) from err

    def _unreachable(self, err: Exception) -> CliError:
        reason = getattr(err, "reason", None) or err
        if isinstance(reason, TimeoutError | socket.timeout):
            return CliError(
                f"{self.url} did not answer within {self._timeout_s:g} s",
                hint="try again; logs/host.log in the data folder tells what the host is doing",
                exit_code=ExitCode.TIMEOUT,
                code="cli.timeout",
            )
        words = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        start = f"start the stack with ./livoa up{self._up_options}, or name another host with LIVOA_URL"
        waiting = f"its stack (process {self._stack_pid}) is starting it again: try again in a few seconds"
        return CliError(
            f"cannot reach {self.url}: {words}",
            hint=start if self._stack_pid is None else f"{waiting}; logs/host.log in the data folder tells more",
            exit_code=ExitCode.UNREACHABLE,
            code="cli.unreachable",
        )


def _object(data: bytes, url: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as err:
        raise _no_api(url) from err
    if not isinstance(value, dict):
        raise _no_api(url)
    return value


def _no_api(url: str) -> CliError:
    return CliError(
        f"{url} did not answer with JSON",
        hint="is something else listening there? Check LIVOA_URL",
        exit_code=ExitCode.UNREACHABLE,
        code="cli.not_our_api",
    )


def _too_late(run_id: str, again: str) -> CliError:
    return CliError(
        f"the run is not over yet; it goes on without us ({run_id})",
        hint=f"./livoa events {run_id} --follow{again}, or ./livoa cancel {run_id}{again}",
        exit_code=ExitCode.TIMEOUT,
        code="cli.timeout",
    )

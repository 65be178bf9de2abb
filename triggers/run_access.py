"""Which runs a principal may see, and the parts of a request's path and query that name them.

A run of another tenant, or of another person for callers who may see only their own, does not exist (404).
"""

from __future__ import annotations

from datetime import UTC, datetime

from engine.domain.errors import LivoaError, NotFoundError
from engine.domain.ids import is_wire_id
from engine.domain.principal import Principal, Role
from engine.domain.run import Run
from engine.ports.deps import Deps
from triggers.endpoint import Call

READERS = frozenset({Role.RUNS_READ, Role.RUNS_SUBMIT})
SUBMITTERS = frozenset({Role.RUNS_SUBMIT})
_MAX_TIME_CHARS = 40


def may_see(principal: Principal, run: Run) -> bool:
    """``Runs.Read`` shows every run of the tenant, ``Runs.Submit`` the caller's own."""
    if run.tenant_id != principal.tenant_id:
        return False
    return principal.has(Role.RUNS_READ) or (
        principal.has(Role.RUNS_SUBMIT) and run.principal.subject == principal.subject
    )


async def run_of(call: Call) -> Run:
    """The run that the path names. Raises ``NotFoundError("run.not_found")``."""
    run_id = call.request.route.get("run_id", "")
    if is_wire_id(run_id):
        run = await call.deps.runs.get(call.principal.tenant_id, run_id)
        if run is not None and may_see(call.principal, run):
            return run
        if run is None and call.principal.has(Role.RUNS_READ):
            await refuse_erased(call.deps, call.principal.tenant_id, run_id)
    raise NotFoundError("run.not_found", "There is no such run.")


def time_query(call: Call, name: str) -> datetime | None:
    """An instant of the query in RFC 3339, with its offset. Raises ``LivoaError("query.invalid")``."""
    text = call.request.query.get(name)
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text) if len(text) <= _MAX_TIME_CHARS else None
        if found is not None and found.tzinfo is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    message = f"{name} must be a date and time with an offset, such as 2026-11-29T10:00:00Z."
    raise LivoaError("query.invalid", message, pointer=f"/{name}")


async def refuse_erased(deps: Deps, tenant_id: str, run_id: str) -> None:
    """Raises ``LivoaError("run.erased", status=410)`` for a run that was there once. For who may see every run of the tenant."""
    key = await deps.run_keys.get(tenant_id, run_id)
    if key is not None and key.destroyed_at is not None:
        raise LivoaError("run.erased", "This run has been erased.", status=410)


def integer_query(call: Call, name: str, *, default: int, low: int, high: int) -> int:
    """An integer of the query. Raises ``LivoaError("query.invalid")`` for anything that is not one within the limits."""
    text = call.request.query.get(name)
    if text is None:
        return default
    if text.isascii() and text.isdigit() and len(text) <= 15 and low <= int(text) <= high:
        return int(text)
    raise LivoaError("query.invalid", f"{name} must be an integer from {low} to {high}.", pointer=f"/{name}")

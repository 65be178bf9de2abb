"""Erasing what a run left behind, in an order in which dying between any two steps loses nothing and leaves nothing readable.

1. the audit record. When it cannot be written, nothing else happens.
2. the durable engine's instances: the run's own, and those whose ids begin with its id.
3. cached results, so that no other run is pointed at what is about to go.
4. the key of the run, then its objects. From here on no copy can be read.
5. the run with everything that is kept with it. While it is there, whoever comes next finds it and does the rest.

Audit records stay. Each step may be done twice.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from engine.domain.audit import ENGINE_ACTOR, AuditEntry, AuditType
from engine.domain.base import JsonObject
from engine.domain.errors import ConflictError, LivoaError
from engine.domain.run import Run
from engine.domain.tenant import TenantConfig
from engine.ports.deps import Deps
from engine.ports.ended_runs import Stage
from triggers.http_adapter import DurableClient
from triggers.submission import append_audit

WINDING_UP_S = 60.0
_GOING_ON = frozenset({"Running", "Pending", "Suspended", "ContinuedAsNew"})
MAX_INSTANCES = 2_000
"""Most instances of one run that are purged in one go."""


def refuse_held(tenant: TenantConfig, run_id: str) -> None:
    """Raises ``ConflictError("retention.held")`` for a run under a legal hold."""
    if tenant.retention.holds(run_id):
        raise ConflictError("retention.held", "A legal hold keeps this run; nothing of it may be erased.")


async def refuse_winding_up(run: Run, deps: Deps, client: DurableClient) -> None:
    """Raises ``ConflictError("run.winding_up")`` for a run that has just ended and whose instance has not: what is not over
    cannot be forgotten. One that still is not a minute later is stuck, and holds nothing back."""
    if deps.clock.now() - run.updated_at > timedelta(seconds=WINDING_UP_S):
        return
    try:
        status = await client.get_status(run.run_id)
    except Exception as err:
        raise _unavailable() from err
    state = getattr(status, "runtime_status", None)
    if getattr(status, "instance_id", None) and getattr(state, "value", state) in _GOING_ON:
        error = ConflictError("run.winding_up", "This run has ended this very moment; try again in a few seconds.")
        error.retry_after_s = 2
        raise error


def erase_entry(
    tenant_id: str, run_id: str, what: Literal["content", "run"], deps: Deps, *, by: str = ENGINE_ACTOR, **facts: object
) -> AuditEntry:
    """What is about to be erased, why and by whom. Once per run and what, whoever comes first."""
    body: JsonObject = {"what": what, "reason": "age" if by == ENGINE_ACTOR else "request", **facts}
    return AuditEntry(
        tenant_id=tenant_id,
        entry_id=f"{run_id}/{AuditType.AUDIT_ERASE.value}/{what}",
        type=AuditType.AUDIT_ERASE,
        at=deps.clock.now(),
        run_id=run_id,
        actor=by,
        body=body,
    )


async def erase_run(run: Run, entry: AuditEntry, deps: Deps, client: DurableClient) -> int:
    """Erase a run that is over, all of it; how many objects of content there were. ``entry`` goes on record first.

    Raises ``LivoaError``: 409 ``run.not_finished``, 503 ``audit.unavailable``, and what a store raises.
    """
    if not run.status.is_final:
        raise ConflictError("run.not_finished", "Only a run that is over can be erased; cancel or terminate it first.")
    await append_audit(entry, deps)
    while not await forget_instances(run, deps, client):
        pass  # each turn purged as many as may go at once
    objects = await erase_content(run.tenant_id, run.run_id, deps)
    await deps.ended_runs.remove(run.tenant_id, run.run_id)
    return objects


async def erase_content(tenant_id: str, run_id: str, deps: Deps) -> int:
    """Destroy the run's key and remove its objects; how many there were."""
    await deps.result_cache.remove_run(tenant_id, run_id)
    objects = await deps.payloads.delete_run(tenant_id, run_id)
    await deps.ended_runs.mark(tenant_id, run_id, Stage.CONTENT_GONE)
    return objects


async def forget_instances(run: Run, deps: Deps, client: DurableClient) -> bool:
    """Have the durable engine forget a run that is over, with everything that was carried out apart from its own history.

    False when there may be more: ``MAX_INSTANCES`` went. Raises ``LivoaError("engine.unavailable", status=503)``.
    """
    purged: set[str] = set()
    try:
        # The engine answers with a page at a time, and what was purged is not in the next one.
        while parts := await _parts(run, client, purged):
            for instance_id in parts[: MAX_INSTANCES - len(purged)]:
                await client.purge_instance_history(instance_id)
                purged.add(instance_id)
            if len(purged) >= MAX_INSTANCES:
                return False
        await client.purge_instance_history(run.run_id)
    except Exception as err:
        raise _unavailable() from err
    await deps.ended_runs.mark(run.tenant_id, run.run_id, Stage.INSTANCES_GONE)
    return True


async def _parts(run: Run, client: DurableClient, known: set[str]) -> list[str]:
    """Instances of the run beside its own that are not known yet."""
    prefix = f"{run.run_id}."
    found = [status.instance_id for status in await client.get_status_by(instance_id_prefix=prefix)]
    return [instance_id for instance_id in found if instance_id.startswith(prefix) and instance_id not in known]


def _unavailable() -> LivoaError:
    return LivoaError("engine.unavailable", "The durable engine cannot be reached.", status=503, retry_after_s=5)

"""Retention: what is older than a tenant keeps it goes, oldest first, a batch at a time. Stopped and begun again, it goes on.

The stores say what is due, so nothing has to be remembered between two batches.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import TypeVar

from engine.domain.base import Frozen, UtcDatetime
from engine.domain.errors import LivoaError
from engine.domain.run import Run
from engine.domain.tenant import TenantConfig
from engine.ports.deps import Deps
from engine.ports.ended_runs import Stage
from engine.ports.run_keys import RunKey
from triggers.erasure import erase_content, erase_entry, erase_run, forget_instances
from triggers.http_adapter import DurableClient
from triggers.submission import append_audit

_LOG = logging.getLogger("livoa.retention")
BATCH = 200
"""Most runs that one batch takes through one stage."""
T = TypeVar("T", Run, RunKey)


class RetentionReport(Frozen):
    """What one batch did, or, with ``dry_run``, would do. ``more``: ask again.

    ``instances``: runs that the durable engine has forgotten. ``contents``: runs whose content is erased and that are still
    listed. ``runs``: runs that are gone. ``ownerless``: content of previews and of runs that never came to be. ``failed`` ones
    are tried again by the next batch. ``audit_older_since`` is the time of the oldest audit record where that is older than the
    tenant keeps them; the application cannot remove it.
    """

    tenant_id: str
    dry_run: bool = False
    legal_hold: bool = False
    instances: int = 0
    contents: int = 0
    runs: int = 0
    ownerless: int = 0
    failed: int = 0
    more: bool = False
    audit_older_since: UtcDatetime | None = None


async def retain(tenant: TenantConfig, deps: Deps, client: DurableClient, *, dry_run: bool) -> RetentionReport:
    """One batch for one tenant. One run's failure does not keep the others waiting."""
    rules, now = tenant.retention, deps.clock.now()
    report = RetentionReport(
        tenant_id=tenant.tenant_id,
        dry_run=dry_run,
        legal_hold=rules.legal_hold,
        audit_older_since=await _audit_older_since(tenant, now, deps),
    )
    if rules.legal_hold:
        return report

    async def due(days: int, stage: Stage) -> list[Run]:
        before, limit = now - timedelta(days=days), BATCH + len(rules.held_runs)
        found = await deps.ended_runs.ended(tenant.tenant_id, before=before, stage=stage, limit=limit)
        return [run for run in found if not rules.holds(run.run_id)][:BATCH]

    async def whole(run: Run) -> None:
        entry = erase_entry(run.tenant_id, run.run_id, "run", deps, after_days=rules.run_days)
        await erase_run(run, entry, deps, client)

    async def content(run: Run) -> None:
        entry = erase_entry(run.tenant_id, run.run_id, "content", deps, after_days=rules.content_days)
        await append_audit(entry, deps)
        while not await forget_instances(run, deps, client):
            pass  # what is marked as erased is not asked about its instances again
        await erase_content(run.tenant_id, run.run_id, deps)

    async def instances(run: Run) -> None:
        await forget_instances(run, deps, client)

    async def ownerless(key: RunKey) -> None:
        entry = erase_entry(key.tenant_id, key.run_id, "content", deps, after_days=rules.content_days)
        await append_audit(entry, deps)
        await erase_content(key.tenant_id, key.run_id, deps)
        # There is no run, but accounts and results of models lie under its id all the same.
        await deps.ended_runs.remove(key.tenant_id, key.run_id)

    async def is_held(run_id: str) -> bool:
        # Asked before each run: a batch takes a while, and a hold is for what is there when it is laid.
        current = await deps.tenants.get(tenant.tenant_id)
        return current is None or current.retention.holds(run_id)

    before = now - timedelta(days=rules.content_days)
    keys = await deps.run_keys.ownerless(tenant.tenant_id, created_before=before, limit=BATCH + len(rules.held_runs))
    batch = _Batch(dry_run, is_held)
    # The longest way first: a run that is gone needs none of the others, and is counted once.
    runs = await batch.each(await due(rules.run_days, Stage.GONE), whole)
    contents = await batch.each(await due(rules.content_days, Stage.CONTENT_GONE), content)
    forgotten = await batch.each(await due(rules.instance_days, Stage.INSTANCES_GONE), instances)
    orphans = await batch.each([key for key in keys if not rules.holds(key.run_id)][:BATCH], ownerless)
    counts = {"runs": runs, "contents": contents, "instances": forgotten, "ownerless": orphans}
    return report.model_copy(update=counts | {"failed": batch.failed, "more": batch.more})


class _Batch:
    def __init__(self, dry_run: bool, is_held: Callable[[str], Awaitable[bool]]) -> None:
        self._dry_run, self._is_held, self.failed, self.more = dry_run, is_held, 0, False
        self._seen: set[str] = set()

    async def each(self, found: Iterable[T], work: Callable[[T], Awaitable[None]]) -> int:
        """Do ``work`` for each; how many were done."""
        done = count = 0
        for each in found:
            count += 1
            if each.run_id not in self._seen:
                self._seen.add(each.run_id)
                done += self._dry_run or await self._one(each, work)
        self.more = self.more or (count >= BATCH and done > 0)
        return done

    async def _one(self, found: T, work: Callable[[T], Awaitable[None]]) -> bool:
        try:
            if await self._is_held(found.run_id):
                return False
            await work(found)
        except Exception as err:
            self.failed += 1
            code = err.code if isinstance(err, LivoaError) else "internal.unexpected"
            facts = {"run_id": found.run_id, "tenant_id": found.tenant_id, "code": code}
            _LOG.warning("retention could not go on with a run", exc_info=True, extra=facts)
            return False
        return True


async def _audit_older_since(tenant: TenantConfig, now: datetime, deps: Deps) -> datetime | None:
    first = await deps.audit.read(tenant.tenant_id, after_seq=0, limit=1)
    oldest = first[0].at if first else now
    return oldest if oldest < now - timedelta(days=tenant.retention.audit_days) else None

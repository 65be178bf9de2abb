"""Retention: what is older than a tenant keeps it goes, oldest first, a batch at a time. Stopped and begun again, it goes on.

The stores say what is due, so nothing has to be remembered between two batches.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from engine.domain.base import Frozen, UtcDatetime
from engine.domain.errors import LivoaError
from engine.domain.run import Run
from engine.domain.tenant import RetentionRules, TenantConfig
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
    due, ways = _Due(tenant, now, deps), _Ways(rules, deps, client)
    batch, keys = _Batch(dry_run, due.is_held), await due.keys(rules.content_days)
    # The longest way first: a run that is gone needs none of the others, and is counted once.
    runs = await batch.each(await due.runs(rules.run_days, Stage.GONE), ways.whole)
    contents = await batch.each(await due.runs(rules.content_days, Stage.CONTENT_GONE), ways.content)
    forgotten = await batch.each(await due.runs(rules.instance_days, Stage.INSTANCES_GONE), ways.instances)
    orphans = await batch.each(keys, ways.ownerless)
    counts = {"runs": runs, "contents": contents, "instances": forgotten, "ownerless": orphans}
    return report.model_copy(update=counts | {"failed": batch.failed, "more": batch.more})


@dataclass(frozen=True, slots=True)
class _Due:
    """What of a tenant is older than it keeps it, without what is held: at most a batch of each."""

    tenant: TenantConfig
    now: datetime
    deps: Deps

    @property
    def _limit(self) -> int:
        return BATCH + len(self.tenant.retention.held_runs)

    async def runs(self, days: int, stage: Stage) -> list[Run]:
        before = self.now - timedelta(days=days)
        found = await self.deps.ended_runs.ended(self.tenant.tenant_id, before=before, stage=stage, limit=self._limit)
        return [run for run in found if not self.tenant.retention.holds(run.run_id)][:BATCH]

    async def keys(self, days: int) -> list[RunKey]:
        before = self.now - timedelta(days=days)
        found = await self.deps.run_keys.ownerless(self.tenant.tenant_id, created_before=before, limit=self._limit)
        return [key for key in found if not self.tenant.retention.holds(key.run_id)][:BATCH]

    async def is_held(self, run_id: str) -> bool:
        """Asked before each run: a batch takes a while, and a hold is for what is there when it is laid."""
        current = await self.deps.tenants.get(self.tenant.tenant_id)
        return current is None or current.retention.holds(run_id)


@dataclass(frozen=True, slots=True)
class _Ways:
    """How a run goes, as a whole or in part."""

    rules: RetentionRules
    deps: Deps
    client: DurableClient

    async def whole(self, run: Run) -> None:
        entry = erase_entry(run.tenant_id, run.run_id, "run", self.deps, after_days=self.rules.run_days)
        await erase_run(run, entry, self.deps, self.client)

    async def content(self, run: Run) -> None:
        await self._announce(run.tenant_id, run.run_id)
        while not await forget_instances(run, self.deps, self.client):
            pass  # what is marked as erased is not asked about its instances again
        await erase_content(run.tenant_id, run.run_id, self.deps)

    async def instances(self, run: Run) -> None:
        await forget_instances(run, self.deps, self.client)

    async def ownerless(self, key: RunKey) -> None:
        await self._announce(key.tenant_id, key.run_id)
        await erase_content(key.tenant_id, key.run_id, self.deps)
        # There is no run, but accounts and results of models lie under its id all the same.
        await self.deps.ended_runs.remove(key.tenant_id, key.run_id)

    async def _announce(self, tenant_id: str, run_id: str) -> None:
        entry = erase_entry(tenant_id, run_id, "content", self.deps, after_days=self.rules.content_days)
        await append_audit(entry, self.deps)


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

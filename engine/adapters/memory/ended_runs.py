"""Runs on their way out of memory. Not durable: only tests may rely on it."""

from __future__ import annotations

from datetime import datetime

from engine.adapters.memory.approvals import MemoryApprovalStore
from engine.adapters.memory.model_results import MemoryModelResults
from engine.adapters.memory.run_store import MemoryRunStore
from engine.adapters.store_rules import bounded, not_finished
from engine.domain.run import Run
from engine.ports.ended_runs import Stage


class MemoryEndedRuns:
    """Over the stores that keep something with a run."""

    def __init__(
        self,
        runs: MemoryRunStore,
        approvals: MemoryApprovalStore | None = None,
        model_results: MemoryModelResults | None = None,
    ) -> None:
        self._runs, self._approvals, self._results = runs, approvals, model_results
        self._stages: dict[tuple[str, str], Stage] = {}

    async def ended(self, tenant_id: str, *, before: datetime, stage: Stage, limit: int) -> tuple[Run, ...]:
        """See ``EndedRuns.ended``."""
        found = [
            run
            for run in self._runs.everything(tenant_id)
            if run.status.is_final and run.updated_at < before and self._stage(run) < stage
        ]
        return tuple(sorted(found, key=lambda run: (run.updated_at, run.run_id))[: bounded(limit)])

    async def mark(self, tenant_id: str, run_id: str, stage: Stage) -> None:
        """See ``EndedRuns.mark``."""
        if await self._runs.get(tenant_id, run_id) is not None:
            self._stages[tenant_id, run_id] = stage

    async def remove(self, tenant_id: str, run_id: str) -> bool:
        """See ``EndedRuns.remove``."""
        run = await self._runs.get(tenant_id, run_id)
        if run is not None and not run.status.is_final:
            raise not_finished(run)
        if self._approvals is not None:
            self._approvals.forget(tenant_id, run_id)
        if self._results is not None:
            self._results.forget(tenant_id, run_id)
        self._stages.pop((tenant_id, run_id), None)
        return self._runs.forget(tenant_id, run_id)

    def _stage(self, run: Run) -> Stage:
        return self._stages.get((run.tenant_id, run.run_id), Stage.ENDED)

"""Every hour: what is older than its tenant keeps it goes, a bounded number of batches for each tenant."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from engine.domain.errors import LivoaError
from engine.domain.tenant import TenantConfig
from engine.ports.deps import Deps, DepsProvider
from triggers.http_adapter import CLIENT_PARAMETER, DurableClient
from triggers.retention import RetentionReport, retain

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

SCHEDULE = "0 17 * * * *"
MAX_BATCHES = 5
"""For one tenant in one hour. What is left waits for the next one."""

_LOG = logging.getLogger("livoa.retention")


async def retain_all(deps: Deps, client: DurableClient) -> tuple[RetentionReport, ...]:
    """Batches of every tenant. One tenant's failure does not keep the others waiting."""
    reports: list[RetentionReport] = []
    for tenant in await deps.tenants.all():
        try:
            reports += await _batches(tenant, deps, client)
        except Exception as err:
            code = err.code if isinstance(err, LivoaError) else "internal.unexpected"
            _LOG.exception("retention failed", extra={"tenant_id": tenant.tenant_id, "code": code})
    return tuple(reports)


async def _batches(tenant: TenantConfig, deps: Deps, client: DurableClient) -> list[RetentionReport]:
    reports: list[RetentionReport] = []
    while len(reports) < MAX_BATCHES and (not reports or reports[-1].more):
        report = await retain(tenant, deps, client, dry_run=False)
        reports.append(report)
        facts = report.model_dump(mode="json", exclude={"dry_run", "tenant_id"}, exclude_none=True)
        if report.runs or report.contents or report.ownerless or report.failed or report.audit_older_since:
            _LOG.info("retention", extra={"tenant_id": tenant.tenant_id} | facts)
    return reports


def build(deps: DepsProvider) -> Blueprint:
    """The blueprint of the timer."""
    from azure.durable_functions import Blueprint
    from azure.functions import TimerRequest

    async def retain_runs(timer: Any, client: Any) -> None:
        await retain_all(deps(), client)

    retain_runs.__annotations__ = {"timer": TimerRequest, CLIENT_PARAMETER: str, "return": None}
    blueprint = Blueprint()
    function: Any = blueprint.timer_trigger(
        arg_name="timer", schedule=SCHEDULE, run_on_startup=False, use_monitor=False
    )(retain_runs)
    blueprint.durable_client_input(client_name=CLIENT_PARAMETER)(function)
    return blueprint

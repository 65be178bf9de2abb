"""Tenant configuration as YAML pages: ``tenants/{tenant_id}.yaml``. A changed page takes effect within seconds.

A page that cannot be read makes the whole directory unavailable: going on with what was read earlier would keep a tenant alive
that somebody has just tried to suspend.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from engine.adapters.files.pages import FileState, file_states, read_pages
from engine.adapters.memory.tenant_directory import MemoryTenantDirectory
from engine.domain.errors import LivoaError, Violation
from engine.domain.tenant import TenantConfig
from engine.ports.clock import Clock

LOOK_AGAIN_AFTER_S = 2.0
"""How long tenants are taken from memory before the files are looked at again."""

_LOG = logging.getLogger("livoa.tenants")


@dataclass(frozen=True, slots=True)
class _Loaded:
    files: tuple[FileState, ...]
    looked_at: datetime
    tenants: MemoryTenantDirectory


class FilesTenantDirectory:
    """Tenants below ``root/tenants``.

    Every method raises ``LivoaError("tenants.invalid")`` (503) with one violation per offence while a page is wrong, two tenants
    trust the same (issuer, directory), or there are no tenants at all. With ``tells`` the log hears of it once, and
    once when it is mended.
    """

    def __init__(self, root: Path, clock: Clock, *, tells: bool = False) -> None:
        self._root = root
        self._tells = tells
        self._told = ""
        self._clock = clock
        self._loaded: _Loaded | None = None

    async def get(self, tenant_id: str) -> TenantConfig | None:
        """See ``TenantDirectory.get``."""
        return await (await self._tenants()).get(tenant_id)

    async def by_directory(self, issuer: str, directory_id: str) -> TenantConfig | None:
        """See ``TenantDirectory.by_directory``."""
        return await (await self._tenants()).by_directory(issuer, directory_id)

    async def all(self) -> tuple[TenantConfig, ...]:
        """See ``TenantDirectory.all``."""
        return await (await self._tenants()).all()

    async def _tenants(self) -> MemoryTenantDirectory:
        now = self._clock.now()
        loaded = self._loaded
        # The lower bound: after a clock was set back, "not yet" could last for hours.
        if loaded is not None and timedelta() <= now - loaded.looked_at < timedelta(seconds=LOOK_AGAIN_AFTER_S):
            return loaded.tenants
        try:
            self._loaded = await asyncio.to_thread(self._look, loaded, now)
        except LivoaError as err:
            self._tell(err)
            raise
        self._tell(None)
        return self._loaded.tenants

    def _tell(self, err: LivoaError | None) -> None:
        words = err.message if err is not None else ""
        if words == self._told or not self._tells:
            return
        self._told = words
        if err is not None:
            _LOG.error("no tenant is served: %s", words, extra={"code": err.code})
        else:
            _LOG.info("the tenants' configuration is mended: tenants are served again")

    def _look(self, loaded: _Loaded | None, now: datetime) -> _Loaded:
        # The state of the files before they are read: a change in between is seen next time.
        files = file_states(self._root / "tenants")
        if loaded is not None and loaded.files == files:
            return _Loaded(files, now, loaded.tenants)
        return _Loaded(files, now, _load(self._root))


def _load(root: Path) -> MemoryTenantDirectory:
    tenants, findings = read_pages(root, "tenants", TenantConfig, lambda page: page.tenant_id, "tenants.page_invalid")
    findings = findings or _findings(tenants)
    if findings:
        words = "; ".join(f"{found.pointer}: {found.message}" for found in findings[:5])
        raise LivoaError(
            "tenants.invalid",
            f"the tenants' configuration has {len(findings)} {'fault' if len(findings) == 1 else 'faults'}: {words}",
            status=503,
            pointer=findings[0].pointer,
            violations=findings,
        )
    return MemoryTenantDirectory(tenants.values())


def _findings(tenants: dict[str, TenantConfig]) -> list[Violation]:
    if not tenants:
        return [Violation(code="tenants.none", pointer="tenants", message="there is no tenant")]
    found: list[Violation] = []
    owners: dict[tuple[str, str], str] = {}
    for tenant in tenants.values():
        for index, trusted in enumerate(tenant.issuers):
            owner = owners.setdefault((trusted.issuer, trusted.directory_id), tenant.tenant_id)
            if owner != tenant.tenant_id:
                pointer = f"tenants/{tenant.tenant_id}.yaml#/issuers/{index}"
                message = f"this issuer and directory speak for {owner} already"
                found.append(Violation(code="tenants.issuer_shared", pointer=pointer, message=message))
    return found

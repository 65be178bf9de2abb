"""What `./livoa catalog check` finds: every part of the catalog read as the engine reads it, each fault with its place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from engine.adapters.files import FilesCatalog, FilesTenantDirectory
from engine.adapters.files.policy_source import FilesPolicySource
from engine.adapters.memory import SystemClock
from engine.domain.errors import LivoaError, Violation
from engine.domain.tenant import TenantConfig
from policy.library import GUARANTEES, PolicyLibrary

NOBODY = "-"
"""Stands for a tenant without policies of its own: those of `policies/default` hold for it."""


@dataclass(slots=True)
class Examined:
    """What was found. ``errors`` keep a host from starting, a tenant from being served or anything from being allowed; ``notes``
    are for whoever owns the catalog to look at. ``not_looked_at`` says what had to be left out because of the errors."""

    version: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    errors: list[Violation] = field(default_factory=list)
    notes: list[Violation] = field(default_factory=list)
    not_looked_at: list[str] = field(default_factory=list)


async def examine(root: Path) -> Examined:
    """Look through the catalog below ``root``. Raises nothing for what is wrong in it."""
    found = Examined()
    catalog = _catalog(root, found)
    tenants = await _tenants(root, found)
    if catalog is None:
        found.not_looked_at.append("policies (they are checked against the capabilities)")
        return found
    _note_unknown_names(tenants, catalog, found)
    await _policies(root, catalog, tenants, found)
    return found


def _catalog(root: Path, found: Examined) -> FilesCatalog | None:
    try:
        catalog = FilesCatalog(root)
    except LivoaError as err:
        found.errors += _violations(err, "")
        return None
    found.version = catalog.version
    found.counts |= {"capabilities": len(catalog.capabilities), "playbooks": len(catalog.playbooks)}
    found.notes += catalog.remarks
    return catalog


async def _tenants(root: Path, found: Examined) -> tuple[TenantConfig, ...]:
    try:
        tenants = await FilesTenantDirectory(root, SystemClock()).all()
    except LivoaError as err:
        found.errors += _violations(err, "")
        return ()
    found.counts["tenants"] = len(tenants)
    return tenants


def _note_unknown_names(tenants: tuple[TenantConfig, ...], catalog: FilesCatalog, found: Examined) -> None:
    """Names that are tolerated, because a catalog may be ahead of a tenant or behind it, and that are mostly typing errors."""
    known = {"enabled_capabilities": catalog.capabilities, "enabled_playbooks": catalog.playbooks}
    for tenant in tenants:
        for name, pages in known.items():
            for index, one in enumerate(getattr(tenant, name) or ()):
                if one not in pages:
                    place = f"tenants/{tenant.tenant_id}.yaml#/{name}/{index}"
                    found.notes.append(
                        Violation(code="tenants.unknown_name", pointer=place, message=f"there is no {one}")
                    )


async def _policies(root: Path, catalog: FilesCatalog, tenants: tuple[TenantConfig, ...], found: Examined) -> None:
    library = PolicyLibrary(FilesPolicySource(root, SystemClock()), catalog, required=GUARANTEES)
    sets: set[str] = set()
    names = {tenant.tenant_id for tenant in tenants} | {NOBODY}
    folder = root / "policies" / "tenants"
    strangers = {path.name for path in folder.iterdir() if path.is_dir()} - names if folder.is_dir() else set()
    for name in sorted(names | strangers):
        try:
            sets.add((await library.in_force(name)).book.hash)
        except LivoaError as err:
            place = "" if err.violations else f"tenants/{name}"
            found.errors += [one for one in _violations(err, f"policies/{place}") if one not in found.errors]
    if any(one.pointer.startswith("policies/platform") for one in found.errors):
        found.not_looked_at.append("policies of tenants (they are checked with the platform's)")
    found.counts["policy_sets"] = len(sets)
    if tenants:
        message = "there is no such tenant"
        found.notes += [
            Violation(code="policy.unknown_tenant", pointer=f"policies/tenants/{name}", message=message)
            for name in sorted(strangers)
        ]


def _violations(err: LivoaError, folder: str) -> list[Violation]:
    """The places of an error; of one that names none, the error itself."""
    found = err.violations or (Violation(code=err.code, pointer="", message=str(err)),)
    return [one.model_copy(update={"pointer": f"{folder}{one.pointer}"}) for one in found]

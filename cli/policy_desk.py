"""What `./livoa policy` works with: the catalog's policies, compiled as the engine compiles them, and their golden requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cli.errors import CliError
from cli.exit_codes import ExitCode
from engine.adapters.files import FilesCatalog, FilesTenantDirectory
from engine.adapters.files.pages import read_pages
from engine.adapters.files.policy_source import MAX_FILE_BYTES, FilesPolicySource
from engine.adapters.memory import SystemClock
from engine.domain.errors import LivoaError, Violation
from engine.domain.policy import PlanPolicyDecision, PlanPolicyRequest
from engine.domain.principal import Principal, Role
from engine.domain.run import PlanProvenance, RunConstraints, RunRequest
from engine.domain.tenant import TenantConfig
from engine.plan import CheckResult, check_plan
from engine.ports.policy import PolicyText, PolicyTexts
from policy.book import Words
from policy.engine import GovernedPolicyEngine
from policy.golden import GoldenPage, GoldenResult, ask_golden
from policy.library import GUARANTEES, InForce, PolicyLibrary

DEFAULT_LAYER = "default"
"""Stands in lists for a tenant without policies of its own."""


@dataclass(frozen=True, slots=True)
class Tried:
    """The golden requests of one tenant, answered."""

    tenant_id: str
    set_hash: str
    results: tuple[GoldenResult, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A golden request that a draft would decide otherwise."""

    tenant_id: str
    name: str
    before: str
    after: str


class _Fixed:
    """A source with one draft in it."""

    def __init__(self, texts: PolicyTexts) -> None:
        self._texts = texts

    async def texts(self, tenant_id: str) -> PolicyTexts:
        return self._texts


class Desk:
    """One catalog. Raises ``LivoaError`` (``catalog.invalid``, ``policy.unavailable``) naming every fault."""

    def __init__(self, catalog_dir: Path) -> None:
        self._folder = catalog_dir / "policies"
        self._catalog = FilesCatalog(catalog_dir)
        self._source = FilesPolicySource(catalog_dir, SystemClock())
        self._tenants = FilesTenantDirectory(catalog_dir, SystemClock())
        self._library = PolicyLibrary(self._source, self._catalog, required=GUARANTEES)

    @property
    def words(self) -> Words:
        """The vocabulary of the catalog."""
        return self._library.words()

    async def test(self, only: str | None) -> list[Tried]:
        """Ask the golden requests of one tenant, or of all and of the default."""
        return [await self._try(tenant, self._library) for tenant in await self._chosen(only)]

    async def lint(self, file: Path, tenant_id: str | None) -> tuple[tuple[Violation, ...], list[Change]]:
        """The faults of a draft, or which golden requests it would decide otherwise.

        A file below the catalog's policies stands where it is; any other is taken for one more of ``tenant_id``'s.
        """
        name = self._name_of(file, tenant_id)
        layer = name.split("/")[0]
        owner = name.split("/")[1] if layer == "tenants" else None
        changes: list[Change] = []
        for tenant in await self._chosen(owner):
            texts = await self._source.texts(tenant.tenant_id)
            if layer == DEFAULT_LAYER and texts.tenant:
                continue
            draft = PolicyLibrary(
                _Fixed(_with(texts, layer, PolicyText(name, _read(file)))), self._catalog, required=GUARANTEES
            )
            try:
                after = await self._try(tenant, draft)
            except LivoaError as error:
                return error.violations, []
            changes.extend(_changes(await self._try(tenant, self._library), after))
        return (), changes

    async def plan(
        self, document: bytes, tenant_id: str, constraints: RunConstraints | None = None
    ) -> tuple[CheckResult, PlanPolicyDecision | None]:
        """What the checks and the policies say to a plan that a person of the tenant brings, with what the run is to keep to.
        None when the checks refuse it."""
        tenant = await self._tenants.get(tenant_id)
        if tenant is None:
            known = ", ".join(sorted(found.tenant_id for found in await self._tenants.all()))
            raise _no_tenant(tenant_id, known)
        result = check_plan(document, tenant=tenant, catalog=self._catalog, constraints=constraints)
        if result.plan is None:
            return result, None
        caller = Principal(
            tenant_id=tenant_id,
            subject="offline:caller",
            kind="user",
            client_app="cli",
            roles=frozenset({Role.RUNS_SUBMIT}),
        )
        engine = GovernedPolicyEngine(self._catalog, self._library)
        decision = await engine.decide_plan(
            PlanPolicyRequest(
                principal=caller,
                tenant=tenant,
                run_id="offline",
                plan_hash=result.plan.plan_hash,
                capability_names=result.plan.capability_names,
                estimated_cost_micro_usd=result.plan.estimated_cost_micro_usd,
                plan=result.plan.plan,
                request=RunRequest(intent=result.plan.plan.goal),
                provenance=PlanProvenance(source="caller"),
            )
        )
        return result, decision

    def _name_of(self, file: Path, tenant_id: str | None) -> str:
        place = file.resolve()
        if not place.is_file():
            raise CliError(f"cannot read {file}: no such file", exit_code=ExitCode.USAGE, code="cli.file")
        if place.is_relative_to(self._folder.resolve()):
            return place.relative_to(self._folder.resolve()).as_posix()
        if tenant_id is None:
            hint = "add --tenant TENANT: whose policy is it?"
            raise CliError("the file is not in the catalog", hint=hint, exit_code=ExitCode.USAGE, code="cli.usage")
        return f"tenants/{tenant_id}/{file.name}"

    async def _chosen(self, only: str | None) -> list[TenantConfig]:
        tenants = list(await self._tenants.all())
        capabilities = tuple(self._catalog.capabilities)
        tenants.append(
            TenantConfig(tenant_id=DEFAULT_LAYER, display_name="Any tenant", enabled_capabilities=capabilities)
        )
        chosen = [tenant for tenant in tenants if only in (None, tenant.tenant_id)]
        if not chosen:
            known = ", ".join(sorted(tenant.tenant_id for tenant in tenants))
            raise _no_tenant(only, known)
        return chosen

    async def _try(self, tenant: TenantConfig, library: PolicyLibrary) -> Tried:
        in_force: InForce = await library.in_force(tenant.tenant_id)
        folder = self._folder / (DEFAULT_LAYER if tenant.tenant_id == DEFAULT_LAYER else f"tenants/{tenant.tenant_id}")
        pages, findings = read_pages(folder, "golden", GoldenPage, lambda page: page.name, "policy.golden_invalid")
        if findings:
            raise LivoaError("policy.golden_invalid", "golden requests cannot be read", violations=findings)
        results = ask_golden(list(pages.values()), tenant, in_force.book, library.words(), self._catalog.capabilities)
        return Tried(tenant.tenant_id, in_force.book.hash, tuple(results))


def _no_tenant(name: str | None, known: str) -> CliError:
    return CliError(f"there is no tenant {name!r}", hint=f"one of {known}", exit_code=ExitCode.USAGE, code="cli.tenant")


def _with(texts: PolicyTexts, layer: str, draft: PolicyText) -> PolicyTexts:
    match layer:
        case "platform":
            return replace(texts, platform=_put(texts.platform, draft))
        case "default":
            return replace(texts, default=_put(texts.default, draft))
        case _:
            return replace(texts, tenant=_put(texts.tenant, draft))


def _put(files: Sequence[PolicyText], draft: PolicyText) -> tuple[PolicyText, ...]:
    return (*(file for file in files if file.name != draft.name), draft)


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise CliError(f"{file} has more than {MAX_FILE_BYTES} bytes", exit_code=ExitCode.USAGE, code="cli.file")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise CliError(f"cannot read {file}", exit_code=ExitCode.USAGE, code="cli.file") from err


def _changes(before: Tried, after: Tried) -> list[Change]:
    return [
        Change(after.tenant_id, f"{new.page} · {new.request.name}", _told(old), _told(new))
        for old, new in zip(before.results, after.results, strict=True)
        if _told(old) != _told(new)
    ]


def _told(result: GoldenResult) -> str:
    return f"{result.decision.verdict.value} ({', '.join(result.decision.policy_ids) or result.decision.code})"

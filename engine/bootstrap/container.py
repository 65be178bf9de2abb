"""Builds ``Deps`` once per process, on first use. The only place where adapters meet ports."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.bootstrap.deciding import deciding, nothing, with_models
from engine.bootstrap.settings import Settings, forbid_prompt_tracing, load_settings
from engine.domain.errors import LivoaError
from engine.domain.grants import GRANT_KEYS_FILE
from engine.ports.audit_log import AuditLog
from engine.ports.checkpoints import Anchors, Checkpoints, NoCheckpoints, Signer
from engine.ports.clock import Clock
from engine.ports.commitments import Commitments
from engine.ports.deps import AppSettings, Deps
from engine.ports.grants import Grants
from engine.ports.identity import TokenValidator
from engine.ports.personal_data import NoDetector, PersonalDataDetector
from engine.ports.quota import PermitLedger
from engine.ports.tenant_directory import TenantDirectory

if TYPE_CHECKING:
    from engine.adapters.sealed import RunKeyring
    from engine.adapters.tenant_configs import VersionStore
    from engine.identity import DevelopmentIssuer

SERVICE_NAME = "livoa-orchestrator"
_AGENT_TOKEN_LIFETIME_S = 600

_LOCK = threading.Lock()
_DEPS: list[Deps] = []


def get_deps() -> Deps:
    """The process's dependencies, built when first asked for.

    Raises ``LivoaError("settings.invalid")`` or ``LivoaError("catalog.invalid")``; the next call tries again.
    """
    if not _DEPS:
        with _LOCK:
            if not _DEPS:
                _DEPS.append(build_deps(load_settings()))
    return _DEPS[0]


def build_deps(settings: Settings, *, decides: bool = True) -> Deps:
    """Wire adapters by ``settings``. Connects to nothing: every adapter opens on first use.

    Without ``decides`` there are no policies, planner and models, and none of their libraries is loaded: for a process that only
    carries out what was decided.
    """
    from engine.adapters.files import FilesCatalog, FilesCatalogWatch
    from engine.adapters.http_agents import HttpAgentInvoker
    from engine.adapters.memory import SystemClock
    from engine.adapters.otel.logs import configure_logging
    from engine.adapters.otel.setup import configure_telemetry
    from engine.bootstrap.payloads import open_keyring
    from engine.bootstrap.stores import open_stores
    from engine.evidence.egress import AuditedEgress
    from engine.identity import AuditedRejections

    forbid_prompt_tracing()
    configure_logging(settings.log_level)
    clock = SystemClock()
    telemetry = configure_telemetry(settings.telemetry_exporter, service_name=SERVICE_NAME)
    stores = open_stores(settings, clock, telemetry)
    keyring = open_keyring(settings.payloads, stores.ports["run_keys"], clock, local=settings.environment == "local")
    catalog = FilesCatalog(settings.catalog_dir)
    audit, checkpoints = _evidence(settings, stores.audit, keyring, clock)
    tenancy, agent_credential = _tenancy(settings, stores.versions, clock)
    grants = _grants(settings, clock)
    detector = _detector(settings)
    deps = Deps(
        settings=AppSettings(environment=settings.environment, http_streaming=settings.http_streaming),
        clock=clock,
        catalog=catalog,
        catalog_watch=FilesCatalogWatch(settings.catalog_dir, catalog, clock),
        audit=audit,
        checkpoints=checkpoints,
        calls=stores.calls(audit),
        rejections=AuditedRejections(audit, clock),
        personal_data=detector,
        grants=grants,
        invoker=HttpAgentInvoker(
            settings.agent_endpoints, agent_credential, grants, refusals=AuditedEgress(audit, clock)
        ),
        telemetry=telemetry,
        **(deciding(settings, catalog, clock, detector, audit) if decides else nothing()),
        **tenancy,
        **_content(settings, keyring, clock),
        **_bus(settings),
        **stores.ports,
    )
    limited = _with_limits(deps, stores.permits)
    return with_models(limited) if decides else limited


def _content(settings: Settings, keyring: RunKeyring, clock: Clock) -> dict[str, Any]:
    """Where content lies and what commits to it, as ports by name."""
    from engine.adapters.sealed import SealedPayloadLinks
    from engine.bootstrap.payloads import open_payloads

    payloads = open_payloads(settings.payloads, keyring)
    links = SealedPayloadLinks(payloads, keyring, clock)
    return {"payloads": payloads, "payload_links": links, "commitments": keyring}


def _tenancy(
    settings: Settings, versions: VersionStore, clock: Clock
) -> tuple[dict[str, Any], Callable[[], Awaitable[str]]]:
    """Who the tenants are and how one knows who speaks for them, as ports by name; and what agents are shown."""
    from engine.adapters.files import FilesTenantDirectory
    from engine.adapters.tenant_configs import VersionedTenants
    from engine.identity import TenantEnvelopes

    versioned = VersionedTenants(FilesTenantDirectory(settings.catalog_dir, clock, tells=True), versions, clock)
    tokens, tenants, agent_credential = _identity(settings, versioned, clock)
    ports = {
        "tokens": tokens,
        "tenants": tenants,
        "tenant_configs": versioned,
        "envelopes": TenantEnvelopes(tenants, clock, audience=settings.api_audience),
    }
    return ports, agent_credential


def _evidence(
    settings: Settings, log: AuditLog, commitments: Commitments, clock: Clock
) -> tuple[AuditLog, Checkpoints]:
    """The audit log, and what signs and anchors it. A key is made on one machine only."""
    from engine.evidence.checkpoints import Checkpointer
    from engine.evidence.commitments import KeyedAuditLog
    from engine.evidence.watched import WatchedAuditLog

    if settings.audit_anchors is None or settings.audit_key is None:
        return KeyedAuditLog(log, commitments), NoCheckpoints()
    signer = _signer(settings.audit_key, create=settings.environment == "local")
    checkpoints = Checkpointer(log, _anchors(settings.audit_anchors, clock), signer, clock)
    return WatchedAuditLog(KeyedAuditLog(log, commitments), checkpoints), checkpoints


def _anchors(place: Path | str, clock: Clock) -> Anchors:
    """Where checkpoints are kept: a container, or a folder."""
    from engine.adapters.blob_anchors import STORAGE_AUDIENCE, BlobAnchors
    from engine.adapters.entra import ManagedIdentityCredential
    from engine.adapters.files.anchors import FilesAnchors

    if isinstance(place, Path):
        return FilesAnchors(place)
    return BlobAnchors(place, ManagedIdentityCredential(STORAGE_AUDIENCE), clock)


def _signer(key: Path | str, *, create: bool) -> Signer:
    """Who signs checkpoints or grants: a vault, or a key file."""
    from engine.adapters.entra import ManagedIdentityCredential
    from engine.adapters.files.signing_key import FileSigner
    from engine.adapters.key_vault import VAULT_AUDIENCE, KeyVaultSigner

    if isinstance(key, Path):
        return FileSigner(key, create=create)
    return KeyVaultSigner(key, ManagedIdentityCredential(VAULT_AUDIENCE))


def _grants(settings: Settings, clock: Clock) -> Grants:
    """What agents are given for each call. On one machine the key is made, and its public half put where agents look."""
    from engine.identity import SignedGrants

    local = settings.environment == "local"
    publish_to = settings.data_dir / GRANT_KEYS_FILE if local else None
    signer = _signer(settings.grant_key, create=local)
    return SignedGrants(signer, clock, audience=settings.agent_audience, publish_to=publish_to)


def _detector(settings: Settings) -> PersonalDataDetector:
    """What finds personal data in texts, where the extra is installed. Loaded when the first text is looked through."""
    from engine.adapters.presidio import PresidioDetector, installed

    if installed():
        return PresidioDetector(settings.personal_data_model)
    if settings.personal_data_model is not None:
        message = "setting LIVOA_PERSONAL_DATA_MODEL: needs the library of requirements-pii.txt"
        raise LivoaError("settings.invalid", message, status=500, pointer="/LIVOA_PERSONAL_DATA_MODEL")
    return NoDetector()


def _with_limits(deps: Deps, permits: PermitLedger) -> Deps:
    """The same with circuits and a door. One of each per process, because they hold what the process knows."""
    from engine.adapters.admission import BlockAdmission
    from engine.adapters.circuits import EntityCircuits
    from engine.adapters.durable_entities import ClientEntities

    entities = ClientEntities()
    circuits = EntityCircuits(entities, deps.clock, deps.telemetry)
    admission = BlockAdmission(permits, deps.clock)
    return dataclasses.replace(deps, entities=entities, circuits=circuits, admission=admission)


def _bus(settings: Settings) -> dict[str, Any]:
    """Fields of ``Deps`` that need the bus, where there is one. Light: the SDK is loaded by the first message."""
    if settings.bus.bus is None:
        return {}
    from engine.adapters.run_messages import ServiceBusRunEvents, ServiceBusRunRequests
    from engine.adapters.service_bus import BusConnection, ServiceBusStepQueue

    connection = BusConnection(settings.bus.bus)
    return {
        "step_queue": ServiceBusStepQueue(connection),
        "run_requests": ServiceBusRunRequests(connection.client),
        "step_results": ServiceBusRunRequests(
            connection.client, settings.bus.bus.results_queue, content_type="application/json"
        ),
        "run_events": ServiceBusRunEvents(connection),
    }


def _identity(
    settings: Settings, tenants: TenantDirectory, clock: Clock
) -> tuple[TokenValidator, TenantDirectory, Callable[[], Awaitable[str]]]:
    """Who may call us, for which tenants, and who we are towards agents."""
    from engine.adapters.entra import ManagedIdentityCredential
    from engine.adapters.http_jwks.jwks import HttpJwksFetcher
    from engine.identity import DevelopmentIssuer, FirstOf, JwksCache, JwtTokenValidator, WithDevelopmentIssuer
    from engine.identity.keys import KeySource

    sources: list[KeySource] = []
    if settings.jwks_url is not None:
        sources.append(JwksCache(HttpJwksFetcher(settings.jwks_url), clock))
    if settings.environment != "local":
        if not sources:
            raise LivoaError(
                "settings.invalid",
                "setting LIVOA_JWKS_URL: is required unless LIVOA_ENV=local",
                status=500,
                pointer="/LIVOA_JWKS_URL",
            )
        validator = JwtTokenValidator(FirstOf(sources), tenants, clock, audience=settings.api_audience)
        return validator, tenants, ManagedIdentityCredential(settings.agent_audience)
    issuer = DevelopmentIssuer.open(settings.data_dir, clock, environment=settings.environment)
    local = WithDevelopmentIssuer(tenants, environment=settings.environment)
    validator = JwtTokenValidator(FirstOf([issuer, *sources]), local, clock, audience=settings.api_audience)

    return validator, local, _DevelopmentCredential(issuer, settings.agent_audience, clock)


class _DevelopmentCredential:
    """The engine's token towards local agents, signed anew when half of its life is over (a signature costs a millisecond), and
    when the clock was set back: agents refuse what was issued in the future."""

    def __init__(self, issuer: DevelopmentIssuer, audience: str, clock: Clock) -> None:
        self._issuer, self._audience, self._clock = issuer, audience, clock
        self._token = ""
        self._minted_at: datetime | None = None

    async def __call__(self) -> str:
        now = self._clock.now()
        half_life = timedelta(seconds=_AGENT_TOKEN_LIFETIME_S / 2)
        if self._minted_at is None or not timedelta() <= now - self._minted_at < half_life:
            self._token = self._issuer.mint_for_agents(audience=self._audience, lifetime_s=_AGENT_TOKEN_LIFETIME_S)
            self._minted_at = now
        return self._token

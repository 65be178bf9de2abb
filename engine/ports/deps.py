"""Everything a trigger or an activity may ask for, as one parameter. Built by engine.bootstrap, faked in tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from engine.ports.approvals import ApprovalStore, NoApprovals
from engine.ports.assignments import Assignments, NoAssignments
from engine.ports.audit_log import AuditLog
from engine.ports.breakers import Circuits, NoCircuits
from engine.ports.budget import BudgetLedger
from engine.ports.calls import CallLedger
from engine.ports.catalog import Catalog
from engine.ports.catalog_files import CatalogWatch, NoCatalogWatch
from engine.ports.checkpoints import Checkpoints, NoCheckpoints
from engine.ports.clock import Clock
from engine.ports.commitments import Commitments, NoCommitments
from engine.ports.ended_runs import EndedRuns, NoEndedRuns
from engine.ports.entities import EntityDoor, NoEntities
from engine.ports.grants import Grants, NoGrants
from engine.ports.identity import EnvelopeVerifier, NoEnvelopes, NoRejectionLog, RejectionLog, TokenValidator
from engine.ports.invoker import CapabilityInvoker
from engine.ports.model_results import ModelResults, NoModelResults
from engine.ports.models import ChatModels, NoChatModels
from engine.ports.payload_links import NoPayloadLinks, PayloadLinks
from engine.ports.payload_store import PayloadStore
from engine.ports.personal_data import NoDetector, PersonalDataDetector
from engine.ports.planner import AnswerComposer, Planner
from engine.ports.policy import NoPolicyWatch, PolicyEngine, PolicyWatch
from engine.ports.quota import Admission, NoAdmission
from engine.ports.result_cache import NoResultCache, ResultCache
from engine.ports.run_keys import NoRunKeys, RunKeys
from engine.ports.run_messages import (
    HeldMessages,
    NoOutbox,
    NoRunEvents,
    NoRunRequests,
    Outbox,
    RunEventTopic,
)
from engine.ports.run_store import EventLog, RunStore
from engine.ports.step_queue import NoStepQueue, StepQueue
from engine.ports.telemetry import Telemetry
from engine.ports.tenant_configs import NoTenantConfigs, TenantConfigs
from engine.ports.tenant_directory import TenantDirectory


@dataclass(frozen=True, slots=True)
class AppSettings:
    """Settings that edges look at. ``http_streaming`` says whether responses may stream (an app-wide switch of the worker)."""

    environment: Literal["local", "azure"] = "azure"
    http_streaming: bool = False
    max_body_bytes: int = 4 * 1024 * 1024
    long_poll_s: float = 20.0
    stream_limit_s: float = 200.0
    heartbeat_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Deps:
    """The ports, resolved. One instance per process. Without ``calls`` the writes around a call are made in turn."""

    settings: AppSettings
    clock: Clock
    tokens: TokenValidator
    tenants: TenantDirectory
    catalog: Catalog
    runs: RunStore
    events: EventLog
    payloads: PayloadStore
    audit: AuditLog
    policy: PolicyEngine
    budgets: BudgetLedger
    invoker: CapabilityInvoker
    planner: Planner
    composer: AnswerComposer
    telemetry: Telemetry
    tenant_configs: TenantConfigs = field(default_factory=NoTenantConfigs)
    rejections: RejectionLog = field(default_factory=NoRejectionLog)
    models: ChatModels = field(default_factory=NoChatModels)
    model_results: ModelResults = field(default_factory=NoModelResults)
    approvals: ApprovalStore = field(default_factory=NoApprovals)
    entities: EntityDoor = field(default_factory=NoEntities)
    circuits: Circuits = field(default_factory=NoCircuits)
    admission: Admission = field(default_factory=NoAdmission)
    result_cache: ResultCache = field(default_factory=NoResultCache)
    assignments: Assignments = field(default_factory=NoAssignments)
    commitments: Commitments = field(default_factory=NoCommitments)
    run_keys: RunKeys = field(default_factory=NoRunKeys)
    ended_runs: EndedRuns = field(default_factory=NoEndedRuns)
    payload_links: PayloadLinks = field(default_factory=NoPayloadLinks)
    step_queue: StepQueue = field(default_factory=NoStepQueue)
    envelopes: EnvelopeVerifier = field(default_factory=NoEnvelopes)
    run_requests: HeldMessages = field(default_factory=NoRunRequests)
    step_results: HeldMessages = field(default_factory=NoRunRequests)
    run_events: RunEventTopic = field(default_factory=NoRunEvents)
    outbox: Outbox = field(default_factory=NoOutbox)
    checkpoints: Checkpoints = field(default_factory=NoCheckpoints)
    grants: Grants = field(default_factory=NoGrants)
    personal_data: PersonalDataDetector = field(default_factory=NoDetector)
    catalog_watch: CatalogWatch = field(default_factory=NoCatalogWatch)
    policy_watch: PolicyWatch = field(default_factory=NoPolicyWatch)
    calls: CallLedger | None = None


DepsProvider = Callable[[], Deps]
"""Resolves the dependencies on first use, so that indexing the app builds no client."""

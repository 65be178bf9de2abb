"""What the platform knows about a tenant: who may call for it, what it may use, and how much."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from engine.domain.base import Frozen
from engine.domain.egress import EgressRefusedError, parse_entry
from engine.domain.ids import WireId
from engine.domain.personal_data import PersonalDataRules

PLATFORM_MAX_STEPS = 5_000
PLATFORM_MAX_ITEMS = 10_000
PLATFORM_MAX_JSON_DEPTH = 64
PLATFORM_MAX_PLAN_BYTES = 4 * 1024 * 1024
PLATFORM_MAX_DAILY_COST_MICRO_USD = 100_000_000_000
PLATFORM_MAX_DAILY_TOKENS = 100_000_000_000
MAX_CONFIG_VERSION = 2**31 - 1
ANY_REGION = "any"

Region = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")]
"""The name of a region as the cloud has it, or ``any``."""


def _host_entry(value: str) -> str:
    try:
        host, port = parse_entry(value)
    except EgressRefusedError as err:
        raise ValueError("must be a host or host:port, without wildcards") from err
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"


EgressHost = Annotated[str, Field(max_length=260), AfterValidator(_host_entry)]
"""An entry of an egress allow-list in its one spelling."""


class Bounds(Frozen):
    """Limits of one run of this tenant. None exceeds the platform's."""

    max_steps: int = Field(default=200, ge=1, le=PLATFORM_MAX_STEPS)
    max_depth: int = Field(default=64, ge=1, le=PLATFORM_MAX_STEPS)
    max_fan_out: int = Field(default=1_000, ge=1, le=PLATFORM_MAX_ITEMS)
    max_parallel_steps: int = Field(default=32, ge=1, le=64)
    max_wall_time_s: float = Field(default=3_600, gt=0, le=30 * 86_400)
    max_cost_micro_usd: int = Field(default=5_000_000, ge=0)
    max_tokens: int = Field(default=2_000_000, ge=0)
    """Tokens that the run's model calls may use, prompts and replies together."""


class ModelChoice(Frozen):
    """Which model deployments work for this tenant, by name and in order of preference: the first, then its fallbacks.

    Addresses and keys are settings of the platform, not of a tenant. An empty list means the platform's defaults for that
    work, which may be none: then the deterministic degraded mode does it.
    """

    router: tuple[str, ...] = Field(default=(), max_length=8)
    planner: tuple[str, ...] = Field(default=(), max_length=8)
    synthesiser: tuple[str, ...] = Field(default=(), max_length=8)


class PlannerRules(Frozen):
    """How planning works for this tenant. ``max_repairs`` bounds how often a rejected proposal goes back to the model,
    ``max_run_repairs`` how often the plan of one run is planned anew because a step failed (0: a failure is one), and
    ``max_repair_cost_micro_usd`` what the model calls for all of that may cost together, within what the run may cost.

    ``reads_documents`` shows the texts of documents to the planner model, marked as data. It then knows more and is trusted
    less: every side effect it plans waits for a person. Without it the planner sees only that documents are there, and steps
    read them.
    """

    self_critique: Literal["never", "on_risk", "always"] = "on_risk"
    max_repairs: int = Field(default=2, ge=0, le=5)
    max_run_repairs: int = Field(default=2, ge=0, le=5)
    max_repair_cost_micro_usd: int = Field(default=1_000_000, ge=0)
    reads_documents: bool = False


class ApprovalRules(Frozen):
    """How long a requested approval may be answered, in seconds."""

    timeout_s: float = Field(default=86_400, gt=0, le=5 * 86_400)


class AnswerRules(Frozen):
    """Hosts that links and images of an answer may point to. Others are removed."""

    link_hosts: tuple[str, ...] = Field(default=(), max_length=200)


class Budgets(Frozen):
    """What all runs of a tenant may use between two midnights UTC. ``bounds`` limits the single run."""

    daily_cost_micro_usd: int = Field(default=100_000_000, ge=0, le=PLATFORM_MAX_DAILY_COST_MICRO_USD)
    daily_tokens: int = Field(default=20_000_000, ge=0, le=PLATFORM_MAX_DAILY_TOKENS)


class Quota(Frozen):
    """How much of the platform a tenant may take at once.

    Submissions and links to outputs each have a rate and a burst: a flood of one keeps nothing of the other out.
    Admission takes permits in blocks of up to ``permits_per_block``, so that the shared count is off the path of a request; a
    process that cannot reach it goes on with ``emergency_permits`` and then refuses. A run's lease lasts ``lease_s`` unless
    renewed. A run that finds no place waits for one up to ``max_wait_s`` and is refused then; 0 refuses it at once.
    """

    max_concurrent_runs: int = Field(default=20, ge=1, le=1_000)
    submissions_per_minute: int = Field(default=120, ge=1, le=60_000)
    burst: int = Field(default=20, ge=1, le=1_000)
    links_per_minute: int = Field(default=60, ge=1, le=60_000)
    link_burst: int = Field(default=20, ge=1, le=1_000)
    permits_per_block: int = Field(default=20, ge=1, le=1_000)
    emergency_permits: int = Field(default=5, ge=0, le=100)
    lease_s: float = Field(default=600, ge=10, le=86_400)
    max_wait_s: float = Field(default=600, ge=0, le=86_400)


class BreakerRules(Frozen):
    """When calls of a capability stop for a while, and how they start again.

    Open: at least ``min_calls`` in ``window_s`` with ``failure_percent`` of them failed, or ``consecutive_failures`` in a row.
    Agent traffic is sparse, so a share alone would hardly ever trip. The pause starts at ``first_break_s`` and doubles up to
    ``max_break_s``; then ``probes`` calls at a time are tried, each for ``probe_ttl_s``, until ``successes_to_close`` succeeded.
    """

    window_s: int = Field(default=10, ge=1, le=300)
    min_calls: int = Field(default=10, ge=1, le=10_000)
    failure_percent: int = Field(default=50, ge=1, le=100)
    consecutive_failures: int = Field(default=5, ge=1, le=1_000)
    first_break_s: float = Field(default=5, ge=1, le=300)
    max_break_s: float = Field(default=60, ge=1, le=3_600)
    probes: int = Field(default=2, ge=1, le=10)
    probe_ttl_s: float = Field(default=60, ge=1, le=600)
    successes_to_close: int = Field(default=2, ge=1, le=10)


class RetentionRules(Frozen):
    """How long what runs leave behind is kept, in days after they ended.

    ``content_days``: payloads and cached results; then the run's key is destroyed. ``run_days``: the run itself with its steps,
    events and approvals, which hold titles and texts of answers. ``instance_days``: what the durable engine remembers.
    ``audit_days``: audit records; they are reported when they are older, and never removed by the application. A hold on
    everything, or on single runs, stops all of it.
    """

    content_days: int = Field(default=180, ge=1, le=3_650)
    run_days: int = Field(default=180, ge=1, le=3_650)
    instance_days: int = Field(default=30, ge=1, le=3_650)
    audit_days: int = Field(default=7 * 365 + 2, ge=184, le=36_500)
    legal_hold: bool = False
    held_runs: tuple[WireId, ...] = Field(default=(), max_length=400)

    def holds(self, run_id: str) -> bool:
        """True when nothing of this run may be erased."""
        return self.legal_hold or run_id in self.held_runs


class TrustedIssuer(Frozen):
    """One (issuer, directory) pair whose tokens speak for this tenant."""

    issuer: str = Field(min_length=1, max_length=300)
    directory_id: str = Field(min_length=1, max_length=100)
    """The ``tid`` claim."""


_COORDINATE = r"^[A-Za-z0-9_-]{43}$"


class SenderKey(Frozen):
    """The public half of a P-256 key, in the members of its JWK (RFC 7518 section 6.2.1)."""

    key_id: WireId
    x: str = Field(pattern=_COORDINATE)
    y: str = Field(pattern=_COORDINATE)


class MessageSender(Frozen):
    """Somebody whose signed messages submit runs for this tenant. Several keys, so that a new one can be there before the old
    one goes; the ``name`` is who it is, whatever key it signs with."""

    name: WireId
    keys: tuple[SenderKey, ...] = Field(min_length=1, max_length=4)


def _one_of_each_name(senders: tuple[MessageSender, ...]) -> tuple[MessageSender, ...]:
    if len({sender.name for sender in senders}) < len(senders):
        raise ValueError("two senders have one name")
    return senders


class TenantConfig(Frozen):
    """One tenant's configuration (``catalog/tenants/{tenant}.yaml`` and its changes in the configuration store).

    ``version`` counts changes; which fields the tenant's own admin may change stands in ``engine.domain.tenant_changes``.
    ``message_senders`` may submit runs by signed messages instead of bearer tokens.
    ``region`` is where the tenant is at home, ``regions`` are all that may process its data (none: its home only).
    ``egress_hosts`` are the hosts outside that steps of this tenant may cause a call to, whatever a manifest declares.
    ``enabled_playbooks`` None means every playbook whose capabilities are enabled.
    """

    tenant_id: WireId
    version: int = Field(default=1, ge=1, le=MAX_CONFIG_VERSION)
    display_name: str = Field(min_length=1, max_length=200)
    status: Literal["active", "suspended"] = "active"
    region: Region = ANY_REGION
    regions: tuple[Region, ...] = Field(default=(), max_length=50)
    tier: Literal["shared", "dedicated"] = "shared"
    issuers: tuple[TrustedIssuer, ...] = ()
    allowed_client_apps: tuple[str, ...] = ()
    message_senders: Annotated[
        tuple[MessageSender, ...], Field(default=(), max_length=50), AfterValidator(_one_of_each_name)
    ] = ()
    enabled_capabilities: tuple[str, ...] = ()
    enabled_playbooks: tuple[str, ...] | None = None
    egress_hosts: tuple[EgressHost, ...] = Field(default=(), max_length=200)
    bounds: Bounds = Bounds()
    budgets: Budgets = Budgets()
    quota: Quota = Quota()
    breaker: BreakerRules = BreakerRules()
    models: ModelChoice = ModelChoice()
    planner: PlannerRules = PlannerRules()
    approvals: ApprovalRules = ApprovalRules()
    answer: AnswerRules = AnswerRules()
    retention: RetentionRules = RetentionRules()
    personal_data: PersonalDataRules = PersonalDataRules()
    directories: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Trusted values by directory name (``recipients``, ``accounts``, …): a literal that stands in one is grounded."""

    def enables(self, capability: str) -> bool:
        """True when steps of this tenant may ask for ``capability``."""
        return capability in self.enabled_capabilities

    def enables_playbook(self, name: str) -> bool:
        """True when ``name`` may plan for this tenant. Its capabilities must be enabled beside that."""
        return self.enabled_playbooks is None or name in self.enabled_playbooks

    def permits_region(self, region: str) -> bool:
        """True when something that runs in ``region`` may process this tenant's data; ``any`` runs where the data is."""
        allowed = self.regions or (self.region,)
        return region == ANY_REGION or ANY_REGION in allowed or region in allowed

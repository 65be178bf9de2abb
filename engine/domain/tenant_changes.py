"""Who may change what in a tenant's configuration, and what holds after both have spoken. Pure.

The operator writes the pages of ``catalog/tenants``; the tenant's own admin writes over HTTP and may only narrow what the
operator gives, except for what concerns nobody else (``OWN``). A field that stands in no list below is the operator's alone, so
that a new field cannot be opened by forgetting it.

What the admin wrote is judged when it is written and narrowed again whenever it is read: the operator may have taken something
back meanwhile. A page of the operator with a higher version than every change starts anew from that page.

What of it holds for a run: limits are taken by value when the run is admitted and planned (its deadline, its account, its
parallel steps), permissions (status, capabilities, egress) are read again for every step. The record of the submission names the
version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from engine.domain.errors import Violation
from engine.domain.personal_data import PersonalDataRules
from engine.domain.tenant import ANY_REGION, ModelChoice, RetentionRules, TenantConfig

OWN = frozenset({"display_name", "directories"})
"""The admin's to write freely: names for people, and the tenant's own address books."""
NARROWED_SETS = frozenset({"enabled_capabilities", "egress_hosts"})
NARROWED_NUMBERS: Mapping[str, tuple[str, ...]] = {
    "bounds": (
        "max_steps", "max_depth", "max_fan_out", "max_parallel_steps", "max_wall_time_s", "max_cost_micro_usd", "max_tokens",
    ),
    "budgets": ("daily_cost_micro_usd", "daily_tokens"),
    "quota": ("max_concurrent_runs", "submissions_per_minute", "burst", "links_per_minute", "link_burst"),
    "planner": ("max_repairs", "max_run_repairs", "max_repair_cost_micro_usd"),
    "approvals": ("timeout_s",),
    "retention": ("content_days", "run_days", "instance_days"),
}  # fmt: skip
"""Limits that the admin may lower. Other fields of these parts are the operator's."""
NARROWED_OTHERWISE = frozenset({"status", "regions", "enabled_playbooks", "models", "answer", "personal_data"})

_CRITIQUE = ("never", "on_risk", "always")
_NO_REGION = "none"
"""Stands for no region at all: what the admin chose has been taken back, and nothing else was chosen."""


def config_sha256(config: TenantConfig) -> str:
    """The hash of a configuration, whatever wrote it down."""
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def etag_of(config: TenantConfig) -> str:
    """The entity tag of a configuration: it changes with the content, also when the operator keeps the version."""
    return f'"{config.version}-{config_sha256(config)[:16]}"'


def changed_fields(before: TenantConfig, after: TenantConfig) -> tuple[str, ...]:
    """Names of the fields that differ, the version apart."""
    names = sorted(TenantConfig.model_fields.keys() - {"version"})
    return tuple(name for name in names if getattr(before, name) != getattr(after, name))


def violations_of_change(base: TenantConfig, wanted: TenantConfig) -> list[Violation]:
    """Everything in ``wanted`` that the tenant's admin may not write, given the operator's page. Empty: it may be written."""
    found: list[Violation] = []
    for name in TenantConfig.model_fields:
        if name not in OWN and name != "version":
            found += _judge(name, base, wanted)
    return found


def effective(base: TenantConfig, own: TenantConfig | None) -> TenantConfig:
    """What holds: the operator's page, narrowed and completed by the tenant's own configuration where there is a newer one."""
    if own is None or own.version <= base.version:
        return base
    parts: dict[str, Any] = {name: getattr(own, name) for name in OWN} | {"version": own.version}
    for name in NARROWED_SETS:
        parts[name] = _common(getattr(own, name), getattr(base, name))
    for name, fields in NARROWED_NUMBERS.items():
        ours, theirs = getattr(base, name), getattr(own, name)
        parts[name] = ours.model_copy(update={f: min(getattr(ours, f), getattr(theirs, f)) for f in fields})
    stricter = max(base.planner.self_critique, own.planner.self_critique, key=_CRITIQUE.index)
    parts["planner"] = parts["planner"].model_copy(update={"self_critique": stricter})
    parts["retention"] = parts["retention"].model_copy(update=_holds(base.retention, own.retention))
    parts["status"] = "suspended" if "suspended" in (base.status, own.status) else "active"
    parts["regions"] = _regions(base, own)
    parts["enabled_playbooks"] = _playbooks(base, own)
    parts["models"] = _models(base, own)
    parts["answer"] = own.answer.model_copy(
        update={"link_hosts": _common(own.answer.link_hosts, base.answer.link_hosts)}
    )
    parts["personal_data"] = _personal_data(base, own)
    return base.model_copy(update=parts)


def _personal_data(base: TenantConfig, own: TenantConfig) -> PersonalDataRules:
    """Looked through when either says so, for what either names: the operator's silence is no permission to stop."""
    ours, theirs = base.personal_data, own.personal_data
    if "off" in (ours.detect, theirs.detect):
        return ours if theirs.detect == "off" and ours.detect == "outgoing" else theirs
    return PersonalDataRules(detect="outgoing", types=tuple(dict.fromkeys((*theirs.types, *ours.types))))


def _common(own: tuple[str, ...], base: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(value for value in own if value in base)


def _holds(base: RetentionRules, own: RetentionRules) -> dict[str, Any]:
    """Holds add up: neither side lifts the other's."""
    runs = tuple(dict.fromkeys((*base.held_runs, *own.held_runs)))
    return {"legal_hold": base.legal_hold or own.legal_hold, "held_runs": runs}


def _permitted_regions(config: TenantConfig) -> tuple[str, ...]:
    return config.regions or (config.region,)


def _regions(base: TenantConfig, own: TenantConfig) -> tuple[str, ...]:
    permitted, wanted = _permitted_regions(base), own.regions or (base.region,)
    if ANY_REGION in permitted:
        return own.regions
    return _common(wanted, (*permitted, _NO_REGION)) or (_NO_REGION,)


def _playbooks(base: TenantConfig, own: TenantConfig) -> tuple[str, ...] | None:
    if base.enabled_playbooks is None:
        return own.enabled_playbooks
    return (
        base.enabled_playbooks
        if own.enabled_playbooks is None
        else _common(own.enabled_playbooks, base.enabled_playbooks)
    )


def _models(base: TenantConfig, own: TenantConfig) -> ModelChoice:
    chosen = {}
    for work in ModelChoice.model_fields:
        ours = getattr(base.models, work)
        # Nothing left of the choice: an empty list would mean the platform's defaults, which are the operator's to give.
        chosen[work] = _common(getattr(own.models, work), ours) or ours
    return ModelChoice(**chosen)


def _judge(name: str, base: TenantConfig, wanted: TenantConfig) -> list[Violation]:
    if name in NARROWED_SETS:
        return _outside(f"/{name}", getattr(wanted, name), getattr(base, name))
    if name in NARROWED_NUMBERS:
        return _numbers(name, base, wanted)
    judge = _JUDGES.get(name)
    if judge is not None:
        return judge(base, wanted)
    return [] if getattr(base, name) == getattr(wanted, name) else [_operator_only(f"/{name}")]


def _numbers(name: str, base: TenantConfig, wanted: TenantConfig) -> list[Violation]:
    ours, theirs, found = getattr(base, name), getattr(wanted, name), []
    for field in type(ours).model_fields:
        given, asked = getattr(ours, field), getattr(theirs, field)
        if field in NARROWED_NUMBERS[name]:
            found += [_widens(f"/{name}/{field}")] if asked > given else []
        elif field == "self_critique":
            found += [_widens(f"/{name}/{field}")] if _CRITIQUE.index(asked) < _CRITIQUE.index(given) else []
        elif field == "legal_hold":
            found += [_operator_only(f"/{name}/{field}")] if given and not asked else []
        elif field == "held_runs":
            found += [_operator_only(f"/{name}/{field}")] if not set(given) <= set(asked) else []
        elif asked != given:
            found.append(_operator_only(f"/{name}/{field}"))
    return found


def _outside(pointer: str, wanted: tuple[str, ...], allowed: tuple[str, ...]) -> list[Violation]:
    return [_widens(f"{pointer}/{index}") for index, value in enumerate(wanted) if value not in allowed]


def _judge_status(base: TenantConfig, wanted: TenantConfig) -> list[Violation]:
    return [_operator_only("/status")] if base.status == "suspended" and wanted.status == "active" else []


def _judge_regions(base: TenantConfig, wanted: TenantConfig) -> list[Violation]:
    permitted = _permitted_regions(base)
    if ANY_REGION in permitted:
        return []
    if not wanted.regions and base.region not in permitted:
        return [_widens("/regions")]
    return _outside("/regions", wanted.regions, (*permitted, _NO_REGION))


def _judge_playbooks(base: TenantConfig, wanted: TenantConfig) -> list[Violation]:
    if base.enabled_playbooks is None:
        return []
    if wanted.enabled_playbooks is None:
        return [_widens("/enabled_playbooks")]
    return _outside("/enabled_playbooks", wanted.enabled_playbooks, base.enabled_playbooks)


def _judge_models(base: TenantConfig, wanted: TenantConfig) -> list[Violation]:
    found: list[Violation] = []
    for work in ModelChoice.model_fields:
        ours, theirs = getattr(base.models, work), getattr(wanted.models, work)
        if ours and not theirs:
            found.append(_widens(f"/models/{work}"))
        found += _outside(f"/models/{work}", theirs, ours)
    return found


def _judge_answer(base: TenantConfig, wanted: TenantConfig) -> list[Violation]:
    return _outside("/answer/link_hosts", wanted.answer.link_hosts, base.answer.link_hosts)


def _judge_personal_data(base: TenantConfig, wanted: TenantConfig) -> list[Violation]:
    ours, theirs = base.personal_data, wanted.personal_data
    if ours.detect == "off":
        return []
    found = [_widens("/personal_data/detect")] if theirs.detect == "off" else []
    return found + ([] if set(ours.types) <= set(theirs.types) else [_widens("/personal_data/types")])


_JUDGES: Mapping[str, Callable[[TenantConfig, TenantConfig], list[Violation]]] = {
    "status": _judge_status,
    "regions": _judge_regions,
    "enabled_playbooks": _judge_playbooks,
    "models": _judge_models,
    "answer": _judge_answer,
    "personal_data": _judge_personal_data,
}


def _operator_only(pointer: str) -> Violation:
    return Violation(
        code="tenant.operator_only", pointer=pointer, message="only the platform's operator may change this"
    )


def _widens(pointer: str) -> Violation:
    return Violation(
        code="tenant.widens", pointer=pointer, message="goes beyond what the platform's operator gives this tenant"
    )

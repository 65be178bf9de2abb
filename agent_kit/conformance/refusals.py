"""Calls that an agent must refuse: each is a good call but for one thing. After each the agent must know of no execution."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from agent_kit.authority import signed_with_public_key, unsigned
from agent_kit.conformance.client import Caller, Sending
from engine.domain.execute import MAX_REQUEST_BYTES, ExecuteRequest


@dataclass(frozen=True, slots=True)
class Refusal:
    """``make`` spoils a good call; the answer must have one of the statuses."""

    name: str
    statuses: frozenset[int]
    make: Callable[[Caller, Sending], Sending]


def _refusal(name: str, statuses: str, make: Callable[[Caller, Sending], Sending]) -> Refusal:
    return Refusal(name, frozenset(int(one) for one in statuses.split()), make)


def _granted(caller: Caller, good: Sending, **other: object) -> Sending:
    """The grant of another call."""
    return good.but(grant=caller.grant(good.request.model_copy(update=other)))


def _other_inputs(request: ExecuteRequest) -> dict[str, object]:
    return {"inputs": {**request.inputs, "altered": True}}


def _body(good: Sending, **changes: object) -> bytes:
    return json.dumps(json.loads(good.request.model_dump_json()) | changes).encode()


def _signed_for(caller: Caller, good: Sending, **other: object) -> Sending:
    """A good grant for a request that is itself not acceptable."""
    spoilt = good.request.model_copy(update=other)
    return caller.good(spoilt)


_EXPIRED = {"iat": int(time.time()) - 7_200, "nbf": int(time.time()) - 7_200, "exp": int(time.time()) - 3_600}
_LATE = datetime.now(UTC) - timedelta(hours=1)
_STEP = ("fabrikam-conformance", "another-run", "another-step")

REFUSALS = (
    # Who calls.
    _refusal("who.no_token", "401", lambda c, g: g.but(token=None)),
    _refusal("who.garbage", "401", lambda c, g: g.but(token="garbage")),  # noqa: S106 - not a secret
    _refusal("who.wrong_audience", "401 403", lambda c, g: g.but(token=c.authority.token(audience="api://others"))),
    _refusal("who.expired_token", "401", lambda c, g: g.but(token=c.authority.token(audience=c.audience, **_EXPIRED))),
    _refusal("who.foreign_key", "401", lambda c, g: g.but(token=c.authority.strange().token(audience=c.audience))),
    _refusal("who.foreign_issuer", "401", lambda c, g: g.but(token=c.authority.token(audience=c.audience, iss="x"))),
    _refusal(
        "who.user_token",
        "401 403",
        lambda c, g: g.but(token=c.authority.token(audience=c.audience, idtyp="user", scp="access_as_user")),
    ),
    _refusal("who.no_role", "401 403", lambda c, g: g.but(token=c.authority.token(audience=c.audience, roles=["X"]))),
    _refusal("who.unsigned", "401", lambda c, g: g.but(token=unsigned(g.token or ""))),
    _refusal(
        "who.confused_algorithm",
        "401",
        lambda c, g: g.but(token=signed_with_public_key(g.token or "", c.authority.public_pems()[0])),
    ),
    # What may be done.
    _refusal("what.no_grant", "403", lambda c, g: g.but(grant=None)),
    _refusal("what.garbage", "403", lambda c, g: g.but(grant="a.b.c")),
    _refusal("what.token_as_grant", "403", lambda c, g: g.but(grant=g.token)),
    _refusal("what.foreign_key", "403", lambda c, g: g.but(grant=c.authority.strange().grant(g.request))),
    _refusal("what.unsigned", "403", lambda c, g: g.but(grant=unsigned(g.grant or ""))),
    _refusal(
        "what.confused_algorithm",
        "403",
        lambda c, g: g.but(grant=signed_with_public_key(g.grant or "", c.authority.public_pems()[1])),
    ),
    _refusal("what.other_type", "403", lambda c, g: g.but(grant=c.grant(g.request, typ="JWT"))),
    _refusal(
        "what.expired",
        "403",
        lambda c, g: g.but(grant=c.grant(g.request, iat=_EXPIRED["iat"], exp=_EXPIRED["iat"] + 60)),
    ),
    _refusal("what.wrong_audience", "403", lambda c, g: g.but(grant=c.grant(g.request, aud="api://others"))),
    _refusal("what.unbounded", "403", lambda c, g: g.but(grant=c.grant(g.request, exp=int(time.time()) + 86_400))),
    _refusal("what.other_tenant", "403", lambda c, g: _granted(c, g, tenant_id=_STEP[0])),
    _refusal("what.other_run", "403", lambda c, g: _granted(c, g, run_id=_STEP[1])),
    _refusal("what.other_step", "403", lambda c, g: _granted(c, g, step_id=_STEP[2])),
    _refusal("what.other_item", "403", lambda c, g: _granted(c, g, item=7)),
    _refusal("what.other_attempt", "403", lambda c, g: _granted(c, g, attempt=2)),
    _refusal("what.other_action", "403", lambda c, g: _granted(c, g, capability="another.action")),
    _refusal("what.other_plan", "403", lambda c, g: _granted(c, g, plan_hash="f" * 64)),
    _refusal("what.other_key", "403", lambda c, g: _granted(c, g, idempotency_key="another/key")),
    _refusal("what.altered_inputs", "403", lambda c, g: _granted(c, g, **_other_inputs(g.request))),
    # Form and content.
    _refusal("form.no_json", "400", lambda c, g: g.but(body=b"{")),
    _refusal("form.duplicate_member", "400", lambda c, g: g.but(body=b'{"a": 1, "a": 2}')),
    _refusal("form.nested_deeply", "400 413", lambda c, g: g.but(body=b"[" * 5_000 + b"]" * 5_000)),
    _refusal("form.unknown_member", "400 422", lambda c, g: g.but(body=_body(g, surprise=1))),
    _refusal("form.key_of_header", "422", lambda c, g: g.but(headers={"Idempotency-Key": "another/key"})),
    _refusal("form.media_type", "415", lambda c, g: g.but(headers={"Content-Type": "text/plain"})),
    _refusal("form.too_large", "413", lambda c, g: g.but(body=_body(g, padding="x" * MAX_REQUEST_BYTES))),
    _refusal("form.unknown_capability", "404", lambda c, g: _signed_for(c, g, capability="conformance.unheard_of")),
    _refusal("form.wrong_inputs", "422", lambda c, g: _signed_for(c, g, inputs={"conformance": {"surprise": []}})),
    _refusal("form.deadline_passed", "408", lambda c, g: _signed_for(c, g, deadline_at=_LATE)),
)

"""The verified caller. Made by engine.identity from a token whose signature, issuer, audience and times were checked."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from engine.domain.base import Frozen, UtcDatetime
from engine.domain.ids import WireId


class Role(StrEnum):
    """App roles as they stand in the token's ``roles`` claim."""

    RUNS_SUBMIT = "Runs.Submit"
    RUNS_READ = "Runs.Read"
    RUNS_APPROVE = "Runs.Approve"
    RUNS_ERASE = "Runs.Erase"
    POLICIES_ADMIN = "Policies.Admin"
    TENANTS_ADMIN = "Tenants.Admin"
    AUDIT_READ = "Audit.Read"
    AGENT_EXECUTE = "Agent.Execute"


class Principal(Frozen):
    """Who calls, for which tenant, with which roles. The token itself is not kept.

    ``subject`` is ``{tid}:{oid}`` of the token: the only stable key of a person or app. ``actor_chain`` lists who acts on
    whose behalf, outermost first; today it holds the client app only.
    """

    tenant_id: WireId
    subject: str = Field(min_length=1, max_length=200)
    kind: Literal["user", "app"]
    client_app: str = Field(max_length=100)
    roles: frozenset[Role] = frozenset()
    scopes: frozenset[str] = frozenset()
    actor_chain: tuple[str, ...] = ()
    groups_known: bool = True
    token_id: str = Field(default="", max_length=200)
    authenticated_at: UtcDatetime | None = None

    def has(self, role: Role) -> bool:
        """True when the token carried ``role``."""
        return role in self.roles

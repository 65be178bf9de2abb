"""The bearer token of a call: LIVOA_TOKEN, or a development token minted here for hosts on this machine.

Deliberately no cache on disk: minting takes milliseconds, and a token that is not stored cannot leak.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cli.errors import CliError
from cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from engine.identity.development import DevelopmentIssuer

DEFAULT_TENANT = "contoso"
DEFAULT_USER = "ana"
DEFAULT_ROLES = ("Runs.Submit", "Runs.Read")
ALL_ROLES = (
    "Runs.Submit", "Runs.Read", "Runs.Approve", "Runs.Erase", "Policies.Admin", "Tenants.Admin", "Audit.Read",
    "Agent.Execute",
)  # fmt: skip
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class _SystemClock:
    """The `Clock` port; the adapters' one lies in a package that loads more than this needs."""

    def now(self) -> datetime:
        return datetime.now(UTC)


def open_issuer(data: Path) -> DevelopmentIssuer:
    """The development issuer whose key pair is in ``data``; makes the pair when there is none.

    Raises CliError (FORBIDDEN) where a development issuer is not allowed or its key cannot be used.
    """
    from engine.domain.errors import LivoaError
    from engine.identity.development import DevelopmentIssuer

    try:
        return DevelopmentIssuer.open(data, _SystemClock(), environment=os.environ.get("LIVOA_ENV") or "local")
    except LivoaError as err:
        raise CliError(str(err), exit_code=ExitCode.FORBIDDEN, code=err.code) from err
    except OSError as err:
        raise CliError(
            f"the development key in {data} cannot be read or written: {err.strerror}",
            hint="choose another folder with LIVOA_HOME, or set LIVOA_TOKEN",
            exit_code=ExitCode.FORBIDDEN,
            code="cli.no_token",
        ) from err


def mint(
    data: Path, tenant: str, user: str, roles: Sequence[str], *, audience: str = "", lifetime_s: int = 3600
) -> str:
    """A development token; it passes the validation every token passes. Raises CliError as ``open_issuer`` does."""
    from engine.bootstrap.settings import API_AUDIENCE
    from engine.domain.errors import LivoaError
    from engine.domain.principal import Role

    wanted = audience or os.environ.get("LIVOA_API_AUDIENCE") or API_AUDIENCE
    issuer = open_issuer(data)
    try:
        return issuer.mint(tenant, user, [Role(role) for role in roles], audience=wanted, lifetime_s=lifetime_s)
    except LivoaError as err:
        raise CliError(str(err), exit_code=ExitCode.USAGE, code=err.code) from err


def bearer_for(url: str, data: Path, tenant: str | None, user: str | None, roles: Sequence[str] = DEFAULT_ROLES) -> str:
    """The token to call ``url`` with; ``roles`` are those of a development token.

    Raises CliError (FORBIDDEN) for a host elsewhere without LIVOA_TOKEN: a development token would be worth nothing there.
    """
    token = os.environ.get("LIVOA_TOKEN", "").strip()
    if token:
        return token
    if urlsplit(url).hostname not in _LOOPBACK:
        raise CliError(
            f"no token for {url}",
            hint="set LIVOA_TOKEN to an access token of your directory, for instance from: "
            "az account get-access-token --scope api://…/.default --query accessToken -o tsv",
            exit_code=ExitCode.FORBIDDEN,
            code="cli.no_token",
        )
    return mint(data, tenant or DEFAULT_TENANT, user or DEFAULT_USER, roles)

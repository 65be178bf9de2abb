"""`./livoa token`: a development token, for curl and for trying roles and tenants."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.output import print_json
from cli.paths import home, known_tenants
from cli.tokens import ALL_ROLES, DEFAULT_ROLES, DEFAULT_TENANT, DEFAULT_USER, mint

EXAMPLE = """
  ./livoa token --tenant contoso --user ana --role Runs.Submit --role Runs.Read
  curl -H "Authorization: Bearer $(./livoa token)" http://127.0.0.1:7071/api/runs

The token is signed with the key pair in LIVOA_HOME and valid only for a host that runs there with LIVOA_ENV=local.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `token`."""
    parser.add_argument("--tenant", default=DEFAULT_TENANT, help=f"tenant to speak for ({DEFAULT_TENANT})")
    parser.add_argument("--any-tenant", action="store_true", help="also a tenant that the catalog does not have: every host with "
                        "that catalog refuses the token (auth.tenant_unknown)")  # fmt: skip
    parser.add_argument("--user", default=DEFAULT_USER, help=f"user name ({DEFAULT_USER})")
    parser.add_argument("--role", action="append", choices=ALL_ROLES, metavar="ROLE",
                        help=f"app role, repeatable: {', '.join(ALL_ROLES)} (default: {', '.join(DEFAULT_ROLES)})")  # fmt: skip
    parser.add_argument("--lifetime", type=int, default=3600, metavar="SECONDS", help="validity, at most a day (3600)")
    parser.add_argument("--audience", default="", help="audience, when not that of the API")
    parser.add_argument("--data", type=Path, help="folder of the host (default: LIVOA_HOME, else .livoa)")


def run(options: argparse.Namespace) -> ExitCode:
    """Print the token: the bare text, or `{token, tenant, user, roles, expires_in_s}`."""
    roles = options.role or list(DEFAULT_ROLES)
    known = known_tenants()
    if options.tenant not in known and not options.any_tenant:
        raise CliError(
            f"the catalog has no tenant {options.tenant!r}",
            hint=f"one of {', '.join(known) or 'none: is LIVOA_CATALOG right?'}; --any-tenant mints it all the same",
            exit_code=ExitCode.USAGE,
            code="cli.tenant",
        )
    token = mint(
        home(options.data), options.tenant, options.user, roles, audience=options.audience, lifetime_s=options.lifetime
    )
    if options.json:
        facts = {"tenant": options.tenant, "user": options.user, "roles": roles, "expires_in_s": options.lifetime}
        print_json({"token": token, **facts})
    else:
        sys.stdout.write(token + "\n")
    return ExitCode.OK

"""`./livoa plan check`: every fault of a plan at once, offline."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.output import print_json, progress, say
from cli.paths import ROOT
from cli.tokens import DEFAULT_TENANT

if TYPE_CHECKING:
    from engine.plan import CheckResult

EXAMPLE = """
  ./livoa plan check my-plan.json --tenant contoso
  ./livoa plan check - --json < my-plan.json
      {"ok": true, "errors": [], "steps": 4, "edges": 5, "critical_path": ["spend", "mmm"], "plan_hash": "…", …}

Exit code 0 for a plan that may go on to policy, 1 for one with errors. Needs no host and no token.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `plan check`."""
    parser.add_argument("action", choices=["check"], help="the one thing to do with a plan so far")
    parser.add_argument("file", help="the plan as JSON; - reads standard input")
    parser.add_argument(
        "--tenant", default=DEFAULT_TENANT, help=f"whose capabilities and bounds count ({DEFAULT_TENANT})"
    )
    parser.add_argument("--catalog", type=Path, default=ROOT / "catalog", help="folder of the catalog")


def run(options: argparse.Namespace) -> ExitCode:
    """Check and print."""
    document = _read(options.file)
    result = asyncio.run(_check(document, options.tenant, options.catalog))
    if options.json:
        print_json(result.to_json())
    else:
        _show(result)
    return ExitCode.OK if result.ok else ExitCode.FAILED


def _read(name: str) -> bytes:
    from engine.domain.tenant import PLATFORM_MAX_PLAN_BYTES

    # One byte more than a plan may have is enough for the check to say so; a larger file is not worth reading.
    try:
        if name == "-":
            return sys.stdin.buffer.read(PLATFORM_MAX_PLAN_BYTES + 1)
        with Path(name).open("rb") as file:
            return file.read(PLATFORM_MAX_PLAN_BYTES + 1)
    except OSError as err:
        raise CliError(f"cannot read {name}: {err.strerror}", exit_code=ExitCode.USAGE, code="cli.file") from err


async def _check(document: bytes, tenant_id: str, catalog_dir: Path) -> CheckResult:
    from engine.adapters.files import FilesCatalog, FilesTenantDirectory
    from engine.adapters.memory import SystemClock
    from engine.domain.errors import LivoaError
    from engine.plan import check_plan

    try:
        tenants = FilesTenantDirectory(catalog_dir, SystemClock())
        tenant = await tenants.get(tenant_id)
        if tenant is None:
            known = ", ".join(sorted(found.tenant_id for found in await tenants.all()))
            raise CliError(
                f"there is no tenant {tenant_id!r}", hint=f"one of {known}", exit_code=ExitCode.USAGE, code="cli.tenant"
            )
        return check_plan(document, tenant=tenant, catalog=FilesCatalog(catalog_dir))
    except LivoaError as err:
        raise CliError(str(err), hint=f"mend the catalog in {catalog_dir}", code=err.code) from err


def _show(result: CheckResult) -> None:
    for mark, findings in (("error", result.violations), ("note", result.warnings)):
        for found in findings:
            say(f"{mark}  {found.pointer or '/'}  {found.code}\n       {found.message}")
    facts: dict[str, Any] = {"steps": result.steps, "edges": result.edges}
    if result.critical_path:
        facts["critical path"] = " → ".join(result.critical_path) + f" ({result.critical_path_s:.0f} s expected)"
    if result.plan_hash:
        facts["plan hash"] = result.plan_hash
    for name, value in facts.items():
        say(f"{name}: {value}")
    if result.ok:
        say("ok")
        return
    count = len(result.violations)
    say(f"{count} error{'' if count == 1 else 's'}")
    progress(f"Next: mend {'it' if count == 1 else 'them'} and check again")

"""`./livoa plan`: the plan for an intent, without running it; and `plan check`: every fault of a plan at once, offline."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.commands.run import INTENT_HELP, add_request_options, request_of
from cli.connection import add_options, connect
from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.output import human_console, print_json, progress, say
from cli.paths import ROOT
from cli.tokens import DEFAULT_TENANT

if TYPE_CHECKING:
    from engine.plan import CheckResult

EXAMPLE = """
  ./livoa plan "Why did sales fall in Q3?" --tenant contoso
  ./livoa plan "Mail the Q3 report to finance@contoso.example" --json
      {"ok": true, "plan": …, "decision": {"verdict": "allow", "approvals": ["send"], …}, "planner": {"source": "model", …}, …}
  ./livoa plan check my-plan.json --tenant contoso
  ./livoa plan check - --json < my-plan.json
      {"ok": true, "errors": [], "steps": 4, "edges": 5, "critical_path": ["spend", "mmm"], "plan_hash": "…", …}

Exit code 0 for a plan that may run (perhaps after approvals), 1 for one with errors, that policy denies, or for no plan at all.
For an intent the host plans, which may ask models; `plan check` needs no host, no token, and looks at no policy.
"""
_CHECK = "check"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `plan` and `plan check`."""
    parser.add_argument("intent", help=f"{INTENT_HELP}; or the word {_CHECK}")
    parser.add_argument("file", nargs="?", help=f"with {_CHECK}: the plan as JSON; - reads standard input")
    parser.add_argument("--catalog", type=Path, default=ROOT / "catalog", help=f"with {_CHECK}: folder of the catalog")
    add_request_options(parser)
    add_options(parser)


def run(options: argparse.Namespace) -> ExitCode:
    """Plan or check, and print."""
    if options.file is None:
        return _plan(options)
    if options.intent != _CHECK:
        raise CliError("an intent is one argument", hint="put it in quotes", exit_code=ExitCode.USAGE, code="cli.usage")
    document = _read(options.file)
    result = asyncio.run(_check(document, options.tenant or DEFAULT_TENANT, options.catalog))
    if options.json:
        print_json(result.to_json())
    else:
        _show(result)
    return ExitCode.OK if result.ok else ExitCode.FAILED


def _plan(options: argparse.Namespace) -> ExitCode:
    """The plan for an intent, as the host would make it."""
    if options.intent == _CHECK:
        raise CliError("which plan?", hint="./livoa plan check FILE", exit_code=ExitCode.USAGE, code="cli.usage")
    preview = connect(options).preview_plan(request_of(options))
    if options.json:
        print_json(preview)
    else:
        _show_preview(preview)
    verdict = (preview.get("decision") or {}).get("verdict")
    return ExitCode.OK if preview["ok"] and verdict not in (None, "deny") else ExitCode.FAILED


def _show_preview(preview: dict[str, Any]) -> None:
    from cli.render.previews import preview_lines
    from cli.render.views import plan_tree

    if preview.get("plan"):
        human_console().print(plan_tree(preview["plan"], preview["plan_hash"]))
    for line in preview_lines(preview):
        say(line)


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

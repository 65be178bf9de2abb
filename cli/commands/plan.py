"""`./livoa plan`: the plan for an intent, without running it; and `plan check`: its faults and its verdicts at once, offline."""

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
    from engine.domain.policy import PlanPolicyDecision
    from engine.domain.run import RunConstraints
    from engine.plan import CheckResult

EXAMPLE = """
  ./livoa plan "Why did sales fall in Q3?" --tenant contoso
  ./livoa plan "Mail the Q3 report to finance@contoso.example" --json
      {"ok": true, "plan": …, "decision": {"verdict": "allow", "approvals": ["send"], …}, "planner": {"source": "model", …}, …}
  ./livoa plan check my-plan.json --tenant contoso
  ./livoa plan check - --json < my-plan.json
      {"ok": true, "errors": [], "steps": 4, "edges": 5, "critical_path": ["spend", "mmm"], "plan_hash": "…", …}

Exit code 0 for a plan that may run (perhaps after approvals), 1 for one with errors, that policy denies, or for no plan at all.
For an intent the host plans, which may ask models; `plan check` needs no host and no token. It judges as the engine does: the
checks first, then the policies of the catalog, with the way through the graph that a policy objects to and what would cure it.
"""
_CHECK = "check"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `plan` and `plan check`."""
    parser.add_argument("intent", help=f"{INTENT_HELP}; or the word {_CHECK}")
    parser.add_argument("file", nargs="?", help=f"with {_CHECK}: the plan as JSON; - reads standard input")
    parser.add_argument("--catalog", type=Path, default=ROOT / "catalog", help=f"with {_CHECK}: folder of the catalog")
    parser.add_argument("-v", "--verbose", action="store_true", help="every note, also of edges that references imply")
    add_request_options(parser)
    add_options(parser)


def run(options: argparse.Namespace) -> ExitCode:
    """Plan or check, and print."""
    if options.file is None:
        return _plan(options)
    if options.intent != _CHECK:
        raise CliError("an intent is one argument", hint="put it in quotes", exit_code=ExitCode.USAGE, code="cli.usage")
    constraints = _constraints_of(options)
    document = _read(options.file)
    result, decision = _judge(document, options.tenant or DEFAULT_TENANT, options.catalog, constraints)
    denied = decision is not None and decision.verdict.value == "deny"
    if options.json:
        judged = {"decision": decision.model_dump(mode="json")} if decision is not None else {}
        print_json(result.to_json() | judged | {"ok": result.ok and not denied})
    else:
        _show(result, verbose=options.verbose)
        if decision is not None:
            _show_decision(decision)
    return ExitCode.OK if result.ok and not denied else ExitCode.FAILED


def _plan(options: argparse.Namespace) -> ExitCode:
    """The plan for an intent, as the host would make it."""
    if options.intent == _CHECK:
        raise CliError("which plan?", hint="./livoa plan check FILE", exit_code=ExitCode.USAGE, code="cli.usage")
    preview = connect(options).preview_plan(request_of(options))
    if options.json:
        print_json(preview)
    else:
        _show_preview(preview, verbose=options.verbose)
    verdict = (preview.get("decision") or {}).get("verdict")
    return ExitCode.OK if preview["ok"] and verdict not in (None, "deny") else ExitCode.FAILED


def _show_preview(preview: dict[str, Any], *, verbose: bool) -> None:
    from cli.render.previews import preview_lines
    from cli.render.views import plan_tree

    if preview.get("plan"):
        human_console().print(plan_tree(preview["plan"], preview["plan_hash"]))
    for line in preview_lines(preview, verbose=verbose):
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


def _constraints_of(options: argparse.Namespace) -> RunConstraints:
    """What the run would be asked to keep to. Raises CliError (USAGE) for what a plan of one's own has no use for."""
    from pydantic import ValidationError

    from engine.domain.run import RunConstraints

    for name in ("goal", "value", "document"):
        if getattr(options, name):
            raise CliError(f"`plan {_CHECK}` takes no --{name}", exit_code=ExitCode.USAGE, code="cli.usage")
    try:
        return RunConstraints(max_steps=options.max_steps, deadline_s=options.deadline)
    except ValidationError as err:
        message = "--max-steps and --deadline must be more than 0"
        raise CliError(message, exit_code=ExitCode.USAGE, code="cli.usage") from err


def _judge(
    document: bytes, tenant_id: str, catalog_dir: Path, constraints: RunConstraints
) -> tuple[CheckResult, PlanPolicyDecision | None]:
    """What the checks and the policies say, by the engine's own code. No decision on a plan with errors."""
    from cli.policy_desk import Desk
    from engine.domain.errors import LivoaError

    try:
        return asyncio.run(Desk(catalog_dir).plan(document, tenant_id, constraints))
    except LivoaError as err:
        raise CliError(str(err), hint=f"mend the catalog in {catalog_dir}", code=err.code) from err


def _show(result: CheckResult, *, verbose: bool) -> None:
    from cli.render.previews import notes_of

    notes, summary = notes_of([note.model_dump() for note in result.warnings], verbose=verbose)
    for mark, findings in (("error", [found.model_dump() for found in result.violations]), ("note", notes)):
        for found in findings:
            say(f"{mark}  {found['pointer'] or '/'}  {found['code']}\n       {found['message']}")
    if summary:
        say(summary)
    # Of what is no plan at all there is nothing to count.
    facts: dict[str, Any] = {"steps": result.steps, "edges": result.edges} if result.steps else {}
    if result.critical_path:
        facts["critical path"] = " → ".join(result.critical_path) + f" ({result.critical_path_s:.0f} s expected)"
    if result.plan_hash:
        facts["plan hash"] = result.plan_hash
    for name, value in facts.items():
        say(f"{name}: {value}")
    if result.ok:
        say("checks: ok")
        return
    count = len(result.violations)
    say(f"{count} error{'' if count == 1 else 's'}")
    progress(f"Next: mend {'it' if count == 1 else 'them'} and check again")


def _show_decision(decision: PlanPolicyDecision) -> None:
    """What would happen: the verdict on the plan and on each of its steps, the ways through the graph, the cures."""
    kinds = [one.verdict.value for one in decision.steps.values()]
    told = {"escalate": "waiting for approval", "transform": "redacted first", "deferred": "decided when they are due"}
    later = [f"steps {words}: {kinds.count(kind)}" for kind, words in told.items() if kind in kinds]
    say("; ".join([f"policy: {decision.verdict.value}", *later]) + f" (policy set {decision.policy_set_hash[:12]})")
    for reason in dict.fromkeys(decision.reasons):
        say(f"      {reason}")
    for step_id, one in decision.steps.items():
        cures = ", ".join(f"{cure.kind} {cure.detail}".strip() for cure in one.cures)
        say(f"  step {step_id}: {one.verdict.value}" + (f", cured by {cures}" if cures else ""))
        for reason in one.reasons:
            if reason not in decision.reasons:
                say(f"      {reason}")

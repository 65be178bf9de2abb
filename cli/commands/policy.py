"""`./livoa policy`: try the policies of the catalog offline: golden requests, a linter with its effect, and the schema."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.output import print_json, say
from cli.paths import ROOT

if TYPE_CHECKING:
    from cli.policy_desk import Change, Desk, Tried
    from engine.domain.errors import Violation

EXAMPLE = """
  ./livoa policy test                                   every golden request of every tenant
  ./livoa policy test --tenant contoso --json
  ./livoa policy lint draft.cedar --tenant contoso      what is wrong with it, and what it would decide otherwise
  ./livoa policy lint catalog/policies/platform/taint.cedar
  ./livoa policy schema                                 everything a policy may look at

Exit code 0 when all is as expected, 1 when not. Needs no host and no token.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `policy`."""
    parser.add_argument("action", choices=["test", "lint", "schema"], help="what to do")
    parser.add_argument("file", nargs="?", type=Path, help="the Cedar file to lint")
    parser.add_argument("--tenant", help="only this tenant's golden requests; for lint: whose policy the file is")
    parser.add_argument("--catalog", type=Path, default=ROOT / "catalog", help="folder of the catalog")


def run(options: argparse.Namespace) -> ExitCode:
    """Try and print."""
    from cli.policy_desk import Desk
    from engine.domain.errors import LivoaError

    if (options.action == "lint") != (options.file is not None):
        raise CliError("lint takes one file, the others none", exit_code=ExitCode.USAGE, code="cli.usage")
    try:
        desk = Desk(options.catalog)
        match options.action:
            case "test":
                return _test(asyncio.run(desk.test(options.tenant)), as_json=options.json)
            case "lint":
                return _lint(desk, options)
            case _:
                return _schema(desk, as_json=options.json)
    except LivoaError as err:
        if options.json:
            print_json({"ok": False, "code": err.code, "errors": _errors(err.violations)})
            return ExitCode.FAILED
        _show_errors(err.violations)
        raise CliError(str(err), hint=f"mend the files in {options.catalog / 'policies'}", code=err.code) from err


def _test(tried: list[Tried], *, as_json: bool) -> ExitCode:
    failed = [(one, result) for one in tried for result in one.results if not result.as_expected]
    count = sum(len(one.results) for one in tried)
    if as_json:
        requests = [
            {
                "tenant": one.tenant_id,
                "page": result.page,
                "name": result.request.name,
                "ok": result.as_expected,
                "verdict": result.decision.verdict.value,
                "expected": result.request.expect.verdict.value,
                "policies": list(result.decision.policy_ids),
            }
            for one in tried
            for result in one.results
        ]
        sets = {one.tenant_id: one.set_hash for one in tried}
        print_json({"ok": not failed, "requests": requests, "policy_sets": sets})
        return ExitCode.FAILED if failed else ExitCode.OK
    for one, result in failed:
        expect = result.request.expect
        wanted = expect.verdict.value + (f" by {', '.join(expect.policies)}" if expect.policies else "")
        got = f"{result.decision.verdict.value} by {', '.join(result.decision.policy_ids) or 'no policy'}"
        say(f"FAIL  {one.tenant_id} · {result.page} · {result.request.name}\n      expected {wanted}; got {got}")
        for reason in result.decision.reasons:
            say(f"      {reason}")
    for one in tried:
        good = sum(result.as_expected for result in one.results)
        say(f"{one.tenant_id}: {good} of {len(one.results)} as expected, policy set {one.set_hash[:12]}")
    say(f"{count - len(failed)} of {count} golden requests as expected")
    return ExitCode.FAILED if failed else ExitCode.OK


def _lint(desk: Desk, options: argparse.Namespace) -> ExitCode:
    findings, changes = asyncio.run(desk.lint(options.file, options.tenant))
    if options.json:
        body: dict[str, Any] = {"ok": not findings, "errors": _errors(findings)}
        body["changes"] = [_change(change) for change in changes]
        print_json(body)
    else:
        _show_errors(findings)
        for change in changes:
            say(f"changed  {change.tenant_id} · {change.name}\n         {change.before} → {change.after}")
        if not findings:
            say(f"ok; {len(changes)} golden requests would be decided otherwise")
    return ExitCode.FAILED if findings else ExitCode.OK


def _change(change: Change) -> dict[str, str]:
    return {"tenant": change.tenant_id, "name": change.name, "before": change.before, "after": change.after}


def _schema(desk: Desk, *, as_json: bool) -> ExitCode:
    if as_json:
        print_json({"hash": desk.words.hash, "schema": desk.words.document})
    else:
        say(desk.words.schema.text())
    return ExitCode.OK


def _errors(findings: tuple[Violation, ...]) -> list[dict[str, str]]:
    return [found.model_dump() for found in findings]


def _show_errors(findings: tuple[Violation, ...]) -> None:
    for found in findings:
        say(f"error  {found.pointer or '/'}  {found.code}\n       {found.message}")

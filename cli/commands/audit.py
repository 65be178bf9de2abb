"""`./livoa audit`: the story of a run as its evidence tells it, an export of the chain, and its verification offline."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cli.audit_file import check, head_of
from cli.client import Api
from cli.connection import add_options, connect, run_id_of
from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.output import print_json, progress, say

EXAMPLE = """
  ./livoa audit show last
  ./livoa audit export audit.jsonl                       # prints the head of the chain: keep it somewhere else
  ./livoa audit verify audit.jsonl --head 42:9f86d0…     # offline; exit code 1 says what is wrong, and where
"""
_ROLES = ("Audit.Read", "Runs.Read", "Runs.Submit")
_AUDITOR = "audra"
_SHOWN = ("step", "item", "attempt", "purpose", "capability", "verdict", "status", "code", "answer")


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `audit`."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="show | export | verify")
    show = commands.add_parser("show", help="what is on record about a run, as a story")
    show.add_argument("run_id", help="id of the run, or `last` for the newest")
    export = commands.add_parser("export", help="the tenant's whole chain as JSON lines")
    export.add_argument("file", type=Path, help="where to write it; must not exist")
    verify = commands.add_parser("verify", help="check an exported chain; needs no host")
    verify.add_argument("file", type=Path, help="an export")
    verify.add_argument(
        "--of-tenant", metavar="TENANT", help="whose chain it must be (default: that of its first record)"
    )
    verify.add_argument("--head", metavar="SEQ:HASH", help="a head noted elsewhere, which the chain must contain")
    for each in (show, export, verify):
        each.add_argument("--json", action="store_true", help="print JSON for machines")
    for each in (show, export):
        add_options(each)


def run(options: argparse.Namespace) -> ExitCode:
    """Show, export or verify. Looking is itself recorded."""
    if options.what == "verify":
        return _verify(options)
    api = connect(options, roles=_ROLES, default_user=_AUDITOR)
    return _show(api, options) if options.what == "show" else _export(api, options)


def _show(api: Api, options: argparse.Namespace) -> ExitCode:
    run_id = run_id_of(api, options.run_id)
    records = [record for record in _pages(api, run_id) if record["type"] != "audit.read"]
    if options.json:
        print_json({"run_id": run_id, "records": records})
        return ExitCode.OK
    width = max((len(record["type"]) for record in records), default=0)
    asker = records[0]["actor"] if records else ""
    if records:
        say(f"{run_id} of {records[0]['tenant_id']}, {records[0]['at'][:10]} (UTC), asked for by {_short(asker)}")
    for record in records:
        who = "" if record["actor"] == asker else f"by {_short(record['actor'])}"
        line = f"{record['seq']:>6}  {record['at'][11:23]}  {record['type']:<{width}}  {_words(record)}  {who}"
        say(line.rstrip())
    progress(f"{len(records)} records; every field, hashes included: --json")
    return ExitCode.OK


def _short(actor: str) -> str:
    """The person or app without its directory."""
    return actor.rpartition(":")[2]


def _words(record: dict[str, Any]) -> str:
    """The facts of a record that a person looks for first; hashes stay out."""
    body = record["body"]
    decision = body.get("decision")
    facts = body | ({"verdict": decision["verdict"]} if isinstance(decision, dict) and "verdict" in decision else {})
    return "  ".join(f"{name}={facts[name]}" for name in _SHOWN if facts.get(name) not in (None, "", []))


def _export(api: Api, options: argparse.Namespace) -> ExitCode:
    from engine.domain.audit import AuditRecord

    count, last = 0, None
    try:
        with options.file.open("x", encoding="utf-8") as out:
            for record in _pages(api, None):
                out.write(json.dumps(record, separators=(",", ":"), sort_keys=True) + "\n")
                count, last = count + 1, record
    except OSError as err:
        raise CliError(
            f"cannot write {options.file}: {err.strerror}", exit_code=ExitCode.USAGE, code="cli.file"
        ) from err
    head = f"{last['seq']}:{AuditRecord.model_validate(last).hash}" if last is not None else "0:"
    if options.json:
        print_json({"file": str(options.file), "records": count, "head": head})
    else:
        say(head)
        progress(
            f"{count} records in {options.file}\nKeep the head above somewhere else: with it a cut or rewritten chain is noticed."
        )
    return ExitCode.OK


def _pages(api: Api, run_id: str | None) -> Iterator[dict[str, Any]]:
    after, more = 0, True
    while more:
        page = api.audit(run_id, after)
        yield from page["records"]
        after, more = page["next_after"], page["more"]


def _verify(options: argparse.Namespace) -> ExitCode:
    noted = head_of(options.head) if options.head is not None else None
    findings, head, tenant = check(options.file, options.of_tenant, noted)
    shown = f"{head.seq}:{head.hash}"
    if options.json:
        found = [{"code": f.code, "line": f.line, "message": f.message} for f in findings]
        print_json({"ok": not findings, "tenant": tenant, "head": shown, "findings": found})
    elif findings:
        for finding in findings:
            say(
                f"{finding.code}  line {finding.line}  {finding.message}"
                if finding.line
                else f"{finding.code}  {finding.message}"
            )
    else:
        say(f"sound: {head.seq} records of {tenant}, head {shown}")
        if noted is None:
            progress("Without --head a chain that was cut at its end, or rewritten as a whole, looks sound.")
    return ExitCode.FAILED if findings else ExitCode.OK

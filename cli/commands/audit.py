"""`./livoa audit`: the story of a run as its evidence tells it, an export of the chain, checkpoints, and verification offline."""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO

from cli.audit_file import Checked, Finding, Witness, check, head_of, write_anchors
from cli.audit_story import hashes_of, story
from cli.client import Api
from cli.connection import add_options, connect, run_id_of
from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.output import print_json, progress, say
from cli.paths import home
from cli.people import people_of

EXAMPLE = """
  ./livoa audit show last
  ./livoa audit content last 9f86d081…                   # the prompt, plan or output that a record commits to
  ./livoa audit checkpoint                               # sign and anchor the chain as it stands
  ./livoa audit pubkey > audit.pem                       # the key that checks it: fetch it once, keep it yourself
  ./livoa audit export audit.jsonl --anchors anchors     # with the signed checkpoints; prints the head
  ./livoa audit export - | gzip > audit.jsonl.gz         # the head goes to standard error
  ./livoa audit verify audit.jsonl --anchors anchors --pubkey audit.pem     # offline; 1 says what is wrong, and where
"""
_ROLES = ("Audit.Read", "Runs.Read", "Runs.Submit")
_AUDITOR = "audra"
_WHOLE_HASH = 64
_SHORTEST_HASH = 6


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `audit`."""
    commands = parser.add_subparsers(
        dest="what", required=True, metavar="show | content | export | checkpoint | pubkey | verify"
    )
    show = commands.add_parser("show", help="what is on record about a run, as a story")
    show.add_argument("run_id", help="id of the run, or `last` for the newest")
    content = commands.add_parser("content", help="what a record of a run commits to, by its hash")
    content.add_argument("run_id", help="id of the run, or `last` for the newest")
    content.add_argument(
        "sha256",
        help="the hash in the record, or how it begins: of a request, plan, prompt, completion, output or answer",
    )
    export = commands.add_parser("export", help="the tenant's chain as JSON lines, up to a checkpoint made for it")
    export.add_argument("file", type=Path, help="where to write it; must not exist (-: stdout, and the head to stderr)")
    export.add_argument("--anchors", type=Path, metavar="DIR", help="copy the signed checkpoints there too")
    checkpoint = commands.add_parser("checkpoint", help="sign and anchor the chain as it stands")
    pubkey = commands.add_parser("pubkey", help="the public keys of the checkpoints on this machine, as PEM")
    pubkey.add_argument("--data", type=Path, help="data folder of the host (default: LIVOA_HOME, else .livoa)")
    _configure_verify(commands.add_parser("verify", help="check an exported chain; needs no host"))
    for each in commands.choices.values():
        each.add_argument("--json", action="store_true", help="print JSON for machines")
    for each in (show, content, export, checkpoint):
        add_options(each)


def _configure_verify(verify: argparse.ArgumentParser) -> None:
    verify.add_argument("file", type=Path, help="an export")
    verify.add_argument(
        "--tenant", "--of-tenant", metavar="TENANT", help="whose chain it must be (default: that of its first record)"
    )
    verify.add_argument("--head", metavar="SEQ:HASH", help="a head noted elsewhere, which the chain must contain")
    verify.add_argument("--anchors", type=Path, metavar="DIR", help="signed checkpoints to hold it against")
    verify.add_argument(
        "--anchored-within",
        type=float,
        metavar="SECONDS",
        help="the longest that a record may have waited for its checkpoint",
    )
    verify.add_argument("--pubkey", type=Path, metavar="FILE", help="PEM file of the keys that may have signed them")


def run(options: argparse.Namespace) -> ExitCode:
    """Show, export, checkpoint, print the keys or verify. Looking is itself recorded."""
    if options.what == "verify":
        return _verify(options)
    if options.what == "pubkey":
        return _pubkey(options)
    api = connect(options, roles=_ROLES, default_user=_AUDITOR)
    match options.what:
        case "checkpoint":
            return _checkpoint(api, options)
        case "content":
            return _content(api, options)
        case "show":
            return _show(api, options)
        case _:
            return _export(api, options)


def _content(api: Api, options: argparse.Namespace) -> ExitCode:
    run_id = run_id_of(api, options.run_id)
    sha256 = _whole(options.sha256, run_id, api)
    found = api.audit_content(run_id, sha256)
    data = found["text"].encode() if "text" in found else base64.b64decode(found["base64"])
    if _commitment(data, found.get("commitment_key")) != sha256:
        raise CliError("the host gave out something else than was asked for", code="audit.content_differs")
    if options.json:
        print_json(found)
    else:
        say(found["text"] if "text" in found else found["base64"])
    return ExitCode.OK


def _whole(told: str, run_id: str, api: Api) -> str:
    """The hash that begins like this, among those that the records of the run commit to."""
    if len(told) >= _WHOLE_HASH or len(told) < _SHORTEST_HASH:
        return told
    found = sorted(one for one in hashes_of(_pages(api, run_id)) if one.startswith(told))
    if len(found) > 1:
        raise CliError(f"{len(found)} hashes of this run begin with {told}", exit_code=ExitCode.USAGE, code="cli.usage")
    return found[0] if found else told


def _commitment(data: bytes, key: str | None) -> str:
    """What a record says about content: its hash, keyed where the run has a key for that."""
    digest = hashlib.sha256(data).digest()
    return digest.hex() if key is None else hmac.new(bytes.fromhex(key), digest, hashlib.sha256).hexdigest()


def _checkpoint(api: Api, options: argparse.Namespace) -> ExitCode:
    made = api.checkpoint()
    if options.json:
        print_json(made)
    else:
        say(f"checkpoint {made['number']} of {made['tenant_id']}: {made['size']} records, head {made['head']}")
        progress(f"Merkle root {made['root']}, made {made['at']}")
    return ExitCode.OK


def _pubkey(options: argparse.Namespace) -> ExitCode:
    from engine.evidence.signed import public_keys

    path = home(options.data) / "audit" / "signing-key.pub.pem"
    try:
        pem = path.read_bytes()
    except OSError as err:
        raise CliError(
            f"cannot read {path}: {err.strerror}",
            hint="a host on this machine makes it with its first checkpoint; of another host, ask who holds its key",
            exit_code=ExitCode.USAGE,
            code="cli.file",
        ) from err
    if options.json:
        print_json({"keys": sorted(public_keys(pem)), "pem": pem.decode()})
    else:
        say(pem.decode().strip())
    return ExitCode.OK


def _show(api: Api, options: argparse.Namespace) -> ExitCode:
    run_id = run_id_of(api, options.run_id)
    records = [record for record in _pages(api, run_id) if record["type"] != "audit.read"]
    if options.json:
        print_json({"run_id": run_id, "records": records})
        return ExitCode.OK
    for line in story(records, people_of(options)):
        say(line)
    progress(
        f"{len(records)} records; every field: --json. What a hash stands for: ./livoa audit content {run_id} HASH\n"
        "Whether all of it is as it was written: ./livoa audit export, then verify"
    )
    return ExitCode.OK


def _export(api: Api, options: argparse.Namespace) -> ExitCode:
    to_stdout = str(options.file) == "-"
    if to_stdout and options.json:
        raise CliError(
            "- puts the records on stdout, where --json puts its line", exit_code=ExitCode.USAGE, code="cli.usage"
        )
    made = _checkpoint_for_export(api)
    upto = made["size"] if made is not None else None
    try:
        with nullcontext(sys.stdout) if to_stdout else options.file.open("x", encoding="utf-8") as out:
            count, head = _write(_pages(api, None), out, upto)
            out.flush()
    except BrokenPipeError:
        raise
    except OSError as err:
        raise CliError(
            f"cannot write {options.file}: {err.strerror}", exit_code=ExitCode.USAGE, code="cli.file"
        ) from err
    number = made["number"] if made is not None else None
    if options.anchors is not None:
        _copy_anchors(api, options.anchors, number)
    if options.json:
        print_json({"file": str(options.file), "records": count, "head": head, "checkpoint": number})
        return ExitCode.OK
    held = f"up to checkpoint {number}" if number is not None else "without a checkpoint"
    place = "" if to_stdout else f" in {options.file}"
    progress(f"{count} records{place}, {held}. The head, the shortest witness there is; keep it somewhere else:")
    (progress if to_stdout else say)(head)
    return ExitCode.OK


def _write(records: Iterator[dict[str, Any]], out: TextIO, upto: int | None) -> tuple[int, str]:
    """Write records as lines, up to a number; how many they were, and the head of the chain they are."""
    from engine.domain.audit import AuditRecord

    count, last = 0, None
    for record in records:
        out.write(json.dumps(record, separators=(",", ":"), sort_keys=True) + "\n")
        count, last = count + 1, record
        if record["seq"] == upto:
            break  # what follows is about this export, and not anchored yet
    return count, f"{last['seq']}:{AuditRecord.model_validate(last).hash}" if last is not None else "0:"


def _checkpoint_for_export(api: Api) -> dict[str, Any] | None:
    """A checkpoint to end the export with. A chain that cannot have one is exported all the same: it is evidence too."""
    try:
        return api.checkpoint()
    except CliError as err:
        if not err.code.startswith(("checkpoint.", "anchor", "audit.key")):
            raise
        progress(f"No checkpoint: {err.code}: {err}")
        return None


def _copy_anchors(api: Api, folder: Path, last: int | None) -> None:
    from engine.domain.checkpoint import Anchor

    after, more = 0, True
    while more:
        page = api.checkpoints(after)
        found = [Anchor(each["number"], each["jws"]) for each in page["checkpoints"]]
        write_anchors(folder, page["tenant_id"], [anchor for anchor in found if last is None or anchor.number <= last])
        after, more = page["next_after"], page["more"]


def _pages(api: Api, run_id: str | None) -> Iterator[dict[str, Any]]:
    after, more = 0, True
    while more:
        page = api.audit(run_id, after)
        yield from page["records"]
        after, more = page["next_after"], page["more"]


def _verify(options: argparse.Namespace) -> ExitCode:
    noted = head_of(options.head) if options.head is not None else None
    if (options.anchors is None) != (options.pubkey is None):
        raise CliError("--anchors and --pubkey go together", exit_code=ExitCode.USAGE, code="cli.usage")
    if options.anchored_within is not None and options.anchors is None:
        raise CliError("--anchored-within needs --anchors", exit_code=ExitCode.USAGE, code="cli.usage")
    witness = Witness(options.anchors, options.pubkey, options.anchored_within) if options.anchors is not None else None
    checked = check(options.file, options.tenant, noted, witness)
    if options.json:
        print_json(_as_json(checked))
    elif checked.findings:
        for finding in checked.findings:
            say(f"{finding.code}  {_place(finding)}{finding.message}")
    else:
        _say_sound(checked, witness=witness is not None, noted=noted is not None)
    return ExitCode.FAILED if checked.findings else ExitCode.OK


def _as_json(checked: Checked) -> dict[str, Any]:
    found = [
        {"code": f.code, "line": f.line, "checkpoint": f.checkpoint, "message": f.message} for f in checked.findings
    ]
    return {
        "ok": not checked.findings,
        "tenant": checked.tenant,
        "head": f"{checked.head.seq}:{checked.head.hash}",
        "checkpoints": checked.checkpoints,
        "anchored": checked.anchored,
        "waited_s": checked.waited_s,
        "findings": found,
    }


def _place(finding: Finding) -> str:
    return f"line {finding.line}  " if finding.line else ""


def _say_sound(checked: Checked, *, witness: bool, noted: bool) -> None:
    head = checked.head
    held = f", {checked.checkpoints} signed checkpoints up to record {checked.anchored}" if witness else ""
    say(f"sound: {head.seq} records of {checked.tenant}, head {head.seq}:{head.hash}{held}")
    if witness:
        progress(f"The longest that a record waited for its checkpoint: {checked.waited_s:.0f} s.")
    if witness and checked.anchored < head.seq:
        progress(f"Records {checked.anchored + 1} to {head.seq} are held by the chain alone.")
    elif not witness and not noted:
        progress("Without --anchors or --head a chain that was cut at its end, or rewritten as a whole, looks sound.")

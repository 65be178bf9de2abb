"""What people are asked, as lines of text, and how they answer: shared by `approvals`, `approve`, `reject`, `show` and `run`."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from cli.connection import add_options, connect, run_id_of
from cli.exit_codes import ExitCode
from cli.output import print_json, progress, say
from cli.people import People
from cli.render.text import clean, one_line

APPROVER = "ben"
"""The development user who answers unless another one is named: somebody other than the one who asks."""
ROLES = ("Runs.Approve", "Runs.Read")


def add_answer_options(parser: argparse.ArgumentParser) -> None:
    """Options of `approve` and `reject`."""
    parser.add_argument("run_id", help="id of the run, or `last` for the newest")
    parser.add_argument("subject", help="`plan`, or the id of the step")
    parser.add_argument("--item", type=int, help="which item of a for_each step, from 0")
    parser.add_argument("--reason", help="why, for those who look at it later")
    parser.add_argument("--approval", metavar="ID", help="answer only if it is still this very question")
    add_options(parser)
    parser.add_argument("--as", dest="user", metavar="NAME", help=f"the same as --user; who answers ({APPROVER})")


def answer(options: argparse.Namespace, decision: Literal["approve", "reject"]) -> ExitCode:
    """Send the answer and say what became of it."""
    api = connect(options, ROLES, APPROVER)
    run_id = run_id_of(api, options.run_id)
    body = {"item": options.item, "comment": options.reason, "approval_id": options.approval}
    given = {name: value for name, value in body.items() if value is not None}
    approval = api.answer(run_id, options.subject, {"decision": decision, **given})
    if options.json:
        print_json(approval)
    else:
        say(f"{clean(approval['status'])}    {named(approval)}    {run_id}")
        progress(f"Next: ./livoa events {run_id} --follow{without_user(api.again)}")
    return ExitCode.OK


def named(approval: Mapping[str, Any]) -> str:
    """What is asked about: `plan`, a step, or an item of one."""
    item = approval.get("item")
    return one_line(approval.get("subject", "?")) + (f" item {item}" if item is not None else "")


def lines_of(approval: Mapping[str, Any], people: People | None = None) -> list[str]:
    """One question in full: who asks, why, with which arguments, and where they come from."""
    people = people or People()
    what = clean(approval.get("capability") or approval.get("kind") or "")
    until = f" until {clean(approval['expires_at'])}" if approval["status"] == "pending" else ""
    lines = [f"{named(approval)}  {what}  {clean(approval['status'])}{until}"]
    if approval.get("void"):
        lines.append(f"  void: {one_line(approval['void']['code'])}: {one_line(approval['void']['message'])}")
    if approval.get("decided_by"):
        comment = f": {one_line(approval['comment'])}" if approval.get("comment") else ""
        lines.append(f"  answered by {people.shown(approval['decided_by'])}{comment}")
    lines.append(f"  requested by {people.shown(approval['requested_by'])}")
    lines += [f"  because {one_line(reason)}" for reason in approval.get("reasons", ())]
    for finding in approval.get("findings", ()):
        way = " → ".join(clean(place) for place in finding.get("path", ()))
        told = any(way in reason for reason in approval.get("reasons", ()))
        lines += [f"  {clean(finding['policy_id'])}: by way of {way}"] if way and not told else []
    if approval.get("arguments") is not None:
        lines.append(f"  with {one_line(json.dumps(approval['arguments'], ensure_ascii=False))}")
    elif approval.get("arguments_omitted"):
        lines.append("  with arguments that are too large to be shown in a list")
    return lines


def waiting_lines(approvals: Iterable[Mapping[str, Any]], again: str, people: People | None = None) -> list[str]:
    """What waits for a person, and the commands that answer it."""
    lines = []
    for approval in approvals:
        if approval["status"] == "pending":
            lines += [*lines_of(approval, people), f"  Next: {command_for(approval, again)}"]
    return lines


def command_for(approval: Mapping[str, Any], again: str, verb: str = "approve") -> str:
    """The command that answers; ``approval`` may be an event's data with its ``run_id``."""
    item = f" --item {approval['item']}" if approval.get("item") is not None else ""
    return f"./livoa {verb} {clean(approval['run_id'])} {one_line(approval.get('subject', '?'))}{item}{without_user(again)}"


def without_user(again: str) -> str:
    """Connection options for a command that somebody else will run."""
    words, kept = shlex.split(again), []
    while words:
        word = words.pop(0)
        if word == "--user":
            words = words[1:]
        else:
            kept.append(word)
    return "".join(f" {shlex.quote(word)}" for word in kept)

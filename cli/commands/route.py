"""`./livoa route`: what an intent is about, and which router said so."""

from __future__ import annotations

import argparse
from typing import Any

from cli.commands.run import INTENT_HELP, add_request_options, request_of
from cli.connection import add_options, connect
from cli.exit_codes import ExitCode
from cli.output import print_json, progress, say
from cli.render.text import one_line

EXAMPLE = """
  ./livoa route "Why did paid-search ROI fall in Q3?" --tenant contoso
  ./livoa route "tell me a joke" --json
      {"domain": "other", "capabilities": [{"name": …, "score": …}], "in_scope": false, "router": "lexical", "fallbacks": […], …}

Exit code 0 for an intent in scope, 1 for one that is not.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `route`."""
    parser.add_argument("intent", help=INTENT_HELP)
    add_request_options(parser)
    add_options(parser)


def run(options: argparse.Namespace) -> ExitCode:
    """Ask and print."""
    route = connect(options).route(request_of(options))
    if options.json:
        print_json(route)
    else:
        for line in _lines(route):
            say(line)
        if not route["in_scope"]:
            progress("Next: ./livoa plan with the same words says what could be asked instead")
    return ExitCode.OK if route["in_scope"] else ExitCode.FAILED


def _lines(route: dict[str, Any]) -> list[str]:
    head = ("in scope" if route["in_scope"] else "out of scope", one_line(route["domain"]))
    lines = ["  ".join(part for part in (*head, f"confidence {route['confidence']:.2f}") if part)]
    lines += [] if route["in_scope"] else ["what is enabled here:"]
    lines += [f"  {found['score']:.2f}  {one_line(found['name'])}" for found in route["capabilities"]]
    lines += [f"  {found['score']:.2f}  playbook {one_line(found['name'])}" for found in route["playbooks"]]
    lines.append(f"router: {one_line(route['router'])}")
    lines += [f"  handed on by {one_line(hop['router'])}: {one_line(hop['reason'])}" for hop in route["fallbacks"]]
    return lines

"""`./livoa agent`: write an agent, check one against the contract, print the contract. Needs no host."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.output import print_json, say
from cli.paths import home

if TYPE_CHECKING:
    from agent_kit.conformance import Target

EXAMPLE = """
  ./livoa agent new order-status                         # a folder order-status with an agent that works
  ./livoa agent check http://127.0.0.1:8080 --keys .keys # started with: python -m order_status_agent --authority .keys
  ./livoa agent check http://127.0.0.1:7080              # an agent of the running stack
  ./livoa agent contract --dir docs/agent-contract
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `agent`."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="new | check | contract")
    new = commands.add_parser("new", help="write a new agent into a folder")
    new.add_argument("name", help="lower-case words with hyphens, such as order-status")
    new.add_argument("--dir", type=Path, help="where (default: a folder of that name, here)")
    check = commands.add_parser("check", help="hold an agent against the contract")
    check.add_argument("url", help="its base address")
    check.add_argument(
        "--keys", type=Path, help="folder of the authority that it trusts (default: LIVOA_HOME, else .livoa)"
    )
    check.add_argument("--capability", help="the one to call (default: the first without effects)")
    check.add_argument("--inputs", type=Path, metavar="FILE", help="inputs for it (default: made from its schema)")
    check.add_argument("--tenant", default="conformance", help="in whose name it is called (conformance)")
    check.add_argument("--audience", help="audience of tokens and grants")
    check.add_argument("--timeout-s", type=float, default=30.0, help="patience with each exchange (30)")
    contract = commands.add_parser("contract", help="the published contract")
    contract.add_argument("--dir", type=Path, help="write OpenAPI and JSON Schemas there (default: print the OpenAPI)")
    for each in commands.choices.values():
        each.add_argument("--json", action="store_true", help="print JSON for machines")


def run(options: argparse.Namespace) -> ExitCode:
    """Write, check or print."""
    match options.what:
        case "new":
            return _new(options)
        case "check":
            return _check(options)
        case _:
            return _contract(options)


def _new(options: argparse.Namespace) -> ExitCode:
    from agent_kit.scaffold import create

    folder = options.dir or Path(options.name)
    try:
        files = create(options.name, folder)
    except (ValueError, OSError) as err:
        raise CliError(str(err), exit_code=ExitCode.USAGE, code="agent.not_written") from err
    if options.json:
        print_json({"folder": str(folder), "files": [str(file) for file in files]})
        return ExitCode.OK
    for file in files:
        say(str(file))
    package = f"{options.name.replace('-', '_')}_agent"
    say(f"\nNext: cd {folder}, pip install pytest, python -m pytest, python -m {package} --authority .keys (README.md)")
    return ExitCode.OK


def _check(options: argparse.Namespace) -> ExitCode:
    from agent_kit.conformance import check_agent
    from agent_kit.conformance.report import words
    from agent_kit.conformance.suite import UnreachableError
    from engine.domain.egress import EgressRefusedError

    try:
        report = asyncio.run(check_agent(_target(options)))
    except EgressRefusedError as err:
        message = f"{options.url} is no address of an agent"
        raise CliError(message, exit_code=ExitCode.USAGE, code="agent.address") from err
    except UnreachableError as err:
        raise CliError(
            str(err),
            hint="start the agent, and give its base address (the one in its ready line)",
            exit_code=ExitCode.UNREACHABLE,
            code="agent.unreachable",
        ) from err
    if options.json:
        print_json(report.as_json())
    else:
        say(words(report))
    return ExitCode.OK if report.ok else ExitCode.FAILED


def _target(options: argparse.Namespace) -> Target:
    from agent_kit.conformance import Target
    from engine.domain.execute import EXECUTE_AUDIENCE

    if not options.url.startswith(("http://", "https://")):
        raise CliError(
            "the address must begin with http:// or https://", exit_code=ExitCode.USAGE, code="agent.address"
        )
    inputs = None
    if options.inputs is not None:
        try:
            inputs = json.loads(options.inputs.read_text(encoding="utf-8"))
        except (OSError, ValueError) as err:
            message = f"{options.inputs} cannot be read as JSON"
            raise CliError(message, exit_code=ExitCode.USAGE, code="agent.inputs") from err
        if not isinstance(inputs, dict):
            raise CliError(f"{options.inputs} is not one object", exit_code=ExitCode.USAGE, code="agent.inputs")
    return Target(
        options.url,
        options.keys or home(),
        options.capability,
        inputs,
        options.audience or EXECUTE_AUDIENCE,
        options.timeout_s,
        options.tenant,
    )


def _contract(options: argparse.Namespace) -> ExitCode:
    from agent_kit.contract import documents, openapi, text_of, write

    if options.dir is None:
        if options.json:
            print_json(openapi())
        else:
            say(text_of(openapi()).rstrip())
        return ExitCode.OK
    try:
        write(options.dir)
    except OSError as err:
        raise CliError(f"{options.dir} cannot be written", exit_code=ExitCode.USAGE, code="agent.not_written") from err
    names = sorted(documents())
    if options.json:
        print_json({"folder": str(options.dir), "files": names})
    else:
        say("\n".join(str(options.dir / name) for name in names))
    return ExitCode.OK

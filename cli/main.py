"""Parse the command line and hand over to one command.

Commands are a table of module names: only the chosen one is imported, so `--help` and `--json` calls stay quick.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, Protocol, cast

from cli.errors import CliError
from cli.exit_codes import ExitCode, exit_code_help
from cli.output import print_json, progress, say

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("cli.commands.demo", "start everything, run a sample intent, show the answer, leave nothing running"),
    "test": ("cli.commands.checks", "lint, types, layers and tests; what CI runs"),
    "up": ("cli.commands.up", "start the host, the sample agents and a worker, and keep them running"),
    "run": ("cli.commands.run", "submit an intent and follow it to its answer"),
    "runs": ("cli.commands.runs", "list runs"),
    "show": ("cli.commands.show", "show one run: plan, steps, answer"),
    "events": ("cli.commands.events", "print the event log of a run; --follow waits for more"),
    "cancel": ("cli.commands.cancel", "ask a run to stop"),
    "suspend": ("cli.commands.suspend", "hold a run: what has begun ends, nothing starts"),
    "resume": ("cli.commands.resume", "let a suspended run go on, perhaps with a higher budget"),
    "rerun": ("cli.commands.rerun", "do a finished run again, taking over what succeeded"),
    "terminate": ("cli.commands.terminate", "end a run at once, without undoing anything"),
    "approvals": ("cli.commands.approvals", "list what waits for a person's answer, or what was asked about a run"),
    "approve": ("cli.commands.approve", "let a plan or a step that waits for a person go on"),
    "reject": ("cli.commands.reject", "refuse a plan or a step that waits for a person"),
    "plan": ("cli.commands.plan", "the plan for an intent, without running it; or check a plan offline"),
    "route": ("cli.commands.route", "what an intent is about, and which router said so"),
    "audit": ("cli.commands.audit", "what is on record about a run; export the chain, verify it offline"),
    "retention": (
        "cli.commands.retention",
        "erase a run for good, or everything that is older than its tenant keeps it",
    ),
    "tenant": ("cli.commands.tenant", "show or narrow a tenant's configuration, list its changes"),
    "policy": ("cli.commands.policy", "try policies offline: golden requests, a linter, the schema"),
    "catalog": ("cli.commands.catalog", "check the catalog offline: capabilities, playbooks, tenants, policies"),
    "message": ("cli.commands.message", "submit a run by signed message: a sender's key, sign, send"),
    "dlq": ("cli.commands.dlq", "messages that the bus has put aside: list, show, replay"),
    "agent": ("cli.commands.agent", "write an agent, or check one against the contract"),
    "token": ("cli.commands.token", "mint a development token"),
    "host": ("cli.commands.host", "run any Functions app on the embedded host"),
}


_HELP = ("-h", "--help", "help")


class Command(Protocol):
    """What a command module offers."""

    EXAMPLE: str

    def configure(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, options: argparse.Namespace) -> ExitCode: ...


def overview() -> str:
    """The text of `./livoa --help`."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items())
    return (
        "usage: ./livoa COMMAND [options]      ./livoa help COMMAND (or COMMAND --help) shows options and an example\n"
        "       ./livoa --version\n\n"
        "Livoa Orchestrator Agent: turns an intent into a governed task graph and executes it.\n\n"
        f"commands:\n{rows}\n\n"
        "Every command takes --json: one JSON line on stdout (streams: one per event), progress on stderr.\n"
        "environment:\n"
        "  LIVOA_URL    address of the host (default: the one that `up` started, else http://127.0.0.1:7071)\n"
        "  LIVOA_TOKEN  bearer token (default: a development token, for hosts on this machine only)\n"
        "  LIVOA_HOME   folder for state, keys and logs (default: .livoa)\n\n"
        f"{exit_code_help()}\n\n"
        "first steps:  ./livoa demo     ./livoa test\n"
    )


def load(name: str) -> Command:
    """Import the module of one command."""
    return cast(Command, importlib.import_module(COMMANDS[name][0]))


class _Parser(argparse.ArgumentParser):
    """Says of wrong usage what is wrong and what to do next, as every other refusal does, instead of all options."""

    def error(self, message: str) -> NoReturn:
        raise CliError(message, hint=f"{self.prog} --help", exit_code=ExitCode.USAGE, code="cli.usage")


def build_parser(name: str, command: Command) -> argparse.ArgumentParser:
    """The parser of one command: its own options, `--json`, an example and the exit codes."""
    parser = _Parser(
        prog=f"./livoa {name}",
        description=COMMANDS[name][1][:1].upper() + COMMANDS[name][1][1:] + ".",
        epilog=f"example:\n{command.EXAMPLE.strip(chr(10))}\n\n{exit_code_help()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.configure(parser)
    parser.add_argument("--json", action="store_true", help="machine output: one JSON line (streams: one per event)")
    for actions in (action for action in parser._actions if isinstance(action, argparse._SubParsersAction)):
        for each in actions.choices.values():
            _show_example(each, command.EXAMPLE)
    return parser


def _show_example(parser: argparse.ArgumentParser, examples: str) -> None:
    """Give the parser of one action (`audit show`) those examples of its command that are its own."""
    own = [line for line in examples.splitlines() if f"{line} ".startswith(f"  {parser.prog} ")]
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(["example:", *own, "", exit_code_help()])


def report(err: CliError, *, as_json: bool) -> ExitCode:
    """Show a refusal: one JSON line for machines, what happened and what to do next for people."""
    if as_json:
        print_json(err.as_json())
    progress(f"livoa: {err}")
    for line in err.details:
        progress(f"  {line}")
    if err.hint:
        progress(f"Next: {err.hint}")
    return err.exit_code


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; never raises for what a user can cause."""
    if list(arguments[:1]) == ["--version"]:
        return _version(as_json="--json" in arguments)
    if arguments and arguments[0] in _HELP and len(arguments) > 1 and not arguments[1].startswith("-"):
        arguments = [*arguments[1:], "--help"]  # `help audit show` is `audit show --help`
    if not arguments or arguments[0] in _HELP:
        sys.stdout.write(overview())
        return ExitCode.OK
    name = arguments[0]
    if name not in COMMANDS:
        progress(f"livoa: no command {name!r}\nNext: {_meant(name)} ./livoa --help describes them all")
        return ExitCode.USAGE
    command = load(name)
    try:
        options = build_parser(name, command).parse_args(arguments[1:])
    except CliError as err:
        return report(err, as_json="--json" in arguments)
    except SystemExit as leave:  # argparse has shown the help
        return leave.code if isinstance(leave.code, int) else ExitCode.USAGE
    try:
        return command.run(options)
    except CliError as err:
        if err.exit_code == ExitCode.USAGE and not err.hint:
            err.hint = f"./livoa {name} --help shows an example"
        return report(err, as_json=options.json)
    except KeyboardInterrupt:
        return report(
            CliError("interrupted", exit_code=ExitCode.INTERRUPTED, code="cli.interrupted"), as_json=options.json
        )
    except BrokenPipeError:  # the reader (head, jq -e) has had enough; the interpreter must not complain on exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except OSError as err:  # what no command foresaw: a full disk, a file that is not ours
        return report(_of_the_system(err), as_json=options.json)


def _version(*, as_json: bool) -> ExitCode:
    from engine import VERSION

    if as_json:
        print_json({"version": VERSION})
    else:
        say(f"livoa {VERSION}")
    return ExitCode.OK


def _meant(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, COMMANDS, 1)
    return f"did you mean {near[0]}?" if near else f"one of {', '.join(COMMANDS)};"


def _of_the_system(err: OSError) -> CliError:
    where = f"{err.filename}: " if err.filename is not None else ""
    return CliError(
        f"{where}{err.strerror or err or type(err).__name__}",
        hint="see that the disk has room and that the files in the data folder (--data, LIVOA_HOME) are yours",
        exit_code=ExitCode.FAILED,
        code="cli.system",
    )

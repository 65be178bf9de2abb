"""`./livoa dlq`: messages that the bus has put aside, why, and sending them again once the cause is gone."""

from __future__ import annotations

import argparse

from cli.bus import add_bus_options, connection_string, namespace
from cli.dead_letters import (
    MAX_BODY_CHARS,
    MAX_LISTED,
    Letter,
    known_entities,
    letter,
    letters,
    readable,
    replay,
)
from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.output import print_json, progress, say

EXAMPLE = """
  ./livoa dlq list
  ./livoa dlq list run-requests --limit 5 --json
  ./livoa dlq show run-requests 17 --body
  ./livoa dlq replay run-requests 17
  ./livoa dlq replay run-requests --reason audit.unavailable
  ./livoa dlq replay step-commands --all

A subscription is written TOPIC/Subscriptions/NAME; what is replayed from it goes to the topic, and so to all its subscriptions.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `dlq`."""
    parser.add_argument("action", choices=["list", "show", "replay"], help="what to do")
    parser.add_argument("entity", nargs="?", help="a queue or subscription; with list: all in use when it is left out")
    parser.add_argument("numbers", nargs="*", type=int, metavar="NUMBER", help="sequence numbers of dead letters")
    parser.add_argument("--limit", type=int, default=50, help=f"how many of an entity (50, at most {MAX_LISTED})")
    parser.add_argument("--reason", help="with replay: those with this reason")
    parser.add_argument("--all", action="store_true", help="with replay: whatever the reason")
    parser.add_argument("--body", action="store_true", help="with show: a bounded part of the content too")
    parser.add_argument(
        "--body-chars", type=int, default=2_000, help=f"how much of it (2000, at most {MAX_BODY_CHARS})"
    )
    add_bus_options(parser)


def run(options: argparse.Namespace) -> ExitCode:
    """List, show or replay."""
    _check(options)
    with namespace(connection_string(options)) as client:
        match options.action:
            case "list":
                entities = [options.entity] if options.entity else known_entities()
                found = {entity: letters(client, entity, options.limit) for entity in entities}
                _print_list(found, as_json=options.json)
            case "show":
                _print_one(*letter(client, options.entity, options.numbers[0]), options)
            case _:
                done = replay(client, options.entity, lambda each: _is_wanted(each, options), options.limit)
                return _print_replayed(done, options)
    return ExitCode.OK


def _check(options: argparse.Namespace) -> None:
    if not 1 <= options.limit <= MAX_LISTED:
        raise _usage(f"--limit must be 1 to {MAX_LISTED}")
    if not 1 <= options.body_chars <= MAX_BODY_CHARS:
        raise _usage(f"--body-chars must be 1 to {MAX_BODY_CHARS}")
    match options.action:
        case "list" if options.numbers:
            raise _usage("`dlq list` takes no numbers")
        case "show" if len(options.numbers) != 1:
            raise _usage("say which one: ./livoa dlq show ENTITY NUMBER")
        case "replay" if options.entity is None or (
            sum(map(bool, (options.numbers, options.reason, options.all))) != 1
        ):
            raise _usage("say what to replay: ./livoa dlq replay ENTITY, and NUMBER ..., --reason CODE or --all")


def _usage(message: str) -> CliError:
    return CliError(message, hint="./livoa dlq --help shows examples", exit_code=ExitCode.USAGE, code="cli.usage")


def _is_wanted(each: Letter, options: argparse.Namespace) -> bool:
    if options.numbers:
        return each.sequence_number in options.numbers
    return bool(options.all) or each.reason == options.reason


def _print_list(found: dict[str, list[Letter]], *, as_json: bool) -> None:
    if as_json:
        print_json({"dead_letters": [each.as_json() for of_entity in found.values() for each in of_entity]})
        return
    for entity, of_entity in found.items():
        for each in of_entity:
            say(_line(each))
        noun = "dead letter" if len(of_entity) == 1 else "dead letters"
        progress(f"{entity}: {len(of_entity)} {noun}" if of_entity else f"{entity}: none")


def _print_one(each: Letter, body: bytes, options: argparse.Namespace) -> None:
    shown = readable(body, options.body_chars) if options.body else None
    if options.json:
        print_json(each.as_json() | ({"body": shown} if shown is not None else {}))
        return
    for name, value in each.as_json().items():
        say(f"{name + ':':<17} {_plain(value)}")
    if shown is not None:
        say(shown)


def _print_replayed(done: list[Letter], options: argparse.Namespace) -> ExitCode:
    missing = sorted(set(options.numbers) - {each.sequence_number for each in done})
    if options.json:
        print_json({"replayed": [each.as_json() for each in done], "not_found": missing})
    else:
        for each in done:
            say(_line(each))
        progress(f"{len(done)} sent again" + (f"; not found: {', '.join(map(str, missing))}" if missing else ""))
    return ExitCode.FAILED if missing else ExitCode.OK


def _line(each: Letter) -> str:
    return f"{each.entity}  {each.sequence_number}  {_plain(each.enqueued_at)}  {_plain(each.reason)}  {_plain(each.message_id)}"


def _plain(value: object) -> str:
    # What others wrote must not move the cursor of a terminal.
    return ascii(str(value))[1:-1] if value is not None else "-"

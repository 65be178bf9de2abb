"""`./livoa message`: submit runs as another system does: a key of a sender, a signed message, the queue (docs/messages.md)."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cli.bus import add_bus_options, connection_string, namespace
from cli.connection import data_option
from cli.envelopes import SenderName, make_key, read_key, registration, registration_yaml, signed
from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.output import print_json, progress, say
from cli.paths import home
from cli.tokens import DEFAULT_TENANT
from engine.domain.run_messages import RUN_REQUESTS_QUEUE

EXAMPLE = """
  ./livoa message key contoso/erp/2026-11 >> catalog/tenants/contoso.yaml      # makes the key, prints what registers it
  ./livoa message key contoso/erp/2026-11 --show                               # of a key that is there
  ./livoa message send contoso/erp/2026-11 "Which channels brought the most sales in Q3 2026?" --id order-4711
  ./livoa message sign contoso/erp/2026-11 --request order.json > order.jws    # what POST /api/runs takes
  ./livoa message send --file order.jws                                        # a message that was signed before

Signing needs no host; sending needs a bus (./livoa up has one).
"""
MAX_BYTES = 192 * 1024
"""Largest message: the standard tier takes 256 KiB, properties included."""
DAY_S = 86_400


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `message`."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="key | sign | send")
    key = commands.add_parser("key", help="make a sender's key, and print what registers it in the tenant's page")
    key.add_argument("sender", metavar="TENANT/SENDER/KEY", help="whose key it is, and what it is called")
    key.add_argument("--show", action="store_true", help="print what registers a key that is there")
    key.add_argument("--data", type=Path, help="data folder (default: LIVOA_HOME, else .livoa)")
    sign = commands.add_parser("sign", help="sign a request and print the message")
    sign.add_argument("sender", metavar="TENANT/SENDER/KEY", help="who signs, with which key")
    send = commands.add_parser("send", help=f"sign a request and send it to the queue {RUN_REQUESTS_QUEUE}")
    send.add_argument("sender", nargs="?", metavar="TENANT/SENDER/KEY", help="who signs, with which key")
    for each in (sign, send):
        each.add_argument("intent", nargs="?", help="what to ask")
        each.add_argument("--request", metavar="FILE", help="the whole request as JSON instead (-: standard input)")
        each.add_argument(
            "--id", metavar="ID", help="the message's own id, once for each request (default: a random one)"
        )
        each.add_argument(
            "--lifetime", type=int, default=DAY_S, metavar="SECONDS", help="validity (86400, at most 14 days)"
        )
        each.add_argument("--audience", help="audience of the app (LIVOA_API_AUDIENCE, else api://livoa)")
    send.add_argument("--file", metavar="FILE", help="send this as it is (-: standard input); nothing is signed")
    key.add_argument("--key", type=Path, metavar="FILE", help="where to (default: in the data folder)")
    for each in (sign, send):
        each.add_argument("--key", type=Path, metavar="FILE", help="PEM file of the key (default: in the data folder)")
    sign.add_argument("--data", type=Path, help="data folder of the key (default: LIVOA_HOME, else .livoa)")
    add_bus_options(send)
    for each in commands.choices.values():
        each.add_argument("--json", action="store_true", help="print JSON for machines")


def run(options: argparse.Namespace) -> ExitCode:
    """Make a key, sign or send."""
    match options.what:
        case "key":
            return _key(options)
        case "sign":
            return _sign(options)
        case _:
            return _send(options)


def _key(options: argparse.Namespace) -> ExitCode:
    name = SenderName.of(options.sender)
    file = _file(options, name)
    entry = registration(read_key(file, name) if options.show else make_key(file), name)
    if options.json:
        print_json({"tenant": name.tenant, "key_file": str(file), "message_senders": [entry]})
        return ExitCode.OK
    say(registration_yaml(entry))
    if not options.show:
        progress(f"private key: {file}, for this user only")
    progress(f"Next: the lines above belong into the page of {name.tenant} (catalog/tenants/{name.tenant}.yaml)")
    return ExitCode.OK


def _sign(options: argparse.Namespace) -> ExitCode:
    message_id, message = _signed(options)
    if options.json:
        print_json({"id": message_id, "message": message})
    else:
        say(message)
        progress(f"message {message_id} of {options.sender}")
    return ExitCode.OK


def _send(options: argparse.Namespace) -> ExitCode:
    from azure.servicebus import ServiceBusMessage

    if options.file is None:
        message_id, message = _signed(options)
        body = message.encode()
    else:
        if options.sender or options.intent or options.request or options.key or options.id:
            raise _usage("--file sends what it holds; nothing is signed, so it goes with no sender, request, key or id")
        message_id, body = secrets.token_hex(8), _read(options.file)
    if len(body) > MAX_BYTES:
        raise _usage(f"the message is larger than {MAX_BYTES} bytes")
    with namespace(connection_string(options)) as client, client.get_queue_sender(RUN_REQUESTS_QUEUE) as sender:
        sender.send_messages(ServiceBusMessage(body, message_id=message_id))
    if options.json:
        print_json({"id": message_id, "queue": RUN_REQUESTS_QUEUE, "size_bytes": len(body)})
        return ExitCode.OK
    say(f"{message_id} sent to {RUN_REQUESTS_QUEUE}")
    where = data_option(home(options.data))
    of = SenderName.of(options.sender).tenant if options.sender else DEFAULT_TENANT
    tenant = "" if of == DEFAULT_TENANT else f" --tenant {shlex.quote(of)}"
    progress(f"Next: ./livoa runs{tenant}{where}; if no run appears: ./livoa dlq list {RUN_REQUESTS_QUEUE}{where}")
    return ExitCode.OK


def _signed(options: argparse.Namespace) -> tuple[str, str]:
    from engine.bootstrap.settings import API_AUDIENCE

    if options.sender is None:
        raise _usage("say who signs: ./livoa message send TENANT/SENDER/KEY INTENT, or --file with a signed message")
    name, message_id = SenderName.of(options.sender), options.id or f"message-{secrets.token_hex(8)}"
    request = _request(options)
    message = signed(
        request,
        read_key(_file(options, name), name),
        name,
        message_id=message_id,
        audience=options.audience or os.environ.get("LIVOA_API_AUDIENCE") or API_AUDIENCE,
        at=datetime.now(UTC),
        lifetime_s=options.lifetime,
    )
    return message_id, message


def _request(options: argparse.Namespace) -> Any:
    """The request as it was given: faults are the host's to name, as of any sender's."""
    if (options.intent is None) == (options.request is None):
        raise _usage("say what to ask: either INTENT or --request FILE")
    if options.intent is not None:
        return {"intent": options.intent}
    try:
        return json.loads(_read(options.request))
    except ValueError as err:
        message = f"{options.request} is not JSON: {err}"
        raise CliError(message, exit_code=ExitCode.USAGE, code="cli.file") from err


def _read(name: str) -> bytes:
    try:
        if name == "-":
            return sys.stdin.buffer.read(MAX_BYTES + 1).strip()
        with Path(name).open("rb") as file:
            return file.read(MAX_BYTES + 1).strip()
    except OSError as err:
        raise CliError(f"cannot read {name}: {err.strerror}", exit_code=ExitCode.USAGE, code="cli.file") from err


def _file(options: argparse.Namespace, name: SenderName) -> Path:
    return Path(options.key) if options.key is not None else name.file(home(options.data))


def _usage(message: str) -> CliError:
    return CliError(message, hint="./livoa message --help shows examples", exit_code=ExitCode.USAGE, code="cli.usage")

"""Where the bus is, for the commands that talk to a Service Bus namespace themselves, and a client of it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.paths import home

CONNECTION = "LIVOA_BUS_CONNECTION"
CONNECTION_FILE = "LIVOA_BUS_CONNECTION_FILE"


def add_bus_options(parser: argparse.ArgumentParser) -> None:
    """`--connection-file`, `--data`."""
    group = parser.add_argument_group("where the bus is")
    group.add_argument(
        "--connection-file", type=Path,
        help=f"a file with a connection string (default: {CONNECTION}, {CONNECTION_FILE}, else that of the data folder)",
    )  # fmt: skip
    group.add_argument("--data", type=Path, help="data folder of the host (default: LIVOA_HOME, else .livoa)")


def connection_string(options: argparse.Namespace) -> str:
    """The connection string: a file that is named, the environment, or what the host wrote into its data folder."""
    if options.connection_file is None and os.environ.get(CONNECTION):
        return os.environ[CONNECTION]
    named = options.connection_file or os.environ.get(CONNECTION_FILE)
    file = Path(named) if named else home(options.data) / "host" / "service-bus.connection"
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as err:
        raise CliError(
            f"no connection string in {file}: {err.strerror}",
            hint="start a host with a bus (./livoa up, or ./livoa host --app . --amqp-port 5672), or name a --connection-file",
            exit_code=ExitCode.USAGE,
            code="bus.not_configured",
        ) from None


@contextmanager
def namespace(connection_string: str) -> Iterator[Any]:
    """A client of the namespace. What the SDK raises becomes a ``CliError`` that does not repeat the connection string."""
    from azure.core.exceptions import AzureError
    from azure.servicebus import ServiceBusClient
    from azure.servicebus.exceptions import MessagingEntityNotFoundError, ServiceBusAuthenticationError

    try:
        with ServiceBusClient.from_connection_string(connection_string, retry_total=1) as client:
            yield client
    except MessagingEntityNotFoundError:
        raise CliError(
            "there is no such queue or subscription", hint="./livoa dlq list names those in use", code="bus.not_found"
        ) from None
    except ServiceBusAuthenticationError:
        raise CliError(
            "the namespace does not accept this key", exit_code=ExitCode.FORBIDDEN, code="bus.forbidden"
        ) from None
    except (AzureError, OSError, ValueError) as err:
        raise CliError(
            f"the bus cannot be used: {type(err).__name__}",
            hint="is the host up with its bus (./livoa up, ./livoa host --amqp-port), or the connection string right?",
            exit_code=ExitCode.UNREACHABLE,
            code="bus.unavailable",
        ) from None

"""Command line of the embedded host: `python -m local_host --app DIR`.

stdout carries the address (one JSON line with --json), everything else goes to stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from local_host.errors import HostError

_EXIT_CODES = {"host.already_running": 4, "host.port_unavailable": 5}
_EPILOG = """\
example:
  python -m local_host --app . --port 7071 --data .livoa/host

exit codes:
  0 stopped by SIGTERM or SIGINT    2 wrong usage           3 the app or its settings cannot be used
  4 the data directory is in use    5 the port is taken     1 anything else

Keys for functions with an auth level are in <data>/keys.json, the queue endpoint in <data>/queue-endpoint.json.
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The parsed command line; exits with 2 on wrong usage."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not 0 <= options.port <= 65535:
        parser.error("--port must be 0 to 65535")
    if options.amqp_port is not None and not 0 <= options.amqp_port <= 65535:
        parser.error("--amqp-port must be 0 to 65535")
    if options.drain < 0 or options.response_limit <= 0:
        parser.error("--drain and --response-limit must be positive")
    if options.keep_days is not None and not 0 < options.keep_days <= 36_500:
        parser.error("--keep-days must be more than 0 and at most 36500")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m local_host",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Run an Azure Functions app (Python, v2 model) on this machine, durable functions included.",
    )
    parser.add_argument("--app", type=Path, default=Path(), metavar="DIR", help="app directory (default: here)")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(".local_host"),
        metavar="DIR",
        help="where state, keys and queues live (default: .local_host)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=7071, help="port to listen on, 0 for a free one (default: 7071)")
    _add_limits(parser)
    parser.add_argument(
        "--amqp-port",
        type=int,
        metavar="PORT",
        help="serve Service Bus clients (AMQP 1.0) on this loopback port, 0 for a free one; the connection string is in"
        " service-bus.connection of the data directory (default: off)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON line {url, pid, data} when ready")
    return parser


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--drain",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="how long running work may take to end when stopping (default: 10)",
    )
    parser.add_argument(
        "--response-limit",
        type=float,
        default=230.0,
        metavar="SECONDS",
        help="longest wait for a response, as the Azure load balancer's (default: 230)",
    )
    parser.add_argument(
        "--keep-days",
        type=float,
        metavar="DAYS",
        help="purge durable instances that ended longer ago; longer than any run may last (default: keep all)",
    )


async def serve(options: argparse.Namespace) -> None:
    """Run the host until a signal arrives. A second signal ends the process at once."""
    from local_host.host import EmbeddedHost, HostOptions, describe  # heavy; --help and wrong usage do without

    stopped, stdout = asyncio.Event(), sys.stdout
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopped.is_set():
            os._exit(1)
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    data_dir = options.data.resolve()
    host = EmbeddedHost(
        options.app,
        data_dir,
        HostOptions(
            host=options.host,
            port=options.port,
            response_limit_s=options.response_limit,
            drain_s=options.drain,
            amqp_port=options.amqp_port,
            keep_ended_s=options.keep_days * 86_400 if options.keep_days is not None else None,
        ),
    )
    os.chdir(options.app)  # the worker's working directory is the app's root
    with redirect_stdout(sys.stderr):  # what the app prints is log output; stdout belongs to this command
        async with host:
            ready: dict[str, Any] = {"url": host.url, "pid": os.getpid(), "data": str(data_dir)}
            if host.amqp_port is not None:
                ready["amqp_port"] = host.amqp_port
            # The app and its libraries stay: the collector need not walk them again and again while runs make garbage. Nor
            # need it look after every 700 objects, most of which are gone by then without it.
            gc.collect()
            gc.freeze()
            gc.set_threshold(10_000)
            print(json.dumps(ready) if options.json else describe(host), file=stdout, flush=True)
            await stopped.wait()


def look(data_dir: Path, export_id: str | None = None) -> dict[str, Any]:
    """What the store of a data directory holds, or with an id the history of that instance (`store_report`); changes nothing.

    `{"error": {"code", "message", "where"}}` when it cannot be told.
    """
    from local_host.store_report import export, status  # not needed to serve

    try:
        return status(data_dir) if export_id is None else export(data_dir, export_id)
    except HostError as err:
        return {"error": {"code": err.code, "message": err.message, "where": err.where}}


NOISY = ("azure.core", "azure.functions", "azure.servicebus", "aiohttp.access")
"""Loggers whose ordinary days nobody reads: the client of the bus tells each change of state of each link."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        if not options.app.is_dir():
            raise HostError("host.app_not_found", "no such directory", str(options.app))
        asyncio.run(serve(options))
    except HostError as err:
        sys.stderr.write(f"local_host: {err}\n")
        return _EXIT_CODES.get(err.code, 3)
    return 0


if __name__ == "__main__":
    code = main()
    gc.freeze()  # the process ends: looking through its heap for what could be freed takes 0.2 s and frees nothing
    sys.exit(code)

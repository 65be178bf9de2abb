"""`./livoa up`: the host, the sample agents and a worker, kept running until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from cli.data_folder import usable
from cli.exit_codes import ExitCode
from cli.output import print_json, progress
from cli.paths import home
from cli.stack.models import add_model_options, model_environment
from cli.stack.own_agents import own_agents

EXAMPLE = """
  ./livoa up                                        http://127.0.0.1:7071, data in .livoa
  ./livoa up --port 0 --data /tmp/try --json        {"url": "http://127.0.0.1:40123", "pid": 4711, "data": "/tmp/try"}
  ./livoa up --model-endpoint http://127.0.0.1:11434/v1 --model qwen3:8b      with any OpenAI-compatible server

Stops on Ctrl-C or SIGTERM. Runs survive: start it again with the same folder and they go on.
Agents of your own beside the samples: LIVOA_AGENT_ENDPOINTS, see docs/agents.md.
Logs are in DATA/logs. A process that crashes is started again, up to five times a minute.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `up`."""
    parser.add_argument(
        "--port", type=_port, default=7071, help="port of the API on 127.0.0.1; 0 for a free one (7071)"
    )
    parser.add_argument("--data", type=Path, help="folder for state, keys and logs (default: LIVOA_HOME, else .livoa)")
    parser.add_argument(
        "--workers", type=_workers, default=1, metavar="N",
        help="processes that carry out steps sent over the bus (1); 0: no bus, the host calls every agent itself",
    )  # fmt: skip
    add_model_options(parser)


def _workers(text: str) -> int:
    from cli.stack.local import MAX_WORKERS

    if not (text.isascii() and text.isdigit() and len(text) < 4 and int(text) <= MAX_WORKERS):
        raise argparse.ArgumentTypeError(f"must be 0 to {MAX_WORKERS}")
    return int(text)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError("must be 0 to 65535")
    return int(text)


def run(options: argparse.Namespace) -> ExitCode:
    """Run until SIGTERM, SIGINT or a process that cannot be kept alive."""
    host_settings, agents = model_environment(options), own_agents(os.environ)
    before = os.umask(0o077)  # content, keys and logs of every process of the stack are for this user only
    try:
        return asyncio.run(_serve(usable(home(options.data)), options, host_settings, agents))
    finally:
        os.umask(before)


async def _serve(
    data: Path, options: argparse.Namespace, host_settings: Mapping[str, str], agents: Mapping[str, str]
) -> ExitCode:
    from cli.connection import data_option
    from cli.stack.local import LocalStack

    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    stack = LocalStack(data, options.port, host_settings=host_settings, own_agents=agents, workers=options.workers)
    starting = asyncio.create_task(stack.__aenter__())
    waiting = asyncio.create_task(stopped.wait())
    await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():  # told to stop while starting
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return ExitCode.OK
    facts = starting.result()
    try:
        if options.json:
            print_json(facts.as_json())
        else:
            progress(f"Livoa is up at {facts.url} (process {facts.pid}, data {facts.data}). Ctrl-C stops it.")
            intent = '"Why did paid-search ROI fall in Q3 2026?"'
            progress(f"Next, in another terminal: ./livoa run {intent}{data_option(facts.data)}")
        failing = asyncio.create_task(stack.failed())
        await asyncio.wait({failing, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            failing.result()
        failing.cancel()
    finally:
        progress("livoa: stopping")
        await stack.__aexit__()
    return ExitCode.OK

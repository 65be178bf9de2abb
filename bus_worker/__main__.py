"""``python -m bus_worker``: serve the queues of commands until told to stop.

With ``--json`` one line goes to stdout once it serves: ``{"url", "name", "queues", "pid"}``; ``url`` answers probes. Logs are
JSON lines on stderr. SIGTERM and SIGINT drain; a second one ends the process at once. Exit codes: 0 after a drain, 1 when it
could not start, 2 for wrong usage. Everything else is settings: docs/settings.md.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import signal
import socket
import sys

from engine.domain.errors import LivoaError


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop."""
    options = _parser().parse_args(arguments)
    try:
        return asyncio.run(_serve(options))
    except (LivoaError, OSError) as err:
        sys.stderr.write(f"bus_worker: {err}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bus_worker", description="Carry out steps that come over the bus.")
    parser.add_argument("--name", default=f"{socket.gethostname()}-{os.getpid()}"[:100], help="shown with its steps")
    parser.add_argument("--health-host", default="127.0.0.1", help="address for probes (127.0.0.1)")
    parser.add_argument("--health-port", type=int, default=0, help="port for probes; 0 takes a free one (default)")
    parser.add_argument("--json", action="store_true", help="print one JSON line once it serves")
    return parser


async def _serve(options: argparse.Namespace) -> int:
    from bus_worker.health import Health
    from bus_worker.receiving import Service
    from bus_worker.step import StepWorker
    from engine.adapters.service_bus import ServiceBusResults
    from engine.bootstrap.worker import build_worker

    parts = build_worker()
    results = ServiceBusResults(parts.connection)
    service = Service(parts.connection, StepWorker(parts.deps, results, options.name), parts.settings)
    health = Health(service, options.health_host, options.health_port)
    url = await health.start()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if service.stopping.is_set():
            os._exit(1)
        service.stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    ready = {"url": url, "name": options.name, "queues": list(service.queues), "pid": os.getpid()}
    words = f"worker {options.name} serves {', '.join(service.queues)}; probes at {url}"
    sys.stdout.write(f"{json.dumps(ready) if options.json else words}\n")
    sys.stdout.flush()
    try:
        await service.run()
    finally:
        await health.stop()
        await parts.close()
    return 0


if __name__ == "__main__":
    code = main()
    gc.freeze()  # the process ends: looking through its heap for what could be freed takes 0.2 s and frees nothing
    sys.exit(code)

"""``python -m sample_agents``: serve the sample agents, and the rate service that one of them calls, on loopback.

With ``--json`` one line goes to stdout once everything answers: ``{"url", "endpoints": {name: url}, "rates_url", "pid"}``. Logs
are JSON lines on stderr. SIGTERM drains. Exit codes: 0 after a drain, 2 for wrong usage, 1 when it could not start.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
from pathlib import Path

from agent_kit import Agent, AgentAuth, GrantCheck, IdempotencyStore, JwksFile, JwksUrl
from agent_kit.serve import Service, listen, log_to_stderr, serve
from engine.domain.execute import EXECUTE_AUDIENCE
from sample_agents import lakehouse, search_service
from sample_agents.app import CATALOG, SAMPLES, sample_agent, sample_app
from sample_agents.rates_service import RateTable, create_rates_app


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop."""
    options = _parser().parse_args(arguments)
    log_to_stderr(options.log_level)
    try:
        services, agent, rates_url = _services(options)
    except (OSError, ValueError) as error:
        print(f"sample_agents: {error}", file=sys.stderr)
        return 1

    def announce() -> None:
        url = services[0].url
        names = sorted({one.manifest.endpoint for one in agent.capabilities.values()})
        line = {"url": url, "endpoints": dict.fromkeys(names, url), "rates_url": rates_url, "pid": os.getpid()}
        print(json.dumps(line) if options.json else f"sample agents at {url}", flush=True)

    asyncio.run(serve(services, announce=announce, drain_s=options.drain_s, parent_pid=options.parent_pid))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sample_agents",
        description="Serve the sample agents, on loopback unless --host says otherwise.",
        epilog="example: python -m sample_agents --port 0 --data .livoa/agents --jwks .livoa/development-jwks.json "
        "--grant-keys .livoa/grants/jwks.json --json",
    )
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one (default)")
    parser.add_argument("--data", type=Path, required=True, help="folder for this process's own state")
    keys = parser.add_mutually_exclusive_group(required=True)
    keys.add_argument("--jwks", type=Path, help="file with the keys that sign the callers' tokens")
    keys.add_argument("--jwks-url", help="address of those keys (https, or http on loopback)")
    parser.add_argument("--issuer", help="issuer of keys that name none themselves")
    grant_keys = parser.add_mutually_exclusive_group(required=True)
    grant_keys.add_argument("--grant-keys", type=Path, help="file with the keys that sign execution grants")
    grant_keys.add_argument("--grant-keys-url", help="address of those keys: the orchestrator's /api/grants/keys")
    parser.add_argument("--audience", default=EXECUTE_AUDIENCE, help=f"audience of the tokens ({EXECUTE_AUDIENCE})")
    parser.add_argument(
        "--caller", action="append", help="calling application that is allowed; repeatable (default: any)"
    )
    parser.add_argument("--catalog", type=Path, default=CATALOG, help="folder with capabilities/")
    parser.add_argument("--samples", type=Path, default=SAMPLES, help="folder with the tenants' data sets")
    parser.add_argument("--rates-url", help="use this rate service in place of our own")
    parser.add_argument(
        "--serve", action="append", metavar="ENDPOINT", help="serve this one; repeatable (default: all)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 in a container (127.0.0.1)")
    parser.add_argument("--lakehouse", type=Path, metavar="FILE", help="run reports in this Databricks workspace")
    parser.add_argument("--search", type=Path, metavar="FILE", help="find passages in this Azure AI Search service")
    parser.add_argument("--parent-pid", type=int, help="stop when this process is no longer the parent")
    parser.add_argument("--drain-s", type=float, default=20.0, help="patience with running work at shutdown (20)")
    parser.add_argument(
        "--no-warm-up", action="store_true", help="load heavy libraries when a call needs them, not at start"
    )
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    parser.add_argument("--json", action="store_true", help="print one JSON line once everything answers")
    return parser


def _services(options: argparse.Namespace) -> tuple[list[Service], Agent, str | None]:
    services = []
    rates_url: str | None = options.rates_url
    if rates_url is None and (options.serve is None or "rates" in options.serve):
        table = RateTable.read(options.samples / "rates.csv")
        services.append(Service(create_rates_app(table), listen(0)))
        rates_url = services[0].url
    agent = sample_agent(
        options.samples,
        outbox_file=options.data / "outbox.db",
        catalog=options.catalog,
        rates_url=rates_url,
        workspace=lakehouse.read_settings(options.lakehouse) if options.lakehouse is not None else None,
        only=options.serve,
        search=search_service.read_settings(options.search) if options.search is not None else None,
    )
    app = sample_app(
        agent,
        auth=_auth(options),
        grants=_grants(options),
        store=IdempotencyStore(options.data / "executions.db"),
        warm=not options.no_warm_up,
    )
    return [Service(app, listen(options.port, options.host)), *services], agent, rates_url


def _auth(options: argparse.Namespace) -> AgentAuth:
    keys = (
        JwksFile(options.jwks, issuer=options.issuer)
        if options.jwks is not None
        else JwksUrl(options.jwks_url, issuer=options.issuer)
    )
    callers = frozenset(options.caller) if options.caller else None
    return AgentAuth(keys, audience=options.audience, callers=callers)


def _grants(options: argparse.Namespace) -> GrantCheck:
    keys = JwksFile(options.grant_keys) if options.grant_keys is not None else JwksUrl(options.grant_keys_url)
    return GrantCheck(keys, audience=options.audience)


if __name__ == "__main__":
    code = main()
    gc.freeze()  # the process ends: looking through its heap for what could be freed takes 0.2 s and frees nothing
    sys.exit(code)

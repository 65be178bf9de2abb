"""Run an agent from the command line: ``python -m my_agent``. Every option has an environment variable, for containers.

    sys.exit(main(agent))

Either the keys of a deployment (``--jwks``/``--jwks-url`` and ``--grant-keys``/``--grant-keys-url``) or, in development,
``--authority FOLDER``: keys are made there, and whoever holds the folder may call. Exit codes: 0 after a drain, 2 for wrong
usage, 1 when it could not start.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from agent_kit.agent import Agent
from agent_kit.app import AgentLimits, create_app
from agent_kit.auth import AgentAuth, JwksFile, JwksUrl
from agent_kit.authority import TOKEN_KEYS_FILE, Authority
from agent_kit.grants import GrantCheck
from agent_kit.idempotency import IdempotencyStore
from agent_kit.serve import Service, listen, log_to_stderr, serve
from engine.domain.execute import EXECUTE_AUDIENCE
from engine.domain.grants import GRANT_KEYS_FILE

PREFIX = "AGENT_"
"""``--grant-keys-url`` is ``AGENT_GRANT_KEYS_URL``, and so on."""


def main(agent: Agent, arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    options = parser().parse_args(arguments)
    log_to_stderr(options.log_level)
    try:
        auth, grants = checks_of(options)
        store = IdempotencyStore(options.data / "executions.db")
        app = create_app(agent, auth=auth, grants=grants, store=store, limits=AgentLimits(drain_s=options.drain_s))
        service = Service(app, listen(options.port, options.host))
    except (OSError, ValueError) as error:
        print(f"agent: {error}", file=sys.stderr)
        return 1

    def announce() -> None:
        line = {"url": service.url, "capabilities": sorted(agent.capabilities), "pid": os.getpid()}
        print(json.dumps(line) if options.json else f"agent at {service.url}", flush=True)

    asyncio.run(serve([service], announce=announce, drain_s=options.drain_s, parent_pid=options.parent_pid))
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line of an agent."""
    found = argparse.ArgumentParser(description="Serve the agent.", epilog="every option can be given as AGENT_OPTION")
    found.add_argument("--host", default=_env("host", "127.0.0.1"), help="address to listen on (127.0.0.1)")
    found.add_argument("--port", type=int, default=_env("port", "8080"), help="port; 0 takes a free one (8080)")
    found.add_argument("--data", type=Path, default=_env("data", "data"), help="folder for what must survive a restart")
    add_key_options(found)
    found.add_argument("--drain-s", type=float, default=_env("drain-s", "20"), help="patience at shutdown (20)")
    found.add_argument("--parent-pid", type=int, help="stop when this process is no longer the parent")
    levels = ["DEBUG", "INFO", "WARNING", "ERROR"]
    found.add_argument("--log-level", default=_env("log-level", "INFO"), choices=levels)
    found.add_argument("--json", action="store_true", help="print one JSON line once it answers")
    return found


def add_key_options(found: argparse.ArgumentParser) -> None:
    """Whose calls are accepted."""
    found.add_argument("--authority", type=Path, default=_env("authority"), help="in development: folder of all keys")
    found.add_argument("--jwks", type=Path, default=_env("jwks"), help="file with the keys that sign callers' tokens")
    found.add_argument(
        "--jwks-url", default=_env("jwks-url"), help="address of those keys (https, or http on loopback)"
    )
    found.add_argument("--issuer", default=_env("issuer"), help="issuer of keys that name none themselves")
    found.add_argument(
        "--grant-keys", type=Path, default=_env("grant-keys"), help="file with the keys that sign grants"
    )
    found.add_argument(
        "--grant-keys-url", default=_env("grant-keys-url"), help="address of those: the orchestrator's /api/grants/keys"
    )
    audience = _env("audience", EXECUTE_AUDIENCE)
    found.add_argument("--audience", default=audience, help=f"audience of tokens and grants ({EXECUTE_AUDIENCE})")
    callers = (_env("caller") or "").split() or None
    found.add_argument("--caller", action="append", default=callers, help="application that may call; repeatable (any)")


def checks_of(options: argparse.Namespace) -> tuple[AgentAuth, GrantCheck]:
    """What the options say. ``ValueError`` when they leave open whose calls are accepted, or say it twice."""
    callers = frozenset(options.caller) if options.caller else None
    if options.authority is not None:
        if any((options.jwks, options.jwks_url, options.grant_keys, options.grant_keys_url)):
            raise ValueError("--authority is not allowed beside other keys")
        Authority.open(options.authority)
        tokens = JwksFile(options.authority / TOKEN_KEYS_FILE)
        grants = JwksFile(options.authority / GRANT_KEYS_FILE)
        return AgentAuth(tokens, audience=options.audience, callers=callers), GrantCheck(grants, options.audience)
    auth = AgentAuth(_keys("jwks", options.jwks, options.jwks_url, options.issuer), options.audience, callers=callers)
    return auth, GrantCheck(_keys("grant-keys", options.grant_keys, options.grant_keys_url), options.audience)


def _keys(name: str, file: Path | None, url: str | None, issuer: str | None = None) -> JwksFile | JwksUrl:
    if (file is None) == (url is None):
        raise ValueError(f"exactly one of --{name} and --{name}-url is required, or --authority")
    return JwksFile(file, issuer=issuer) if file is not None else JwksUrl(str(url), issuer=issuer)


def _env(name: str, default: str | None = None) -> str | None:
    return os.environ.get(PREFIX + name.upper().replace("-", "_")) or default

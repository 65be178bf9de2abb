"""Agents that run beside the samples: where `up` has its host and workers look for them."""

from __future__ import annotations

from collections.abc import Mapping

from cli.errors import CliError
from cli.exit_codes import ExitCode


def own_agents(env: Mapping[str, str]) -> dict[str, str]:
    """Addresses by endpoint, from LIVOA_AGENT_ENDPOINTS; one that names a sample's endpoint takes that sample's place.

    Raises CliError (wrong usage) for what the host would refuse at each step that is called there.
    """
    if not env.get("LIVOA_AGENT_ENDPOINTS"):
        return {}
    from engine.adapters.http_agents.invoker import checked_address
    from engine.bootstrap.settings import agent_endpoints
    from engine.domain.errors import LivoaError

    try:
        return {name: checked_address(name, url) for name, url in agent_endpoints(env).items()}
    except LivoaError as error:
        raise CliError(
            str(error.message),
            hint='LIVOA_AGENT_ENDPOINTS=\'{"order-status": "http://127.0.0.1:8080"}\' ./livoa up, see docs/agents.md',
            exit_code=ExitCode.USAGE,
            code="cli.agent_endpoints",
        ) from error

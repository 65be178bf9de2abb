"""`--model-endpoint` and its companions: any OpenAI-compatible server as the models of one machine's whole stack.

Turns options into the settings of the host process. Azure OpenAI, prices and more than two deployments are the setting
LIVOA_MODEL_DEPLOYMENTS itself (docs/models.md), which the host also reads from the environment of `up`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
from collections.abc import Mapping
from typing import Any

from cli.errors import CliError
from cli.exit_codes import ExitCode

_WORK = ["router", "planner", "synthesiser"]


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options, for `up` and `demo` alike."""
    group = parser.add_argument_group("models", "without them plans come from playbooks")
    group.add_argument(
        "--model-endpoint", metavar="URL", help="OpenAI-compatible server, such as http://127.0.0.1:11434/v1"
    )
    group.add_argument("--model", metavar="NAME", help="name of the model there")
    group.add_argument("--model-key-env", metavar="VAR", help="environment variable that holds its key")
    group.add_argument("--fallback-endpoint", metavar="URL", help="server to ask when the first one fails")
    group.add_argument("--fallback-model", metavar="NAME", help="name of the model there")
    group.add_argument("--fallback-key-env", metavar="VAR", help="environment variable that holds its key")


def model_environment(options: argparse.Namespace, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Settings for the host process; empty without model options. Raises CliError for options that make no deployment."""
    env = os.environ if environ is None else environ
    settings: dict[str, str] = {}
    made = (_deployment(options, name, env, settings) for name in ("model", "fallback"))
    deployments = [one for one in made if one is not None]
    if not deployments:
        return {}
    if deployments[0]["open_weight"]:
        raise _wrong("--fallback-endpoint needs --model-endpoint: there is nothing to fall back from")
    settings["LIVOA_MODEL_DEPLOYMENTS"] = json.dumps(deployments)
    _check(settings)
    return settings


def _deployment(
    options: argparse.Namespace, name: str, env: Mapping[str, str], settings: dict[str, str]
) -> dict[str, Any] | None:
    endpoint, key_variable = getattr(options, f"{name}_endpoint"), getattr(options, f"{name}_key_env")
    model = options.model if name == "model" else options.fallback_model
    if endpoint is None and model is None and key_variable is None:
        return None
    if endpoint is None or model is None:
        raise _wrong(f"--{name}-endpoint and {'--model' if name == 'model' else '--fallback-model'} belong together")
    found: dict[str, Any] = {"kind": "openai_compatible", "endpoint": endpoint, "model": model}
    if key_variable is not None:
        key = env.get(key_variable, "")
        if not key:
            raise _wrong(f"the environment variable {key_variable} holds no key")
        # Under a name of ours, because settings are named in capitals and variables need not be.
        found["key_setting"] = f"LIVOA_MODEL_KEY_{name.upper()}"
        settings[found["key_setting"]] = key
    is_fallback = name == "fallback"
    return found | {"name": _named(model, is_fallback), "open_weight": is_fallback, "default_for": _WORK}


def _named(model: str, is_fallback: bool) -> str:
    """What the deployment is called in records and on screens: the model, and that it is the second one."""
    told = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("-")[:80] or "model"
    return f"{told}.fallback" if is_fallback else told


def _check(settings: Mapping[str, str]) -> None:
    """What the host would refuse at its first request is refused here, before anything is started."""
    from engine.bootstrap.model_settings import model_endpoints
    from engine.domain.errors import LivoaError

    try:
        model_endpoints(settings["LIVOA_MODEL_DEPLOYMENTS"], keys=settings, local=True)
    except LivoaError as error:
        faults = ", ".join(f"{one.pointer.rpartition('/')[2]} {one.message}" for one in error.violations)
        raise _wrong(f"the model options are not usable: {faults}") from error


def model_arguments(options: argparse.Namespace) -> list[str]:
    """The options as they were given, to hand them on."""
    names = ("model_endpoint", "model", "model_key_env", "fallback_endpoint", "fallback_model", "fallback_key_env")
    given = [(f"--{name.replace('_', '-')}", getattr(options, name, None)) for name in names]
    return [part for option, value in given if value is not None for part in (option, value)]


def as_typed(options: argparse.Namespace) -> str:
    """The same for a suggested command line, with a leading blank; empty without model options."""
    arguments = model_arguments(options)
    return f" {shlex.join(arguments)}" if arguments else ""


def _wrong(message: str) -> CliError:
    return CliError(
        message,
        hint="./livoa up --model-endpoint http://127.0.0.1:11434/v1 --model NAME, see docs/models.md",
        exit_code=ExitCode.USAGE,
        code="cli.models",
    )

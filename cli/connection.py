"""Where the host is and who we are: the options every command shares that talks to the API."""

from __future__ import annotations

import argparse
import os
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cli.client import Api
from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.paths import DEFAULT_URL, home, running_stack
from cli.tokens import DEFAULT_ROLES, DEFAULT_TENANT, DEFAULT_USER, bearer_for

_RENEW_AFTER_S = 1500.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """`--url`, `--tenant`, `--user`, `--data`."""
    group = parser.add_argument_group("connection")
    group.add_argument("--url", help="address of the host (default: LIVOA_URL, else the stack that `up` started)")
    group.add_argument("--tenant", help=f"tenant of the development token ({DEFAULT_TENANT})")
    group.add_argument("--user", help=f"user of the development token ({DEFAULT_USER})")
    group.add_argument("--data", type=Path, help="data folder of the host (default: LIVOA_HOME, else .livoa)")


def connect(options: argparse.Namespace, roles: Sequence[str] = DEFAULT_ROLES, default_user: str = DEFAULT_USER) -> Api:
    """The API that the options and the environment mean. ``roles`` are what the command needs of a development token, which is
    that of ``default_user`` unless another one is named."""
    data = home(options.data)
    stack = running_stack(data) or {}
    url = options.url or os.environ.get("LIVOA_URL") or stack.get("url") or DEFAULT_URL
    token = renewing(lambda: bearer_for(str(url), data, options.tenant, options.user or default_user, roles))
    folder = data_option(data) if options.data is not None else ""
    keeper = int(stack["pid"]) if str(url) == stack.get("url") else None
    return Api(str(url), token, again=same_options(options), up_options=folder, stack_pid=keeper)


def same_options(options: argparse.Namespace) -> str:
    """The connection options that were given, quoted for a shell, so that a suggested command reaches the same host."""
    given = [(f"--{name}", getattr(options, name)) for name in ("url", "tenant", "user", "data")]
    shown = [(name, home(value) if name == "--data" else value) for name, value in given if value is not None]
    return "".join(f" {name} {shlex.quote(str(value))}" for name, value in shown)


def data_option(data: Path) -> str:
    """` --data FOLDER`, quoted for a shell; nothing for the folder that commands use anyway."""
    return "" if data == home() else f" --data {shlex.quote(str(data))}"


def renewing(mint: Callable[[], str]) -> Callable[[], str]:
    """Keep a token for 25 minutes, so that watching a long run outlives the hour a token is valid."""
    kept: list[tuple[float, str]] = []

    def token() -> str:
        if not kept or time.monotonic() - kept[0][0] > _RENEW_AFTER_S:
            kept[:] = [(time.monotonic(), mint())]
        return kept[0][1]

    return token


def run_id_of(api: Api, text: str) -> str:
    """The run id itself, or that of the newest run for the word `last`."""
    if text != "last":
        return text
    runs = api.runs(limit=1)["runs"]
    if not runs:
        raise CliError(
            "there are no runs yet that you may see",
            hint=f'./livoa run "…"{api.again} submits one',
            exit_code=ExitCode.FAILED,
            code="run.none",
        )
    return str(runs[0]["run_id"])

"""`./livoa reject`: answer what a run waits for, as somebody other than its requester."""

from __future__ import annotations

import argparse

from cli.approving import add_answer_options, answer
from cli.exit_codes import ExitCode

EXAMPLE = """
  ./livoa reject last tell_finance
  ./livoa reject run-01kar… plan --as ben --reason "checked with finance"
  ./livoa reject run-01kar… mails --item 3 --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `reject`."""
    add_answer_options(parser)


def run(options: argparse.Namespace) -> ExitCode:
    """Reject it; the same answer again changes nothing, a closed or expired question is exit code 1."""
    return answer(options, "reject")

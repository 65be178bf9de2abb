"""A scripted API and a way to run the command line in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from cli.main import main
from tests.unit.cli.api_double import Double, serve_double


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON line on stdout."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def double() -> Iterator[Double]:
    with serve_double() as served:
        yield served


@pytest.fixture
def bare_environment(monkeypatch, tmp_path):
    """No settings of the developer's machine leak in; a proxy that does not exist must not matter for loopback."""
    for name in ("LIVOA_URL", "LIVOA_ENV", "LIVOA_API_AUDIENCE", "LIVOA_TOKEN", "LIVOA_AGENT_ENDPOINTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LIVOA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def livoa(bare_environment, capsys):
    def run(*arguments: str) -> Outcome:
        code = main(arguments)
        captured = capsys.readouterr()
        return Outcome(int(code), captured.out, captured.err)

    return run


@pytest.fixture
def connected(livoa, double, monkeypatch):
    """The command line, pointed at the double."""
    monkeypatch.setenv("LIVOA_URL", double.url)
    monkeypatch.setenv("LIVOA_TOKEN", "a-token")
    return livoa

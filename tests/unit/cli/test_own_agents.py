"""LIVOA_AGENT_ENDPOINTS of `up`: agents beside the samples, and what is refused before anything starts."""

from __future__ import annotations

import pytest

from cli.exit_codes import ExitCode
from cli.stack.own_agents import own_agents


def test_without_the_setting_there_are_none():
    assert own_agents({}) == own_agents({"LIVOA_AGENT_ENDPOINTS": ""}) == {}


def test_addresses_are_taken_by_endpoint_without_a_final_slash():
    setting = '{"order-status": "http://127.0.0.1:8080/", "mmm": "https://mmm.example"}'
    assert own_agents({"LIVOA_AGENT_ENDPOINTS": setting}) == {
        "order-status": "http://127.0.0.1:8080",
        "mmm": "https://mmm.example",
    }


@pytest.mark.parametrize("setting", ["{", "[]", '{"a": "ftp://x"}', '{"a": 1}', '{"a": "http://elsewhere.example"}'])
def test_what_the_host_would_refuse_is_refused_before_anything_starts(livoa, monkeypatch, tmp_path, setting):
    monkeypatch.setenv("LIVOA_AGENT_ENDPOINTS", setting)
    told = livoa("up", "--port", "0", "--data", str(tmp_path / "data"), "--json")
    assert (told.code, told.json["error"]["code"]) == (ExitCode.USAGE, "cli.agent_endpoints")
    assert "docs/agents.md" in told.json["error"]["hint"]
    assert not (tmp_path / "data").exists()

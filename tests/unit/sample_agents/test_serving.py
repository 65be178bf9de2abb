"""One process serves all agents, or a container one of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sample_agents.app import SAMPLES, sample_agent
from tests.support.shipped import CAPABILITIES

ROOT = Path(__file__).resolve().parents[3]


def served(tmp_path: Path, *only: str) -> set[str]:
    agent = sample_agent(SAMPLES, outbox_file=tmp_path / "outbox.db", only=only or None)
    return set(agent.capabilities)


def test_every_shipped_capability_is_served(tmp_path: Path) -> None:
    assert served(tmp_path) == set(CAPABILITIES)


def test_a_container_serves_one_endpoint(tmp_path: Path) -> None:
    assert served(tmp_path, "lakehouse") == {"lakehouse.report"}
    assert served(tmp_path, "rag", "rates") == {"rag.search", "rates.lookup"}
    with pytest.raises(ValueError, match="there is no endpoint lakehose"):
        served(tmp_path, "lakehose")


def test_the_image_is_made_of_files_that_exist_and_of_endpoints_that_are_served(tmp_path: Path) -> None:
    text = (ROOT / "sample_agents" / "Dockerfile").read_text()
    copied = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY ")]
    assert [name for names in copied for name in names if not (ROOT / name).exists()] == []
    for endpoint in re.findall(r"ENDPOINT=(\w+)", text):
        assert served(tmp_path, endpoint)
    for extra in re.findall(r"EXTRA=(-\w+)", text):
        assert (ROOT / f"requirements{extra}.txt").is_file()


def test_an_agent_of_the_image_imports_nothing_that_is_not_in_it() -> None:
    allowed = ("engine.domain", "agent_kit", "sample_agents")
    for path in [*(ROOT / "sample_agents").rglob("*.py"), *(ROOT / "agent_kit").glob("*.py")]:
        for name in re.findall(r"^\s*(?:from|import) (engine[\w.]*)", path.read_text(), re.MULTILINE):
            assert name.startswith(allowed), f"{path.name} imports {name}"

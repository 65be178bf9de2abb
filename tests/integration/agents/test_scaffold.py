"""An agent as `./livoa agent new` writes it: it starts, keeps the contract from outside, and passes its own tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_kit.manifests import load_manifests

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def livoa(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli", "agent", *arguments],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = livoa("new", "order-status", "--json", cwd=(parent := tmp_path_factory.mktemp("work")))
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["folder"] == "order-status"
    return parent / "order-status"


@pytest.fixture(scope="module")
def agent(folder: Path) -> Iterator[dict[str, Any]]:
    """As the page says to start it, but on a free port."""
    command = [sys.executable, "-m", "order_status_agent", "--authority", ".keys", "--port", "0", "--json"]
    process = subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the agent did not start: {process.wait(10)}"
    yield json.loads(line)
    process.terminate()
    assert process.wait(30) == 0


def test_it_keeps_the_contract_from_outside(folder: Path, agent: dict[str, Any]) -> None:
    checked = livoa("check", agent["url"], "--keys", ".keys", "--json", cwd=folder)
    report = json.loads(checked.stdout)
    assert [one for one in report["results"] if one["status"] == "fail"] == []
    assert (checked.returncode, report["ok"], report["capability"]) == (0, True, "order_status.describe")
    assert report["counts"]["pass"] >= 45


@pytest.mark.parametrize(
    ("more", "code"),
    [((), 0), (("--inputs", "pyproject.toml"), 2), (("--capability", "other.one"), 1)],
    ids=["kept", "no inputs", "not called"],
)
def test_the_suite_runs_without_our_command_line(
    folder: Path, agent: dict[str, Any], more: tuple[str, ...], code: int
) -> None:
    command = [sys.executable, "-m", "agent_kit.conformance", agent["url"], "--keys", ".keys", *more]
    found = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False
    )
    assert found.returncode == code, found.stdout + found.stderr


def test_whoever_has_other_keys_is_refused_and_told_so(folder: Path, agent: dict[str, Any], tmp_path: Path) -> None:
    checked = livoa("check", agent["url"], "--keys", str(tmp_path), cwd=folder)
    assert checked.returncode == 1
    assert "FAIL  capabilities.listed" in checked.stdout


def test_it_passes_its_own_tests(folder: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    found = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False
    )
    assert found.returncode == 0, found.stdout
    assert "3 passed" in found.stdout


def test_its_manifest_is_one_that_the_catalog_accepts(folder: Path) -> None:
    from engine.adapters.files.catalog import FilesCatalog

    for page in (folder / "manifests").glob("*.yaml"):
        (catalog := folder / "catalog" / "capabilities").mkdir(parents=True, exist_ok=True)
        (catalog / page.name).write_text(page.read_text())
    assert set(load_manifests(folder / "manifests")) == {"order_status.describe"}
    assert set(FilesCatalog(folder / "catalog").capabilities) == {"order_status.describe"}


def test_it_is_well_formed_python_to_our_own_standards(folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--config",
        str(ROOT / "pyproject.toml"),
        "--ignore",
        "S101,I001",
        ".",
    ]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 0, found.stdout


def test_without_keys_it_does_not_start(folder: Path, tmp_path: Path) -> None:
    for more in ([], ["--jwks", "a"], ["--authority", str(tmp_path), "--jwks", "a"]):
        command = [sys.executable, "-m", "order_status_agent", "--port", "0", "--data", str(tmp_path), *more]
        found = subprocess.run(
            command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
        )
        assert found.returncode == 1
        assert "--authority" in found.stderr

"""The kit installs alone: everything it imports is in its package or declared, and every file it needs comes along."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from agent_kit.scaffold import create

ROOT = Path(__file__).resolve().parents[3]
KIT, DOMAIN = ROOT / "agent_kit", ROOT / "engine" / "domain"
PROVIDED = {"pyjwt": {"jwt", "cryptography"}, "pyyaml": {"yaml"}, "fastapi": {"fastapi", "starlette"}}
PROVIDED |= {"aiohttp": {"aiohttp", "yarl"}, "jsonschema-specifications": {"jsonschema_specifications"}}
"""What a distribution brings, where that is not its own name alone."""


def project() -> dict[str, Any]:
    return tomllib.loads((KIT / "pyproject.toml").read_text())


def sources() -> list[Path]:
    return [path for folder in (KIT, DOMAIN) for path in folder.rglob("*.py") if "build" not in path.parts]


def test_every_package_of_the_kit_is_in_the_distribution() -> None:
    found = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in KIT.rglob("__init__.py") if "build" not in path.parts
    }
    assert set(project()["tool"]["setuptools"]["packages"]) == found | {"engine", "engine.domain"}


def test_every_template_comes_along() -> None:
    globs = project()["tool"]["setuptools"]["package-data"]["agent_kit.scaffold"]
    scaffold = KIT / "scaffold"
    packed = {path for glob in globs for path in scaffold.glob(glob)}
    assert packed == {path for path in (scaffold / "template").rglob("*") if path.is_file()}
    assert len(packed) >= 9


def test_what_is_imported_is_declared() -> None:
    declared = {re.split(r"[\[<>=]", one)[0].lower() for one in project()["project"]["dependencies"]}
    provided = {module for name in declared for module in PROVIDED.get(name, {name})}
    imported = set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module)
    foreign = {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names) - {"agent_kit", "engine"}
    assert foreign <= provided
    assert {name for name in imported if name.startswith("engine")} <= {
        f"engine.domain.{path.stem}" for path in DOMAIN.glob("*.py")
    }


def test_the_version_that_scaffolds_ask_for_is_the_one_there_is() -> None:
    asked = (KIT / "scaffold" / "template" / "pyproject.toml.tmpl").read_text()
    major_minor = ".".join(project()["project"]["version"].split(".")[:2])
    assert f"livoa-agent-kit>={major_minor}," in asked
    pins = (ROOT / "requirements-agents.txt").read_text()
    for name in ("fastapi", "uvicorn"):
        (pin,) = [one for one in project()["project"]["dependencies"] if one.startswith(name)]
        assert pin in pins, "one pin, in two places"


def test_a_scaffolds_tests_run_under_its_own_settings_inside_a_repository_that_has_others(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\nno_such_option_of_the_repository = 1\n")
    create("order-status", tmp_path / "order-status")
    collected = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider"],
        cwd=tmp_path / "order-status",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "3 tests collected" in collected.stdout, collected.stdout
    assert f"rootdir: {tmp_path / 'order-status'}" in collected.stdout
    assert "warning" not in collected.stdout

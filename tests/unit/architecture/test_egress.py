"""There is one way out: no code of the engine or of agents makes an HTTP connection that the egress guard does not see."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("engine", "triggers", "orchestrators", "activities", "planner_graph", "policy", "agent_kit", "sample_agents")
CLIENTS = {"requests", "httpx", "httpx2", "httpcore", "httpcore2", "urllib3", "urllib.request", "http.client"}
HAS_ITS_OWN_GUARD = {"engine/adapters/azure_openai/client.py", "engine/adapters/azure_openai/transport.py"}
"""The models' SDK brings its own client; its network backend asks the same rules (tests of the models hold it to them)."""
GUARDS = {"guarded_connector", "GuardedConnector"}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def imported(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def called(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def unguarded(tree: ast.Module) -> list[int]:
    """Lines where a session or a connector is made without the guard."""
    lines = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if called(node.func) == "TCPConnector":
            lines.append(node.lineno)
        if called(node.func) == "ClientSession":
            connector = next((keyword.value for keyword in node.keywords if keyword.arg == "connector"), None)
            if not (isinstance(connector, ast.Call) and called(connector.func) in GUARDS):
                lines.append(node.lineno)
    return lines


def test_every_session_goes_through_the_guard() -> None:
    found = {name: unguarded(tree) for name, tree in modules()}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_no_other_http_client_is_used() -> None:
    users = {
        name
        for name, tree in modules()
        if any(module.split(".")[0] in CLIENTS or module in CLIENTS for module in imported(tree))
    }
    assert users == HAS_ITS_OWN_GUARD


def test_the_guard_of_the_models_asks_the_same_rules() -> None:
    assert "engine.domain.egress.EgressRules" in imported(
        ast.parse((ROOT / "engine/adapters/azure_openai/transport.py").read_text())
    )


def test_what_these_tests_look_for_they_find() -> None:
    bad = "import requests, aiohttp\naiohttp.ClientSession()\nClientSession(connector=TCPConnector())\n"
    assert unguarded(ast.parse(bad)) == [2, 3, 3]
    assert "requests" in imported(ast.parse(bad))
    assert unguarded(ast.parse("ClientSession(connector=guarded_connector(rules))")) == []

"""Documents are reached in one way: through a repository that has a tenant. Reads over all tenants are recovery's alone."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[3] / "engine" / "adapters" / "cosmos"
SOURCES = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.py")}


def containing(pattern: str) -> set[str]:
    return {name for name, text in SOURCES.items() if re.search(pattern, text)}


def test_only_the_repository_and_recovery_talk_to_containers() -> None:
    item_calls = (
        r"\.(query_items|read_item|create_item|upsert_item|replace_item|delete_item|execute_item_batch|patch_item)\("
    )
    assert containing(item_calls) == {"repository.py", "across_tenants.py"}
    assert containing(r"get_container_client") == {"connection.py"}


def test_no_query_leaves_its_tenant_but_those_of_recovery() -> None:
    assert containing(r"enable_cross_partition_query|read_all_items|query_items_change_feed") == set()
    assert containing(r"feed_range") == {"across_tenants.py"}
    users = {name: re.findall(r"await find_across_tenants\(", text) for name, text in SOURCES.items()}
    assert {name: len(found) for name, found in users.items() if found} == {
        "run_store.py": 1,
        "approvals.py": 1,
        "assignments.py": 2,
        "outbox.py": 1,
    }
    recovery = (
        ("run_store.py", "unfinished"),
        ("approvals.py", "answered_since"),
        ("assignments.py", "overdue"),
        ("assignments.py", "ended_since"),
        ("outbox.py", "runs_waiting"),
    )
    for name, method in recovery:
        inside = SOURCES[name].split(f"async def {method}(")[1].split("\n    async def ")[0]
        assert "find_across_tenants" in inside


def test_values_travel_as_parameters() -> None:
    """A condition is put together from constants only: what stands between braces is the name of a parameter."""
    conditions = [text for source in SOURCES.values() for text in re.findall(r'f"([^"]*\bc\.[^"]*)"', source)]
    allowed = {"{where}", "@{name}", "({where})", "{name}", "{name}{direction}"}
    for condition in conditions:
        for used in re.findall(r"@?\{[^}]*\}(?:\{[^}]*\})?", condition):
            assert used in allowed, condition

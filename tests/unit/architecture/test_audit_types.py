"""No type of audit record without somebody who writes it: a list of types is a promise to auditors."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.domain.audit import AuditType

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("engine", "triggers", "activities", "planner_graph", "policy", "bus_worker", "entities")
AUDIT_TYPES_FILE = ROOT / "engine" / "domain" / "audit.py"


def written(tree: ast.AST) -> Iterator[str]:
    """Members of ``AuditType`` that the code hands on as the type of a record.

    What is only compared with, only named in the text of an id, or looked up by, writes nothing.
    """
    match tree:
        case ast.Compare() | ast.JoinedStr():
            return
        case ast.Attribute(value=ast.Name(id="AuditType"), attr=name):
            yield name
            return
        case ast.Attribute(value=ast.Attribute(value=ast.Name(id="AuditType")), attr="value"):
            return
        case ast.Dict(keys=keys, values=values):
            # A table from one type to another says which belong together; one from something else says what is written.
            if any(set(written(key)) for key in keys if key is not None):
                return
            for value in values:
                yield from written(value)
            return
    for child in ast.iter_child_nodes(tree):
        yield from written(child)


def producers(types: frozenset[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in types}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text()
            if path == AUDIT_TYPES_FILE or "AuditType" not in text:
                continue
            for name in written(ast.parse(text)):
                found[name].append(str(path.relative_to(ROOT)))
    return found


@pytest.mark.parametrize("name", [one.name for one in AuditType])
def test_every_type_of_record_has_a_writer(name: str) -> None:
    assert producers(frozenset(one.name for one in AuditType))[name], f"nothing writes {AuditType[name].value}"


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("AuditEntry(type=AuditType.A)", {"A"}),
        ("kind = AuditType.A if x else AuditType.B", {"A", "B"}),
        ("T = {Status.X: AuditType.A}", {"A"}),
        ("T = {AuditType.A: AuditType.B}", set()),
        ("record.type is AuditType.A", set()),
        ("f'{AuditType.A.value}/1'", set()),
        ("x = AuditType.A.value", set()),
    ],
)
def test_what_counts_as_writing(code: str, names: set[str]) -> None:
    assert set(written(ast.parse(code))) == names

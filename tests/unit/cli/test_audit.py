"""`./livoa audit verify`: an honest copy of a chain is sound, and every kind of tampering is named with its place."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.audit_file import check, head_of
from cli.errors import CliError
from cli.main import main
from engine.domain.audit import AuditEntry, AuditRecord, AuditType
from engine.evidence import Head, chain

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)


def records(count: int = 12, tenant: str = "contoso", salt: str = "") -> list[AuditRecord]:
    made: list[AuditRecord] = []
    for number in range(count):
        entry = AuditEntry(
            tenant_id=tenant,
            entry_id=f"run-1/s{number}{salt}",
            type=AuditType.DISPATCH_INTENDED,
            at=AT + timedelta(seconds=number),
            run_id="run-1",
            actor="tid:ana",
            body={"step": f"s{number}", "reserved_micro_usd": number},
        )
        made.append(chain(made[-1] if made else None, entry))
    return made


def written(path: Path, found: list[AuditRecord]) -> Path:
    path.write_text("".join(record.model_dump_json() + "\n" for record in found))
    return path


def codes(path: Path, noted: Head | None, tenant: str | None = None) -> set[str]:
    return {finding.code for finding in check(path, tenant, noted).findings}


def test_an_honest_copy_is_sound(tmp_path: Path) -> None:
    made = records()
    checked = check(written(tmp_path / "a", made), None, Head(made[-1].seq, made[-1].hash))
    assert (checked.findings, checked.head, checked.tenant) == ([], Head(12, made[-1].hash), "contoso")


def tampered(name: str) -> list[AuditRecord]:
    made = records()
    match name:
        case "edit":
            made[4] = made[4].model_copy(update={"body": {"step": "s4", "reserved_micro_usd": 0}})
        case "delete":
            del made[4]
        case "insert":
            made.insert(4, records(20)[15])
        case "swap":
            made[4], made[5] = made[5], made[4]
        case "repeat":
            made.append(made[-1])
        case "cut":
            del made[-3:]
        case "rebuild":
            made = records(12, salt="-new")
        case "foreign":
            made = records(12, tenant="fabrikam")
        case "beheaded":
            del made[:2]
    return made


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("edit", "chain.hash_mismatch"),
        ("delete", "chain.gap"),
        ("insert", "chain.gap"),
        ("swap", "chain.gap"),
        ("repeat", "chain.order"),
        ("cut", "chain.head_missing"),
        ("rebuild", "chain.head_missing"),
        ("foreign", "chain.foreign_tenant"),
        ("beheaded", "chain.genesis"),
    ],
)
def test_every_kind_of_tampering_is_found_and_named(tmp_path: Path, name: str, code: str) -> None:
    honest = records()
    head = Head(honest[-1].seq, honest[-1].hash)
    assert code in codes(written(tmp_path / "a", tampered(name)), head, "contoso")


@pytest.mark.parametrize("seed", range(60))
def test_no_random_change_of_a_file_goes_unnoticed(tmp_path: Path, seed: int) -> None:
    dice, made = random.Random(seed), records(30)
    head = Head(made[-1].seq, made[-1].hash)
    lines = [record.model_dump_json() for record in made]
    place = dice.randrange(len(lines))
    match dice.randrange(4):
        case 0:
            value: dict[str, Any] = json.loads(lines[place])
            field = dice.choice(["actor", "entry_id", "prev", "hash", "run_id", "seq", "type", "at"])
            changes = {"seq": value["seq"] + 1, "type": "synthesis", "at": "2026-11-23T00:00:00Z", "prev": "f" * 64,
                       "hash": "e" * 64}  # fmt: skip
            lines[place] = json.dumps(value | {field: changes.get(field, "somebody-else")})
        case 1:
            del lines[place]
        case 2:
            lines.insert(place, lines[dice.randrange(len(lines))])
        case _:
            del lines[place:]
    path = tmp_path / "a"
    path.write_text("".join(line + "\n" for line in lines))
    assert codes(path, head, "contoso"), f"seed {seed}"


def test_the_command_says_what_is_wrong_and_where_and_returns_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "a", tampered("edit"))
    assert main(["audit", "verify", str(path)]) == 1
    assert capsys.readouterr().out.startswith("chain.hash_mismatch  line 5  ")
    assert main(["audit", "verify", str(written(tmp_path / "b", records()))]) == 0
    assert "sound: 12 records of contoso" in capsys.readouterr().out


def test_a_file_that_is_no_export_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a"
    path.write_text("{}\n")
    assert codes(path, None) == {"chain.unreadable"}
    path.write_text("")
    assert codes(path, None) == {"chain.empty"}
    assert main(["audit", "verify", str(tmp_path / "none")]) == 2
    assert main(["audit", "verify", str(path), "--head", "x"]) == 2
    with pytest.raises(CliError):
        head_of("5:zz")

"""`./livoa audit` with signed checkpoints: what the commands write and say, and that no change of a copy goes unnoticed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.audit_file import Checked, Witness, check, write_anchors
from cli.errors import CliError
from engine.adapters.files.anchors import FilesAnchors
from engine.adapters.files.signing_key import FileSigner, public_file
from engine.adapters.memory import FixedClock, MemoryAuditLog
from engine.domain.audit import AuditEntry, AuditRecord, AuditType
from engine.domain.checkpoint import Anchor
from engine.evidence import Head, chain
from engine.evidence.checkpoints import Checkpointer

AT = datetime(2026, 11, 23, 9, tzinfo=UTC)
TYPES = (AuditType.DISPATCH_INTENDED, AuditType.DISPATCH_RESULT, AuditType.POLICY_DECISION, AuditType.RUN_FINISHED)


@dataclass(frozen=True)
class Copy:
    """A folder with an export, its anchors and the key."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "audit.jsonl"

    @property
    def anchors(self) -> Path:
        return self.folder / "anchors"

    @property
    def key(self) -> Path:
        return public_file(self.folder / "signing-key.pem")

    def check(self, head: Head | None = None) -> Checked:
        return check(self.file, "contoso", head, Witness(self.anchors, self.key))

    @property
    def options(self) -> list[str]:
        return ["audit", "verify", str(self.file), "--anchors", str(self.anchors), "--pubkey", str(self.key)]


def entry(dice: random.Random, number: int) -> AuditEntry:
    return AuditEntry(
        tenant_id="contoso",
        entry_id=f"run-{number % 7}/s{number}/{dice.randrange(10**6)}",
        type=dice.choice(TYPES),
        at=AT + timedelta(milliseconds=number * 700 * dice.randrange(2)),
        run_id=dice.choice([None, f"run-{number % 7}"]),
        actor=dice.choice(["tid:ana", "tid:ben", "tid:zoë"]),
        body={"step": f"s{number}", "n": dice.randrange(10**9), "deep": {"list": [True, None, "x"]}},
    )


async def _made(folder: Path, seed: int) -> None:
    dice = random.Random(seed)
    audit, anchors = MemoryAuditLog(), FilesAnchors(folder / "anchors")
    checkpointer = Checkpointer(
        audit, anchors, FileSigner(folder / "signing-key.pem", create=True), FixedClock(AT + timedelta(hours=1))
    )
    last = None
    for part in range(dice.randrange(1, 5)):
        for number in range(dice.randrange(1, 12)):
            await audit.append(entry(dice, part * 100 + number))
        last = await checkpointer.make("contoso")
    assert last is not None
    records = await audit.read("contoso", after_seq=0, limit=last.size)
    lines = [json.dumps(r.model_dump(mode="json"), separators=(",", ":"), sort_keys=True) for r in records]
    (folder / "audit.jsonl").write_text("".join(line + "\n" for line in lines))


def made(folder: Path, seed: int = 0) -> Copy:
    folder.mkdir(exist_ok=True)
    asyncio.run(_made(folder, seed))
    return Copy(folder)


Lines = list[str]


def _edit(lines: Lines, dice: random.Random) -> None:
    place = dice.randrange(len(lines))
    value: dict[str, Any] = json.loads(lines[place])
    field = dice.choice(["actor", "entry_id", "prev", "hash", "run_id", "seq", "at", "body", "type", "tenant_id"])
    other: dict[str, Any] = {
        "seq": value["seq"] + 1, "at": "2026-11-23T00:00:01Z", "prev": "f" * 64, "hash": "e" * 64,
        "body": {**value["body"], "more": 1}, "type": "synthesis", "tenant_id": "fabrikam",
    }  # fmt: skip
    lines[place] = json.dumps(value | {field: other.get(field, "tid:eve")})


def _flip(lines: Lines, dice: random.Random) -> None:
    place = dice.randrange(len(lines))
    at = dice.randrange(len(lines[place]))
    other = dice.choice([c for c in '0123456789abcdefXYZ:"{}' if c != lines[place][at]])
    lines[place] = lines[place][:at] + other + lines[place][at + 1 :]


def _delete(lines: Lines, dice: random.Random) -> None:
    del lines[dice.randrange(len(lines))]


def _repeat(lines: Lines, dice: random.Random) -> None:
    lines.insert(dice.randrange(len(lines) + 1), lines[dice.randrange(len(lines))])


def _swap(lines: Lines, dice: random.Random) -> None:
    if len(lines) < 2:
        return _delete(lines, dice)
    one, two = dice.sample(range(len(lines)), 2)
    lines[one], lines[two] = lines[two], lines[one]
    return None


def _cut(lines: Lines, dice: random.Random) -> None:
    del lines[dice.randrange(len(lines)) :]


def _repeat_key(lines: Lines, dice: random.Random) -> None:
    place = dice.randrange(len(lines))
    lines[place] = '{"actor":"tid:eve",' + lines[place][1:]


def _rebuild(lines: Lines, dice: random.Random) -> None:
    """Change one word, then make every hash behind it good again, as who holds the store can."""
    records = [AuditRecord.model_validate_json(line) for line in lines]
    place = dice.randrange(len(records))
    last = records[place - 1] if place else None
    for index in range(place, len(records)):
        old = records[index]
        actor = "tid:eve" if index == place else old.actor
        last = chain(last, AuditEntry(tenant_id=old.tenant_id, entry_id=old.entry_id, type=old.type, at=old.at,
                                      run_id=old.run_id, actor=actor, body=old.body))  # fmt: skip
        lines[index] = last.model_dump_json()


OF_FILE: tuple[Callable[[Lines, random.Random], None], ...] = (
    _edit, _flip, _delete, _repeat, _swap, _cut, _repeat_key, _rebuild,
)  # fmt: skip


def _anchor_gone(copy: Copy, dice: random.Random) -> None:
    files = sorted(copy.anchors.rglob("*.jws"))
    # The last one alone may be missing unseen where the copy holds no note of it yet: then a head or the store has to tell.
    (dice.choice(files[:-1]) if len(files) > 1 else files[0]).unlink()


def _anchor_changed(copy: Copy, dice: random.Random) -> None:
    path = dice.choice(sorted(copy.anchors.rglob("*.jws")))
    text = path.read_text()
    at = dice.randrange(len(text))
    path.chmod(0o644)
    path.write_text(text[:at] + dice.choice([c for c in "AZaz09-_." if c != text[at]]) + text[at + 1 :])


def _other_key(copy: Copy, dice: random.Random) -> None:
    del dice
    other = FileSigner(copy.folder / "eve.pem", create=True)
    asyncio.run(other.key_id())
    shutil.copy(public_file(copy.folder / "eve.pem"), copy.key)


OF_ANCHORS = (_anchor_gone, _anchor_changed, _other_key)


def mutated(copy: Copy, seed: int) -> str:
    dice = random.Random(seed)
    if dice.random() < 0.15:
        change = dice.choice(OF_ANCHORS)
        change(copy, dice)
        return change.__name__
    lines = copy.file.read_text().splitlines()
    before = list(lines)
    attack = dice.choice(OF_FILE)
    attack(lines, dice)
    assert lines != before, f"seed {seed}: {attack.__name__} changed nothing"
    copy.file.write_text("".join(line + "\n" for line in lines))
    return attack.__name__


def assert_all_caught(folder: Path, seeds: range) -> None:
    for number in range(10):
        made(folder / f"clean{number}", seed=number)
    missed = []
    for seed in seeds:
        work = folder / "work"
        shutil.copytree(folder / f"clean{seed % 10}", work)
        name = mutated(Copy(work), seed)
        if not Copy(work).check().findings:
            missed.append((seed, name))
        shutil.rmtree(work)
    assert missed == []


def test_no_change_of_a_copy_goes_unnoticed(tmp_path: Path) -> None:
    assert_all_caught(tmp_path, range(100))


@pytest.mark.thorough
def test_none_of_a_thousand_changes_goes_unnoticed(tmp_path: Path) -> None:
    assert_all_caught(tmp_path, range(1_000))


def assert_all_sound(folder: Path, seeds: range) -> None:
    for seed in seeds:
        checked = made(folder / f"c{seed}", seed).check()
        assert (checked.findings, checked.anchored) == ([], checked.head.seq), f"seed {seed}"


def test_honest_copies_raise_no_alarm(tmp_path: Path) -> None:
    assert_all_sound(tmp_path, range(8))


@pytest.mark.thorough
def test_a_hundred_honest_copies_raise_no_alarm(tmp_path: Path) -> None:
    assert_all_sound(tmp_path, range(100))


def test_the_command_says_what_holds_and_what_does_not(livoa: Any, tmp_path: Path) -> None:
    copy = made(tmp_path / "c", seed=3)
    sound = livoa(*copy.options)
    assert sound.code == 0
    assert "signed checkpoints up to record" in sound.out
    lines = copy.file.read_text().splitlines()
    copy.file.write_text("".join(line + "\n" for line in lines[:-1]))
    cut = livoa(*copy.options, "--json")
    assert cut.code == 1
    found = cut.json["findings"][0]
    assert (found["code"], found["line"]) == ("chain.cut", 0)
    assert found["checkpoint"] >= 1
    assert f"anchored {len(lines)}" in found["message"]


def test_the_anchors_of_one_tenant_may_be_named_themselves(tmp_path: Path) -> None:
    copy = made(tmp_path / "c")
    own = check(copy.file, "contoso", None, Witness(copy.anchors / "contoso", copy.key))
    assert (own.findings, own.checkpoints) == ([], copy.check().checkpoints)


def test_a_witness_that_is_not_there_is_wrong_usage_and_not_a_sound_chain(livoa: Any, tmp_path: Path) -> None:
    copy = made(tmp_path / "c")
    assert livoa("audit", "verify", str(copy.file), "--anchors", str(copy.anchors)).code == 2
    assert livoa("audit", "verify", str(copy.file), "--pubkey", str(copy.key)).code == 2
    assert livoa(*copy.options[:4], str(tmp_path / "none"), *copy.options[5:]).code == 2
    assert livoa(*copy.options[:-1], str(copy.file)).code == 2
    assert livoa(*copy.options, "--tenant", "fabrikam").code == 1
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "anchor.none" in livoa(*copy.options[:4], str(empty), *copy.options[5:]).out


def test_an_export_ends_with_a_checkpoint_and_brings_the_anchors(connected: Any, double: Any, tmp_path: Path) -> None:
    copy = made(tmp_path / "c", seed=1)
    records = [json.loads(line) for line in copy.file.read_text().splitlines()]
    kept = asyncio.run(FilesAnchors(copy.anchors).read("contoso", after=0, limit=99))
    size = records[-1]["seq"]
    later = {**records[-1], "seq": size + 1}
    page = {"records": [*records, later], "next_after": size + 1, "more": False}
    shown = [{"number": a.number, "jws": a.jws} for a in kept]
    newer = {"number": kept[-1].number + 1, "jws": "made.mean.while"}
    double.scripts |= {
        "POST /api/audit/checkpoints": lambda _: (200, {"number": kept[-1].number, "size": size}),
        "GET /api/audit": lambda _: (200, page),
        "GET /api/audit/checkpoints": lambda _: (
            200, {"tenant_id": "contoso", "checkpoints": [*shown, newer], "next_after": 99, "more": False}),
    }  # fmt: skip
    target, anchors = tmp_path / "out.jsonl", tmp_path / "out"
    done = connected("audit", "export", str(target), "--anchors", str(anchors), "--json")
    assert (done.code, done.json["records"], done.json["checkpoint"]) == (0, size, kept[-1].number)
    assert check(target, "contoso", None, Witness(anchors, copy.key)).findings == []
    again = connected("audit", "export", str(tmp_path / "again.jsonl"), "--anchors", str(anchors))
    assert (again.code, again.out) == (0, f"{done.json['head']}\n"), "for a script: the head and nothing else"
    assert again.err.splitlines()[-1].endswith("keep it somewhere else:")
    piped = connected("audit", "export", "-")
    assert (piped.code, piped.out) == (0, target.read_text()), "the records and nothing else"
    assert piped.err.splitlines()[-1] == done.json["head"]
    assert connected("audit", "export", "-", "--json").code == 2


def test_a_chain_that_cannot_be_signed_is_exported_all_the_same(connected: Any, double: Any, tmp_path: Path) -> None:
    copy = made(tmp_path / "c")
    records = [json.loads(line) for line in copy.file.read_text().splitlines()]
    problem = {"type": "x", "title": "x", "status": 500, "code": "checkpoint.chain_broken", "detail": "it was cut"}
    double.scripts |= {
        "POST /api/audit/checkpoints": lambda _: (500, problem),
        "GET /api/audit": lambda _: (200, {"records": records, "next_after": 9, "more": False}),
    }
    done = connected("audit", "export", str(tmp_path / "out.jsonl"), "--json")
    assert (done.code, done.json["records"], done.json["checkpoint"]) == (0, len(records), None)
    assert "checkpoint.chain_broken" in done.err


def test_anchors_that_differ_from_those_at_hand_are_never_written_over(tmp_path: Path) -> None:
    write_anchors(tmp_path, "contoso", [Anchor(1, "mine")])
    with pytest.raises(CliError) as raised:
        write_anchors(tmp_path, "contoso", [Anchor(1, "theirs")])
    assert raised.value.code == "anchor.differs"
    assert asyncio.run(FilesAnchors(tmp_path).latest("contoso")) == Anchor(1, "mine")


def test_the_public_key_comes_from_the_data_folder(livoa: Any, tmp_path: Path) -> None:
    home = tmp_path / "home"
    missing = livoa("audit", "pubkey")
    assert missing.code == 2
    signer = FileSigner(home / "audit" / "signing-key.pem", create=True)
    key_id = asyncio.run(signer.key_id())
    assert livoa("audit", "pubkey").out == public_file(home / "audit" / "signing-key.pem").read_text()
    assert livoa("audit", "pubkey", "--json").json["keys"] == [key_id]


def test_content_is_what_its_hash_says_or_it_is_refused(connected: Any, double: Any) -> None:
    sha256 = hashlib.sha256(b"why?").hexdigest()
    content = {
        "run_id": "run-01test",
        "sha256": sha256,
        "size_bytes": 4,
        "media_type": "application/json",
        "text": "why?",
    }
    double.scripts[f"GET /api/runs/run-01test/audit/content/{sha256}"] = lambda _: (200, content)
    assert connected("audit", "content", "run-01test", sha256).out == "why?\n"
    encoded = content | {"base64": "d2h5Pw=="}
    del encoded["text"]
    double.scripts[f"GET /api/runs/run-01test/audit/content/{sha256}"] = lambda _: (200, encoded)
    assert connected("audit", "content", "run-01test", sha256, "--json").json == encoded
    double.scripts[f"GET /api/runs/run-01test/audit/content/{sha256}"] = lambda _: (200, content | {"text": "how?"})
    refused = connected("audit", "content", "run-01test", sha256)
    assert (refused.code, refused.out) == (1, "")


def test_a_checkpoint_on_demand_is_told(connected: Any, double: Any) -> None:
    made_now = {
        "number": 4,
        "tenant_id": "contoso",
        "size": 42,
        "head": "a" * 64,
        "root": "b" * 64,
        "at": "2026-11-23T09:00:00Z",
    }
    double.scripts["POST /api/audit/checkpoints"] = lambda _: (200, made_now)
    assert connected("audit", "checkpoint").out == f"checkpoint 4 of contoso: 42 records, head {'a' * 64}\n"
    assert connected("audit", "checkpoint", "--json").json == made_now

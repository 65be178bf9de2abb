"""The hash chain: whatever is done to a chain of records, an edit, a removal, an insertion or a swap is found."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.domain.audit import GENESIS_HASH, AuditEntry, AuditRecord, AuditType
from engine.domain.errors import LivoaError
from engine.evidence import Head, chain, record_hash, verify

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def entry(number: int, tenant_id: str = "contoso", **changes: Any) -> AuditEntry:
    fields: dict[str, Any] = {
        "tenant_id": tenant_id,
        "entry_id": f"run-1/step-{number}/1/dispatch.intended",
        "type": AuditType.DISPATCH_INTENDED,
        "at": NOON + timedelta(seconds=number),
        "run_id": "run-1",
        "actor": "tid:oid",
        "body": {"step": f"step-{number}", "cost_micro_usd": number, "policies": ["a", "b"], "deep": {"ok": True}},
    }
    return AuditEntry(**(fields | changes))


def chain_of(length: int, tenant_id: str = "contoso") -> list[AuditRecord]:
    records: list[AuditRecord] = []
    for number in range(length):
        records.append(chain(records[-1] if records else None, entry(number, tenant_id)))
    return records


def resealed(record: AuditRecord, **changes: Any) -> AuditRecord:
    """A forged record whose hash fits its content."""
    forged = record.model_copy(update=changes)
    return forged.model_copy(update={"hash": record_hash(forged)})


def codes(records: list[AuditRecord], **options: Any) -> set[str]:
    return {finding.code for finding in verify(records, "contoso", **options)}


def test_a_chain_starts_at_the_genesis_hash_and_links_every_record_to_the_one_before() -> None:
    first, second, third = chain_of(3)
    assert (first.seq, first.prev) == (1, GENESIS_HASH)
    assert (second.prev, third.prev, third.seq) == (first.hash, second.hash, 3)
    assert verify([first, second, third], "contoso") == []


def test_the_format_of_a_record_is_fixed() -> None:
    """Spelled out by hand, independent of the code: a change of the format must be a new ``v``, not a surprise."""
    record = chain(None, entry(1))
    text = (
        '{"actor":"tid:oid","at":"2026-01-05T12:00:01.000000Z",'
        '"body":{"cost_micro_usd":1,"deep":{"ok":true},"policies":["a","b"],"step":"step-1"},'
        '"entry_id":"run-1/step-1/1/dispatch.intended","prev":"' + "0" * 64 + '","run_id":"run-1","seq":1,'
        '"tenant_id":"contoso","type":"dispatch.intended","v":1}'
    )
    assert record.hash == hashlib.sha256(b"\x00" + text.encode()).hexdigest()


def test_a_record_survives_the_way_through_json() -> None:
    records = [AuditRecord.model_validate_json(record.model_dump_json()) for record in chain_of(3)]
    assert verify(records, "contoso") == []


def test_the_same_instant_in_another_zone_is_the_same_record() -> None:
    elsewhere = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert chain(None, entry(0, at=elsewhere)) == chain(None, entry(0, at=NOON))


MUTATIONS: dict[str, Any] = {
    "v": lambda r: 2,
    "tenant_id": lambda r: "fabrikam",
    "seq": lambda r: r.seq + 1,
    "entry_id": lambda r: r.entry_id + "x",
    "type": lambda r: AuditType.DISPATCH_RESULT,
    "at": lambda r: r.at + timedelta(microseconds=1),
    "run_id": lambda r: None,
    "actor": lambda r: "somebody:else",
    "body": lambda r: r.body | {"cost_micro_usd": r.body["cost_micro_usd"] + 1},
    "prev": lambda r: "f" * 64,
    "hash": lambda r: "e" * 64,
}


def test_every_field_of_a_record_is_mutated_below() -> None:
    assert set(MUTATIONS) == set(AuditRecord.model_fields)


@given(st.integers(1, 6), st.data())
def test_every_change_of_one_field_is_found(length: int, data: st.DataObject) -> None:
    records = chain_of(length)
    at = data.draw(st.integers(0, length - 1))
    name = data.draw(st.sampled_from(sorted(MUTATIONS)))
    records[at] = records[at].model_copy(update={name: MUTATIONS[name](records[at])})
    findings = verify(records, "contoso")
    assert any(finding.pointer.startswith(f"/{at}/") for finding in findings), (name, findings)


BODY_PATHS = [("step",), ("cost_micro_usd",), ("policies", 0), ("policies", 1), ("deep", "ok")]


@given(st.integers(1, 4), st.sampled_from(BODY_PATHS), st.data())
def test_every_change_inside_a_body_is_found(length: int, path: tuple[Any, ...], data: st.DataObject) -> None:
    records = chain_of(length)
    at = data.draw(st.integers(0, length - 1))
    body = records[at].model_copy(deep=True).body
    inner: Any = body
    for token in path[:-1]:
        inner = inner[token]
    replacement = data.draw(st.none() | st.integers(-9, 9) | st.text(max_size=3) | st.floats(allow_nan=False))
    assume(replacement != inner[path[-1]])
    inner[path[-1]] = replacement
    records[at] = records[at].model_copy(update={"body": body})
    assert codes(records) == {"chain.hash_mismatch"}


@given(st.integers(2, 6), st.data())
def test_an_edit_that_is_sealed_again_breaks_the_link_of_the_next_record(length: int, data: st.DataObject) -> None:
    records = chain_of(length)
    at = data.draw(st.integers(0, length - 2))
    records[at] = resealed(records[at], actor="somebody:else")
    findings = verify(records, "contoso")
    assert [(f.code, f.pointer) for f in findings] == [("chain.link_broken", f"/{at + 1}/prev")]


@given(st.integers(2, 6), st.data())
def test_a_removal_before_the_end_is_found(length: int, data: st.DataObject) -> None:
    records = chain_of(length)
    at = data.draw(st.integers(0, length - 2))
    del records[at]
    assert codes(records) & {"chain.gap", "chain.genesis"}


@given(st.integers(2, 6), st.data())
def test_a_swap_is_found(length: int, data: st.DataObject) -> None:
    records = chain_of(length)
    left, right = sorted(data.draw(st.lists(st.integers(0, length - 1), min_size=2, max_size=2, unique=True)))
    records[left], records[right] = records[right], records[left]
    assert codes(records)


@given(st.integers(1, 6), st.data())
def test_an_insertion_is_found(length: int, data: st.DataObject) -> None:
    records = chain_of(length)
    at = data.draw(st.integers(0, length - 1))
    forged = chain(records[at - 1] if at else None, entry(99))
    records.insert(at, forged)
    assert codes(records)


def test_a_repeated_record_is_found() -> None:
    records = chain_of(3)
    assert {"chain.order", "chain.entry_repeated"} <= codes([records[0], records[1], records[1], records[2]])


def test_a_record_of_another_tenant_is_found_even_when_it_is_well_chained() -> None:
    assert codes(chain_of(2, "fabrikam")) == {"chain.foreign_tenant"}


def test_a_chain_that_does_not_start_at_its_genesis_is_found() -> None:
    assert codes(chain_of(3)[1:]) == {"chain.genesis"}


def test_a_part_of_a_chain_is_sound_after_the_head_before_it() -> None:
    records = chain_of(4)
    assert verify(records[2:], "contoso", after=Head(records[1].seq, records[1].hash)) == []
    assert codes(records[2:], after=Head(records[1].seq, "a" * 64)) == {"chain.genesis"}


@given(st.integers(1, 6), st.data())
def test_a_tail_cut_below_a_noted_head_is_found(length: int, data: st.DataObject) -> None:
    records = chain_of(length)
    head = Head(records[-1].seq, records[-1].hash)
    kept = data.draw(st.integers(0, length - 1))
    assert codes(records, expected_head=head) == set()
    assert codes(records[:kept], expected_head=head) == {"chain.head_missing"}


def test_a_chain_rewritten_as_a_whole_is_found_by_a_noted_head_and_only_by_it() -> None:
    head = Head(3, chain_of(3)[-1].hash)
    rewritten: list[AuditRecord] = []
    for number in range(3):
        rewritten.append(chain(rewritten[-1] if rewritten else None, entry(number, actor="somebody:else")))
    assert codes(rewritten) == set()
    assert codes(rewritten, expected_head=head) == {"chain.head_missing"}


def test_a_float_has_no_place_in_a_body() -> None:
    with pytest.raises(LivoaError) as caught:
        chain(None, entry(1, body={"share": [1, {"of~it": 0.5}]}))
    assert (caught.value.code, caught.value.pointer) == ("audit.body_invalid", "/body/share/1/of~0it")


def test_a_body_that_cannot_be_hashed_is_not_recorded() -> None:
    with pytest.raises(LivoaError) as caught:
        chain(None, entry(1, body={"n": 2**60}))
    assert caught.value.code == "canonical.integer_range"


def test_a_chain_does_not_go_on_from_another_tenants_record() -> None:
    with pytest.raises(ValueError, match="one tenant"):
        chain(chain(None, entry(1, "fabrikam")), entry(2))

"""Where policies come from: files, reread within seconds, whole or not at all; isolation between tenants; the archive."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from engine.adapters.files.policy_archive import FilesPolicyArchive
from engine.adapters.files.policy_source import FilesPolicySource
from engine.adapters.memory import FixedClock
from engine.domain.errors import LivoaError
from engine.ports.policy import PolicyText
from policy.library import GUARANTEES, MemoryPolicyArchive, PolicyLibrary
from policy.trouble import PolicyTrouble
from tests.unit.policy.conftest import CATALOG, ROOT, Gate, Texts, library, tenant

NOTES = {"id": "notes", "capability": "rag.search", "inputs": {"query": "budget"}}
START = datetime(2026, 11, 22, tzinfo=UTC)
QUIET = '@id("t/contoso/quiet") forbid (principal, action, resource);'


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(START)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "catalog" / "policies", tmp_path / "policies")
    return tmp_path


async def faults(source: object) -> list[str]:
    with pytest.raises(LivoaError) as refused:
        await library(source).in_force("contoso")
    assert (refused.value.code, refused.value.status) == ("policy.unavailable", 503)
    return [found.code for found in refused.value.violations]


async def test_a_changed_file_takes_effect_within_seconds(root: Path, clock: FixedClock) -> None:
    found = library(FilesPolicySource(root, clock))
    before = await found.in_force("contoso")
    (root / "policies" / "tenants" / "contoso" / "more.cedar").write_text(QUIET)
    assert (await found.in_force("contoso")).book.hash == before.book.hash, "taken from memory"
    clock.advance(timedelta(seconds=3).total_seconds())
    after = await found.in_force("contoso")
    assert set(after.book.rules) - set(before.book.rules) == {"t/contoso/quiet"}


async def test_missing_platform_policies_make_everything_unavailable(root: Path, clock: FixedClock) -> None:
    shutil.rmtree(root / "policies" / "platform")
    await faults(FilesPolicySource(root, clock))


@pytest.mark.parametrize("lost", ["taint", "egress", "tenancy", "bounds"])
async def test_a_lost_file_of_the_platform_is_no_permission(root: Path, clock: FixedClock, lost: str) -> None:
    whole = PolicyLibrary(FilesPolicySource(root, clock), CATALOG, required=GUARANTEES)
    assert set((await whole.in_force("contoso")).platform.rules) >= GUARANTEES
    (root / "policies" / "platform" / f"{lost}.cedar").unlink()
    found = PolicyLibrary(FilesPolicySource(root, clock), CATALOG, required=GUARANTEES)
    with pytest.raises(LivoaError) as refused:
        await found.in_force("contoso")
    assert {one.code for one in refused.value.violations} == {"policy.missing"}


@pytest.mark.parametrize("broken", ["platform/taint.cedar", "tenants/contoso/people.cedar"], ids=["platform", "tenant"])
@pytest.mark.parametrize("content", [b"permit (", b"\xff\xfe", b"x" * 1_100_000], ids=["syntax", "bytes", "size"])
async def test_one_bad_file_makes_everything_unavailable(
    root: Path, clock: FixedClock, broken: str, content: bytes
) -> None:
    (root / "policies" / broken).write_bytes(content)
    await faults(FilesPolicySource(root, clock))


async def test_one_tenants_bad_file_is_no_matter_to_another(texts: Texts) -> None:
    texts.add("contoso", "permit (")
    found = library(texts)
    with pytest.raises(LivoaError):
        await found.in_force("contoso")
    assert (await found.in_force("fabrikam")).book.rules


async def test_a_tenant_sees_only_its_own_policies(texts: Texts) -> None:
    found = library(texts)
    for tenant_id, other in (("contoso", "fabrikam"), ("fabrikam", "contoso")):
        assert not any(rule.startswith(f"t/{other}/") for rule in (await found.in_force(tenant_id)).book.rules)
    newcomer = (await found.in_force("newcomer")).book.rules
    assert {rule.split(".")[0] for rule in newcomer} == {"plat", "default"}


async def test_a_tenants_name_leads_nowhere_else(root: Path, clock: FixedClock) -> None:
    source = FilesPolicySource(root, clock)
    for name in ("../contoso", "..", "", "a/b", "contoso/../fabrikam"):
        with pytest.raises(LivoaError) as refused:
            await source.texts(name)
        assert refused.value.code == "policy.unavailable"


async def test_a_failure_is_remembered_for_seconds_only(texts: Texts, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    now = [100.0]
    found = library(texts)
    texts.add("contoso", "permit (")
    real = PolicyLibrary._compiled
    monkeypatch.setattr("policy.library.time.monotonic", lambda: now[0])
    monkeypatch.setattr(PolicyLibrary, "_compiled", lambda *a: (asked.append(1), real(*a))[1])
    for _ in range(3):
        with pytest.raises(LivoaError):
            await found.in_force("contoso")
    assert len(asked) == 1
    now[0] += 6
    with pytest.raises(LivoaError):
        await found.in_force("contoso")
    assert len(asked) == 2


async def test_the_hash_names_the_set_whatever_the_order_of_files(texts: Texts) -> None:
    one = (await library(texts).in_force("contoso")).book.hash
    texts.platform = tuple(reversed(texts.platform))
    assert (await library(texts).in_force("contoso")).book.hash == one
    texts.platform = (
        *texts.platform,
        PolicyText("platform/n.cedar", '@id("plat.n") forbid (principal, action, resource);'),
    )
    assert (await library(texts).in_force("contoso")).book.hash != one


def test_the_archive_keeps_a_set_and_gives_nothing_for_a_hash_it_does_not_know(tmp_path: Path) -> None:
    archive = FilesPolicyArchive(tmp_path / "sets")
    name = "a" * 64
    archive.put(name, {"p": {"effect": "permit"}})
    archive.put(name, {"p": {"effect": "forbid"}})
    assert archive.get(name) == {"p": {"effect": "permit"}}, "written once"
    for other in ("b" * 64, "../" + name, "", "A" * 64):
        assert archive.get(other) is None
    (tmp_path / "sets" / f"{'c' * 64}.json").write_text("{")
    assert archive.get("c" * 64) is None
    assert sorted(path.suffix for path in (tmp_path / "sets").iterdir()) == [".json", ".json"]


def test_an_archive_that_cannot_be_written_breaks_nothing(tmp_path: Path) -> None:
    (tmp_path / "sets").write_text("a file, no folder")
    FilesPolicyArchive(tmp_path / "sets").put("a" * 64, {})


async def test_a_tampered_archive_is_not_believed(texts: Texts) -> None:
    archive = MemoryPolicyArchive()
    book = (await library(texts, archive).in_force("contoso")).book
    kept = json.loads(json.dumps(archive.get(book.hash)))
    del kept["plat.taint-selector"]
    archive.put(book.hash, kept)
    assert library(texts, archive).pinned(book.hash) is None
    archive.put(book.hash, {"plat.x": {"nonsense": 1}})
    assert library(texts, archive).pinned(book.hash) is None


async def test_two_tenants_asking_at_once_get_their_own(gate: Gate) -> None:
    import asyncio

    decisions = await asyncio.gather(*(gate.plan(NOTES, tenant=tenant(name)) for name in ("contoso", "fabrikam") * 5))
    assert [one.allows for one in decisions] == [True] * 10
    assert len({one.policy_set_hash for one in decisions}) == 2


def test_the_vocabulary_is_built_once_per_catalog() -> None:
    found = library(Texts())
    assert found.words() is found.words()
    assert found.words().hash == PolicyLibrary(Texts(), CATALOG).words().hash


async def test_policies_that_have_gone_are_not_replaced_by_those_for_tenants_without(
    root: Path, clock: FixedClock
) -> None:
    source = FilesPolicySource(root, clock)
    found = library(source)
    assert "t/contoso/plan" in (await found.in_force("contoso")).book.rules
    own = root / "policies" / "tenants" / "contoso"
    own.rename(own.with_name("moved-away"))
    clock.advance(3)
    await faults(source)


async def test_a_tenants_folder_without_policies_is_half_written_and_not_a_wish_for_the_defaults(
    root: Path, clock: FixedClock
) -> None:
    for path in (root / "policies" / "tenants" / "contoso").glob("*.cedar"):
        path.rename(path.with_suffix(".cedar.new"))
    await faults(FilesPolicySource(root, clock))


class Told:
    """A library over the shipped policies that tells the log, asked by two tenants without policies of their own."""

    def __init__(self, root: Path, clock: FixedClock) -> None:
        self.library, self.clock = (
            PolicyLibrary(FilesPolicySource(root, clock), CATALOG, trouble=PolicyTrouble()),
            clock,
        )

    async def look(self) -> list[str]:
        self.clock.advance(3)
        return [await self.library.look(name) for name in ("adatum", "adatum", "wingtip")]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b"permit (nonsense", "platform/kill-switch.cedar"),
        (b"\xff", "platform/kill-switch.cedar: The policies cannot be read"),
    ],
)
async def test_the_log_hears_once_of_broken_policies_and_once_when_they_are_mended(
    root: Path, clock: FixedClock, caplog: pytest.LogCaptureFixture, text: bytes, place: str
) -> None:
    caplog.set_level(logging.INFO, "livoa.policy")
    told, page = Told(root, clock), root / "policies" / "platform" / "kill-switch.cedar"
    good = page.read_bytes()
    assert await told.look() == ["in_force"] * 3
    page.write_bytes(text)
    assert [await told.look() for _ in range(2)] == [["broken"] * 3] * 2
    page.write_bytes(good)
    assert [await told.look() for _ in range(2)] == [["in_force"] * 3] * 2
    page.write_bytes(text)
    assert await told.look() == ["broken"] * 3
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO", "ERROR"]
    assert place in caplog.records[0].getMessage()
    assert caplog.records[0].__dict__["code"] == "policy.unavailable"


async def test_the_log_names_the_tenant_whose_own_policies_cannot_be_used(
    root: Path, clock: FixedClock, caplog: pytest.LogCaptureFixture
) -> None:
    told = PolicyLibrary(FilesPolicySource(root, clock), CATALOG, trouble=PolicyTrouble())
    assert await told.look("contoso") == "in_force"
    shutil.rmtree(root / "policies" / "tenants" / "contoso")
    clock.advance(3)
    with contextlib.suppress(LivoaError):
        await told.in_force("contoso")
    (record,) = caplog.records
    assert "tenant contoso: tenants/contoso: The policies cannot be read: the tenant's own" in record.getMessage()

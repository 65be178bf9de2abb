"""What every tenant directory promises; and that files take effect soon, whole or not at all."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.adapters.files import FilesTenantDirectory
from engine.adapters.files.tenant_directory import LOOK_AGAIN_AFTER_S
from engine.adapters.memory import FixedClock, MemoryTenantDirectory
from engine.domain.errors import LivoaError
from engine.domain.tenant import Bounds, TenantConfig, TrustedIssuer
from engine.ports.tenant_directory import TenantDirectory

ISSUER = "https://login.example/d1/v2.0"


def tenant(tenant_id: str, directory_id: str, **changes: Any) -> TenantConfig:
    fields: dict[str, Any] = {
        "tenant_id": tenant_id,
        "display_name": tenant_id.title(),
        "issuers": (TrustedIssuer(issuer=ISSUER, directory_id=directory_id),),
        "enabled_capabilities": ("sales.query",),
        "bounds": Bounds(max_steps=7),
    }
    return TenantConfig(**(fields | changes))


TENANTS = (tenant("fabrikam", "d2", status="suspended"), tenant("contoso", "d1"))


def write(root: Path, *tenants: TenantConfig) -> None:
    (root / "tenants").mkdir(exist_ok=True)
    for each in tenants:
        (root / "tenants" / f"{each.tenant_id}.yaml").write_text(yaml.safe_dump(each.model_dump(mode="json")))


@pytest.fixture(params=["memory", "files"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> TenantDirectory:
    if request.param == "memory":
        return MemoryTenantDirectory(TENANTS)
    write(tmp_path, *TENANTS)
    return FilesTenantDirectory(tmp_path, FixedClock())


async def test_a_tenant_is_found_by_its_id(directory: TenantDirectory) -> None:
    assert await directory.get("contoso") == TENANTS[1]
    assert await directory.get("Contoso") is None
    assert await directory.get("../tenants/contoso") is None


async def test_a_tenant_is_found_by_the_pair_of_issuer_and_directory_only(directory: TenantDirectory) -> None:
    assert await directory.by_directory(ISSUER, "d2") == TENANTS[0]
    assert await directory.by_directory(ISSUER, "d3") is None
    assert await directory.by_directory("https://login.example/d2/v2.0", "d2") is None


async def test_all_tenants_come_in_order_of_id(directory: TenantDirectory) -> None:
    assert await directory.all() == (TENANTS[1], TENANTS[0])


def test_one_issuer_and_directory_cannot_speak_for_two_tenants() -> None:
    with pytest.raises(ValueError, match="two tenants"):
        MemoryTenantDirectory([tenant("a", "d1"), tenant("b", "d1")])
    with pytest.raises(ValueError, match="twice"):
        MemoryTenantDirectory([tenant("a", "d1"), tenant("a", "d2")])


async def test_a_changed_page_takes_effect_within_seconds(tmp_path: Path) -> None:
    clock = FixedClock()
    write(tmp_path, *TENANTS)
    directory = FilesTenantDirectory(tmp_path, clock)
    assert len(await directory.all()) == 2
    write(tmp_path, tenant("contoso", "d1", status="suspended"), tenant("northwind", "d9"))
    assert len(await directory.all()) == 2
    clock.advance(LOOK_AGAIN_AFTER_S)
    found = await directory.get("contoso")
    assert found is not None
    assert found.status == "suspended"
    assert await directory.by_directory(ISSUER, "d9") == tenant("northwind", "d9")
    (tmp_path / "tenants" / "northwind.yaml").unlink()
    clock.advance(LOOK_AGAIN_AFTER_S)
    assert await directory.by_directory(ISSUER, "d9") is None


async def test_a_clock_that_was_set_back_does_not_keep_old_tenants(tmp_path: Path) -> None:
    clock = FixedClock()
    write(tmp_path, *TENANTS)
    directory = FilesTenantDirectory(tmp_path, clock)
    await directory.all()
    clock.advance(-3600)
    write(tmp_path, tenant("northwind", "d9"))
    assert len(await directory.all()) == 3


async def test_a_broken_page_makes_the_directory_unavailable_until_it_is_mended(tmp_path: Path) -> None:
    clock = FixedClock()
    write(tmp_path, *TENANTS)
    directory = FilesTenantDirectory(tmp_path, clock)
    await directory.all()
    (tmp_path / "tenants" / "contoso.yaml").write_text("status: suspnded\n")
    clock.advance(LOOK_AGAIN_AFTER_S)
    for _ in range(2):
        with pytest.raises(LivoaError) as caught:
            await directory.by_directory(ISSUER, "d1")
        assert (caught.value.code, caught.value.status) == ("tenants.invalid", 503)
        assert "tenants/contoso.yaml#/status" in {v.pointer for v in caught.value.violations}
    write(tmp_path, TENANTS[1])
    assert await directory.by_directory(ISSUER, "d1") == TENANTS[1]


async def test_the_log_hears_once_of_a_broken_page_and_once_when_it_is_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "livoa.tenants")
    clock = FixedClock()
    write(tmp_path, *TENANTS)
    directory = FilesTenantDirectory(tmp_path, clock, tells=True)
    await directory.all()
    for text in ("status: suspnded\n", "name: [", None):
        if text is None:
            write(tmp_path, TENANTS[1])
        else:
            (tmp_path / "tenants" / "contoso.yaml").write_text(text)
        for _ in range(3):
            clock.advance(LOOK_AGAIN_AFTER_S)
            with contextlib.suppress(LivoaError):
                await directory.all()
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR", "INFO"]
    assert "tenants/contoso.yaml#/status" in caplog.records[0].getMessage()
    assert "tenants/contoso.yaml#" in caplog.records[1].getMessage()


async def test_pages_that_trust_the_same_directory_are_refused_with_their_place(tmp_path: Path) -> None:
    write(tmp_path, tenant("a", "d1"), tenant("b", "d1"))
    with pytest.raises(LivoaError) as caught:
        await FilesTenantDirectory(tmp_path, FixedClock()).all()
    assert [(v.code, v.pointer) for v in caught.value.violations] == [
        ("tenants.issuer_shared", "tenants/b.yaml#/issuers/0")
    ]


async def test_no_tenants_at_all_is_a_fault_and_no_empty_directory(tmp_path: Path) -> None:
    with pytest.raises(LivoaError) as caught:
        await FilesTenantDirectory(tmp_path, FixedClock()).all()
    assert [v.code for v in caught.value.violations] == ["tenants.none"]


async def test_the_catalog_of_this_repository_has_tenants_that_load() -> None:
    root = Path(__file__).parents[3] / "catalog"
    assert {t.tenant_id for t in await FilesTenantDirectory(root, FixedClock()).all()} >= {"contoso", "fabrikam"}

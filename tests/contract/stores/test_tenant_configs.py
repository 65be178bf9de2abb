"""What every store of tenants' configurations promises, and what the directory makes of pages and versions together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import text

from engine.adapters.cosmos import CosmosTenantVersions
from engine.adapters.files import FilesTenantDirectory
from engine.adapters.memory import FixedClock, MemoryTenantDirectory, MemoryTenantVersions
from engine.adapters.sql import Database, SqlTenantVersions
from engine.adapters.sql.migrations import MIGRATIONS
from engine.adapters.tenant_configs import LOOK_AGAIN_AFTER_S, VersionedTenants, VersionStore
from engine.domain.errors import ConflictError, LivoaError
from engine.domain.tenant import TenantConfig, TrustedIssuer
from engine.domain.tenant_changes import config_sha256
from engine.ports.tenant_configs import TenantVersion
from tests.contract.stores.conftest import SQL, Stores, new_cosmos, new_database

CLOCK = FixedClock()


def config(version: int = 1, tenant_id: str = "contoso", **fields: Any) -> TenantConfig:
    issuer = TrustedIssuer(issuer=f"https://login.test/{tenant_id}", directory_id=tenant_id)
    base: dict[str, Any] = {"display_name": tenant_id, "issuers": (issuer,), "enabled_capabilities": ("a.b", "c.d")}
    return TenantConfig(tenant_id=tenant_id, version=version, **(base | fields))


def version(number: int, tenant_id: str = "contoso", **fields: Any) -> TenantVersion:
    written = config(number, tenant_id, **fields)
    return TenantVersion(written, config_sha256(written), "tid:ana", CLOCK.now() + timedelta(seconds=number))


@pytest.fixture(params=["memory", *SQL, "cosmos"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[VersionStore]:
    if request.param == "memory":
        yield MemoryTenantVersions()
        return
    if request.param == "cosmos":
        async with new_cosmos() as world:
            yield CosmosTenantVersions(world.connect())
        return
    with new_database(request.param, tmp_path) as url:
        database = Database(url, CLOCK)
        yield SqlTenantVersions(database)
        await database.dispose()


async def test_versions_are_kept_as_they_were_written_newest_first(store: VersionStore) -> None:
    assert await store.latest("contoso") is None
    for number in (2, 3, 7):
        await store.add("contoso", version(number, enabled_capabilities=("a.b",)))
    assert await store.latest("contoso") == version(7, enabled_capabilities=("a.b",))
    assert [found.config.version for found in await store.versions("contoso", below=None, limit=9)] == [7, 3, 2]
    assert [found.config.version for found in await store.versions("contoso", below=7, limit=1)] == [3]
    assert await store.versions("contoso", below=2, limit=9) == ()
    assert await store.versions("contoso", below=None, limit=0) == ()


async def test_a_number_that_is_taken_or_passed_is_a_conflict_and_the_same_again_is_not(store: VersionStore) -> None:
    await store.add("contoso", version(3))
    await store.add("contoso", version(3))
    for late in (version(3, display_name="other"), version(2)):
        with pytest.raises(ConflictError) as caught:
            await store.add("contoso", late)
        assert caught.value.code == "tenant.version_conflict"
    assert len(await store.versions("contoso", below=None, limit=9)) == 1


async def test_of_many_who_write_one_number_one_wins(store: VersionStore) -> None:
    rivals = [store.add("contoso", version(2, display_name=f"rival {number}")) for number in range(8)]
    outcomes = await asyncio.gather(*rivals, return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 1
    assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 7


async def test_tenants_do_not_see_each_other(store: VersionStore) -> None:
    await store.add("contoso", version(2))
    assert await store.latest("fabrikam") is None
    assert await store.versions("fabrikam", below=None, limit=9) == ()
    await store.add("fabrikam", version(2, "fabrikam"))
    assert (await store.latest("contoso")) == version(2)


# -- pages and versions together


def tenants(store: VersionStore, *pages: TenantConfig, clock: FixedClock | None = None) -> VersionedTenants:
    return VersionedTenants(
        MemoryTenantDirectory(pages or (config(), config(1, "fabrikam"))), store, clock or FixedClock()
    )


async def test_a_change_holds_at_once_here_and_within_seconds_elsewhere(store: VersionStore) -> None:
    clock = FixedClock()
    here, there = tenants(store, clock=clock), tenants(store, clock=clock)
    assert [(await each.get("contoso")).enabled_capabilities for each in (here, there)] == [("a.b", "c.d")] * 2  # type: ignore[union-attr]  # it is there
    await here.add("contoso", version(2, enabled_capabilities=("a.b",), status="suspended"))
    for found in (await here.get("contoso"), await here.by_directory("https://login.test/contoso", "contoso")):
        assert found is not None
        assert (found.version, found.status, found.enabled_capabilities) == (2, "suspended", ("a.b",))
    assert [each.version for each in await here.all()] == [2, 1]
    assert (await there.get("contoso")).version == 1  # type: ignore[union-attr]  # it is there
    clock.advance(LOOK_AGAIN_AFTER_S)
    assert (await there.get("contoso")).status == "suspended"  # type: ignore[union-attr]  # it is there


async def test_the_admins_view_is_never_old(store: VersionStore) -> None:
    here, there = tenants(store), tenants(store)
    assert (await there.current("contoso")).config.version == 1  # type: ignore[union-attr]  # it is there
    await here.add("contoso", version(2))
    current = await there.current("contoso")
    assert current is not None
    assert (current.base.version, current.config.version) == (1, 2)
    assert await there.current("northwind") is None


async def test_a_clock_that_was_set_back_does_not_keep_what_was(store: VersionStore) -> None:
    clock = FixedClock()
    there = tenants(store, clock=clock)
    await there.get("contoso")
    await tenants(store).add("contoso", version(2))
    clock.advance(-3_600)
    assert (await there.get("contoso")).version == 2  # type: ignore[union-attr]  # it is there


async def test_a_version_not_above_the_operators_is_a_conflict(store: VersionStore) -> None:
    directory = tenants(store, config(5))
    for number in (4, 5):
        with pytest.raises(ConflictError):
            await directory.add("contoso", version(number))
    with pytest.raises(ConflictError):
        await directory.add("northwind", version(9, "northwind"))
    assert await store.latest("contoso") is None


async def test_an_admin_cannot_hold_on_to_what_the_operator_takes_back(tmp_path: Path, store: VersionStore) -> None:
    def write(page: TenantConfig) -> None:
        (tmp_path / "tenants").mkdir(exist_ok=True)
        (tmp_path / "tenants" / "contoso.yaml").write_text(yaml.safe_dump(page.model_dump(mode="json")))

    clock = FixedClock()
    write(config())
    directory = VersionedTenants(FilesTenantDirectory(tmp_path, clock), store, clock)
    await directory.add("contoso", version(2, display_name="ours"))
    write(config(status="suspended", enabled_capabilities=("c.d",), issuers=()))
    clock.advance(LOOK_AGAIN_AFTER_S)
    found = await directory.get("contoso")
    assert found is not None
    assert (found.display_name, found.status, found.enabled_capabilities) == ("ours", "suspended", ("c.d",))
    assert await directory.by_directory("https://login.test/contoso", "contoso") is None


async def test_while_changes_cannot_be_read_no_tenant_can() -> None:
    class Down(MemoryTenantVersions):
        async def latest(self, tenant_id: str) -> TenantVersion | None:
            raise LivoaError("store.unavailable", "the database failed", status=503)

    for call in (lambda d: d.get("contoso"), lambda d: d.current("contoso"), lambda d: d.all()):
        with pytest.raises(LivoaError) as caught:
            await call(tenants(Down()))
        assert caught.value.status == 503


async def test_a_version_that_is_not_understood_closes_the_tenant(open_sql: Callable[[], Stores]) -> None:
    stores = open_sql()
    assert stores.database is not None
    versions = SqlTenantVersions(stores.database)
    await versions.add("contoso", version(2))
    change = text("""UPDATE tenant_versions SET document = '{"tenant_id": "contoso", "from_the_future": 1}'""")
    await stores.database.write(lambda connection: connection.execute(change))
    with pytest.raises(LivoaError) as caught:
        await tenants(versions).get("contoso")
    assert (caught.value.code, caught.value.status) == ("tenants.invalid", 503)


async def test_a_database_of_the_version_before_learns_to_keep_configurations(sql_url: str) -> None:
    number = next(each.version for each in MIGRATIONS if "configurations" in each.why)
    old = Database(sql_url, CLOCK)
    undo = (
        "DROP TABLE tenant_versions",
        "DELETE FROM schema_version",
        f"INSERT INTO schema_version VALUES ({number - 1}, 'then')",
    )
    for statement in undo:
        await old.write(lambda connection, statement=statement: connection.execute(text(statement)))
    await old.dispose()
    for _ in range(2):
        newer = Database(sql_url, CLOCK)
        await SqlTenantVersions(newer).add("contoso", version(2))
        assert await SqlTenantVersions(newer).latest("contoso") == version(2)
        await newer.dispose()

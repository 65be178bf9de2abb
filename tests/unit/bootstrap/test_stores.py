"""The stores are those that the settings name, and all of them: none stays in memory or in another place by mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.adapters.redis import RedisWakeups
from engine.bootstrap import stores as bootstrap_stores
from engine.bootstrap.container import build_deps
from engine.bootstrap.settings import load_settings
from engine.domain.errors import LivoaError
from engine.ports.deps import Deps

KEPT = ("runs", "events", "approvals", "budgets", "model_results", "result_cache")


def built(tmp_path: Path, **settings: str) -> Deps:
    return build_deps(load_settings({"LIVOA_ENV": "local", "LIVOA_DATA": str(tmp_path)} | settings))


@pytest.mark.parametrize("store", ["sql", "cosmos"])
def test_every_store_is_of_the_kind_asked_for(tmp_path: Path, store: str) -> None:
    deps = built(tmp_path, LIVOA_STORE=store, LIVOA_COSMOS_ENDPOINT="https://account.example/")
    expected = f"engine.adapters.{store}."
    for name in KEPT:
        assert type(getattr(deps, name)).__module__.startswith(expected), name
    versions = deps.tenant_configs._store  # type: ignore[attr-defined]  # what the directory is laid over
    permits = deps.admission._ledger  # type: ignore[attr-defined]  # what the door draws from
    assert type(versions).__module__.startswith(expected)
    assert type(permits).__module__.startswith(expected)
    assert not (tmp_path / "livoa.db").exists(), "nothing is opened before it is used"


def test_redis_wakes_whatever_the_store_is(tmp_path: Path) -> None:
    redis = {"LIVOA_REDIS_URL": "redis://127.0.0.1:1/0"}
    sql = built(tmp_path, **redis)
    assert isinstance(sql.runs._database.wakeups, RedisWakeups)  # type: ignore[attr-defined]  # shared by its stores
    cosmos = built(tmp_path, LIVOA_STORE="cosmos", LIVOA_COSMOS_ENDPOINT="https://account.example/", **redis)
    assert isinstance(cosmos.runs._partitions.wakeups, RedisWakeups)  # type: ignore[attr-defined]  # shared by its stores


def test_redis_without_its_library_is_a_wrong_setting_and_not_silently_polling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap_stores, "find_spec", lambda name: None)
    with pytest.raises(LivoaError) as caught:
        built(tmp_path, LIVOA_REDIS_URL="redis://127.0.0.1:1/0")
    assert caught.value.pointer == "/LIVOA_REDIS_URL"


def test_naming_cosmos_does_not_load_its_library(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from engine.bootstrap.container import get_deps\n"
        "get_deps()\n"
        "print([name for name in ('azure.cosmos', 'sqlalchemy', 'redis') if name in sys.modules])"
    )
    environment = {
        "PATH": "",
        "LIVOA_ENV": "local",
        "LIVOA_DATA": str(tmp_path),
        "LIVOA_STORE": "cosmos",
        "LIVOA_COSMOS_ENDPOINT": "https://account.example/",
    }
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reading_settings_loads_no_store() -> None:
    program = (
        "import sys, engine.bootstrap.container\n"
        "stores = tuple(f'engine.adapters.{name}' for name in ('cosmos.', 'sql', 'redis'))\n"
        "print([n for n in sys.modules if n.startswith(stores)])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

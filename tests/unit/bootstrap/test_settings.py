"""Settings: safe unless told otherwise, and a wrong one is named."""

import json
from pathlib import Path

import pytest

from engine.bootstrap.settings import ROOT, load_settings
from engine.domain.errors import LivoaError


def test_without_a_word_the_environment_is_azure_and_needs_a_database():
    with pytest.raises(LivoaError) as caught:
        load_settings({})
    assert caught.value.pointer == "/LIVOA_DATABASE_URL"


def test_local_needs_nothing_else(tmp_path):
    settings = load_settings({"LIVOA_ENV": "local", "LIVOA_DATA": str(tmp_path)})
    assert settings.environment == "local"
    assert settings.database_url == f"sqlite:///{tmp_path / 'livoa.db'}"
    assert settings.telemetry_exporter == "none"
    assert not settings.http_streaming


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LIVOA_ENV", "prod"),
        ("LIVOA_AGENT_ENDPOINTS", "[]"),
        ("LIVOA_AGENT_ENDPOINTS", "{"),
        ("LIVOA_AGENT_ENDPOINTS", '{"a": "ftp://x"}'),
        ("LIVOA_JWKS_URL", "http://keys.example"),
        ("LIVOA_TELEMETRY", "console"),
        ("LIVOA_TELEMETRY", "azure_monitor"),
        ("LIVOA_LOG_LEVEL", "LOUD"),
        ("LIVOA_HTTP_STREAMING", "yes"),
        ("LIVOA_STORE", "mongo"),
        ("LIVOA_REDIS_URL", "redis://elsewhere.example:6379/0"),
        ("LIVOA_REDIS_URL", "http://127.0.0.1"),
        ("LIVOA_REDIS_URL", "rediss:///0"),
    ],
)
def test_a_wrong_setting_is_named(name, value):
    with pytest.raises(LivoaError) as caught:
        load_settings({"LIVOA_ENV": "local", name: value})
    assert caught.value.code == "settings.invalid"
    assert caught.value.pointer == f"/{name}"


@pytest.mark.parametrize("endpoint", ["", "http://account.example", "ftp://127.0.0.1", "https://", "account"])
def test_cosmos_needs_an_address_nobody_can_listen_on(endpoint):
    with pytest.raises(LivoaError) as caught:
        load_settings({"LIVOA_STORE": "cosmos", "LIVOA_COSMOS_ENDPOINT": endpoint, "LIVOA_ENV": "local"})
    assert caught.value.pointer == "/LIVOA_COSMOS_ENDPOINT"


def test_cosmos_needs_no_database_address_and_shows_no_key():
    cosmos = {
        "LIVOA_STORE": "cosmos",
        "LIVOA_COSMOS_ENDPOINT": "https://account.example/",
        "LIVOA_COSMOS_KEY": "canary",
    }
    settings = load_settings(cosmos | {"LIVOA_REDIS_URL": "rediss://:canary@cache.example:6380/0"})
    assert settings.stores.cosmos is not None
    assert (settings.stores.cosmos.database, settings.database_url) == ("livoa", "")
    assert "canary" not in repr(settings)
    with pytest.raises(LivoaError):
        load_settings({"LIVOA_STORE": "cosmos", "LIVOA_COSMOS_ENDPOINT": "http://127.0.0.1:8081"})


def test_checkpoints_need_a_place_and_a_key_and_one_machine_has_both_by_itself(tmp_path):
    local = load_settings({"LIVOA_ENV": "local", "LIVOA_DATA": str(tmp_path)})
    assert local.audit_anchors == tmp_path / "audit" / "anchors"
    assert local.audit_key == tmp_path / "audit" / "signing-key.pem"
    azure = {"LIVOA_DATABASE_URL": "postgresql://db/livoa"}
    assert load_settings(azure).audit_anchors is None
    for name, missing in (("LIVOA_AUDIT_ANCHORS", "LIVOA_AUDIT_KEY"), ("LIVOA_AUDIT_KEY", "LIVOA_AUDIT_ANCHORS")):
        with pytest.raises(LivoaError) as caught:
            load_settings(azure | {name: str(tmp_path)})
        assert caught.value.pointer == f"/{missing}"
    vault = {"LIVOA_AUDIT_ANCHORS": str(tmp_path), "LIVOA_AUDIT_KEY": "https://v.vault.azure.net/keys/audit"}
    assert load_settings(azure | vault).audit_key == vault["LIVOA_AUDIT_KEY"]
    container = vault | {"LIVOA_AUDIT_ANCHORS": "https://worm.blob.core.windows.net/evidence"}
    assert load_settings(azure | container).audit_anchors == container["LIVOA_AUDIT_ANCHORS"]
    with pytest.raises(LivoaError) as caught:
        load_settings(azure | vault | {"LIVOA_AUDIT_KEY": "http://v.vault.azure.net/keys/audit"})
    assert caught.value.pointer == "/LIVOA_AUDIT_KEY"


def test_the_sample_settings_are_complete_and_valid():
    sample = json.loads((ROOT / "local.settings.sample.json").read_text())["Values"]
    load_settings(sample)
    folder = ROOT / "engine" / "bootstrap"
    source = "".join((folder / name).read_text() for name in ("settings.py", "store_settings.py"))
    read = {name for name in sample if name.startswith(("LIVOA_", "APPLICATIONINSIGHTS"))}
    assert read == {word for word in _quoted_names(source) if word.startswith(("LIVOA_", "APPLICATIONINSIGHTS"))}


def _quoted_names(source: str) -> set[str]:
    return {part for part in source.split('"') if part.isupper() and " " not in part}


def test_nothing_else_reads_the_environment():
    offenders = [
        str(path.relative_to(ROOT))
        for package in ("engine", "triggers", "orchestrators", "activities", "planner_graph", "policy")
        for path in (ROOT / package).rglob("*.py")
        if ("os.environ" in path.read_text() or "getenv" in path.read_text())
        and path != Path(ROOT / "engine" / "bootstrap" / "settings.py")
    ]
    assert offenders == []

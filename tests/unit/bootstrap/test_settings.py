"""Settings: safe unless told otherwise, and a wrong one is named."""

import json
import re
from pathlib import Path

import pytest

from engine.bootstrap.settings import ROOT, bus_results_queue, load_settings
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
        ("LIVOA_BUS_CONNECTION", "amqps://elsewhere.example"),
        ("LIVOA_BUS_CONNECTION__fullyQualifiedNamespace", "https://bus.example/"),
        ("LIVOA_WORKER_CONCURRENCY", "0"),
        ("LIVOA_WORKER_PREFETCH", "many"),
        ("LIVOA_WORKER_QUEUES", "a b"),
        ("LIVOA_PAYLOADS", "http://account.example/payloads"),
        ("LIVOA_PAYLOADS", "https://account.example"),
        ("LIVOA_PAYLOADS", "https://account.example/payloads?sv=signature"),
        ("LIVOA_PAYLOAD_KEY", "http://vault.example/keys/content"),
    ],
)
def test_a_wrong_setting_is_named(name, value):
    with pytest.raises(LivoaError) as caught:
        load_settings({"LIVOA_ENV": "local", name: value})
    assert caught.value.code == "settings.invalid"
    assert caught.value.pointer == f"/{name}"


BUS = "Endpoint=sb://bus.example/;SharedAccessKeyName=app;SharedAccessKey=canary"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"LIVOA_BUS_CONNECTION_FILE": "f"}, "LIVOA_BUS_CONNECTION_FILE"),
        ({"LIVOA_BUS_SESSIONS": "maybe"}, "LIVOA_BUS_SESSIONS"),
        ({"LIVOA_BUS_TENANT_QUEUES": "[]"}, "LIVOA_BUS_TENANT_QUEUES"),
        ({"LIVOA_BUS_TENANT_QUEUES": '{"a": "one", "b": "one"}'}, "LIVOA_BUS_TENANT_QUEUES"),
        ({"LIVOA_BUS_TENANT_QUEUES": '{"a": "step-commands"}'}, "LIVOA_BUS_TENANT_QUEUES"),
        ({"LIVOA_BUS_RESULTS": "step-commands"}, "LIVOA_BUS_RESULTS"),
        ({"LIVOA_BUS_RESULTS": "ä"}, "LIVOA_BUS_RESULTS"),
    ],
)
def test_a_wrong_setting_of_the_bus_is_named(settings, named):
    with pytest.raises(LivoaError) as caught:
        load_settings({"LIVOA_ENV": "local", "LIVOA_BUS_CONNECTION": BUS} | settings)
    assert (caught.value.code, caught.value.pointer) == ("settings.invalid", f"/{named}")
    assert "canary" not in caught.value.message


def test_a_tenants_own_queue_holds_its_commands_alone():
    own = {"LIVOA_BUS_TENANT_QUEUES": '{"contoso": "step-commands-contoso"}', "LIVOA_BUS_SESSIONS": "off"}
    bus = load_settings({"LIVOA_ENV": "local", "LIVOA_BUS_CONNECTION": BUS} | own).bus.bus
    assert bus is not None
    assert (bus.commands_of("contoso"), bus.commands_of("fabrikam")) == ("step-commands-contoso", "step-commands")
    assert (bus.tenant_of("step-commands-contoso"), bus.tenant_of("step-commands")) == ("contoso", None)
    assert not bus.sessions
    assert "canary" not in repr(bus)


def test_the_trigger_is_there_where_a_bus_is_configured():
    assert bus_results_queue({}) is None
    assert bus_results_queue({"LIVOA_BUS_CONNECTION__fullyQualifiedNamespace": "n.example"}) == "step-results"
    assert bus_results_queue({"LIVOA_BUS_CONNECTION": BUS, "LIVOA_BUS_RESULTS": "answers"}) == "answers"


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
        "LIVOA_GRANT_KEY": "grants.pem",
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
    azure = {"LIVOA_DATABASE_URL": "postgresql://db/livoa", "LIVOA_GRANT_KEY": "https://v.vault.azure.net/keys/grants"}
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
    names = ("settings.py", "store_settings.py", "bus_settings.py", "payload_settings.py")
    source = "".join((folder / name).read_text() for name in names)
    read = {name for name in sample if name.startswith(("LIVOA_", "APPLICATIONINSIGHTS"))}
    assert read == _quoted_names(source)


def _quoted_names(source: str) -> set[str]:
    return {part for part in source.split('"') if re.fullmatch(r"(LIVOA|APPLICATIONINSIGHTS)_\w+", part)}


def test_nothing_else_reads_the_environment():
    offenders = [
        str(path.relative_to(ROOT))
        for package in ("engine", "triggers", "orchestrators", "activities", "planner_graph", "policy")
        for path in (ROOT / package).rglob("*.py")
        if ("os.environ" in path.read_text() or "getenv" in path.read_text())
        and path != Path(ROOT / "engine" / "bootstrap" / "settings.py")
    ]
    assert offenders == []


def test_grants_have_a_key_of_their_own_and_only_one_machine_makes_it(tmp_path):
    local = {"LIVOA_ENV": "local", "LIVOA_DATA": str(tmp_path)}
    assert load_settings(local).grant_key == tmp_path / "grants" / "signing-key.pem"
    vault = "https://v.vault.azure.net/keys/one"
    wrong = [
        {"LIVOA_DATABASE_URL": "postgresql://db/livoa"},
        local | {"LIVOA_GRANT_KEY": "http://v.vault.azure.net/keys/one"},
        local | {"LIVOA_GRANT_KEY": vault, "LIVOA_AUDIT_KEY": vault},
    ]
    for settings in wrong:
        with pytest.raises(LivoaError) as caught:
            load_settings(settings)
        assert (caught.value.code, caught.value.pointer) == ("settings.invalid", "/LIVOA_GRANT_KEY")

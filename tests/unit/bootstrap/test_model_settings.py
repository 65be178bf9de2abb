"""Model deployments as a setting: read strictly, faults with their place, keys from elsewhere and never repeated."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from engine.adapters.azure_openai import AzureOpenAiChatModels
from engine.bootstrap.container import build_deps
from engine.bootstrap.settings import ROOT, forbid_prompt_tracing, load_settings
from engine.domain.errors import LivoaError
from engine.domain.tenant import ModelChoice, TenantConfig
from engine.ports.models import ModelWork, NoChatModels

KEY = "sk-the-key"
AZURE = {
    "name": "gpt-4o",
    "kind": "azure_openai",
    "endpoint": "https://contoso.openai.azure.com/",
    "model": "gpt-4o",
    "azure_deployment": "prod-4o",
    "input_micro_usd_per_mtok": 2_500_000,
    "output_micro_usd_per_mtok": 10_000_000,
    "default_for": ["planner", "synthesiser"],
}
VLLM = {
    "name": "qwen",
    "kind": "openai_compatible",
    "endpoint": "https://vllm.models.example/v1",
    "model": "Qwen/Qwen3-8B",
    "key_setting": "LIVOA_MODEL_KEY_QWEN",
    "open_weight": True,
    "default_for": ["router", "planner"],
}


def environment(*deployments: Any, **others: str) -> dict[str, str]:
    """An environment on Azure with these deployments."""
    base = {
        "LIVOA_GRANT_KEY": "grants.pem",
        "LIVOA_DATABASE_URL": "sqlite://",
        "LIVOA_JWKS_URL": "https://keys.example",
        "LIVOA_MODEL_KEY_QWEN": KEY,
    }
    return base | {"LIVOA_MODEL_DEPLOYMENTS": json.dumps(deployments)} | others


def fault(*deployments: Any, **others: str) -> LivoaError:
    """The refusal of these deployments."""
    with pytest.raises(LivoaError) as caught:
        load_settings(environment(*deployments, **others))
    assert caught.value.code == "settings.invalid"
    return caught.value


def test_deployments_are_read_in_order_with_their_keys_from_other_settings():
    azure, vllm = load_settings(environment(AZURE, VLLM)).model_endpoints
    assert (azure.url, azure.azure_deployment, azure.api_version) == (
        "https://contoso.openai.azure.com",
        "prod-4o",
        "2024-10-21",
    )
    assert azure.key is None
    assert azure.deployment.output_micro_usd_per_mtok == 10_000_000
    assert (vllm.url, vllm.key, vllm.deployment.open_weight) == ("https://vllm.models.example/v1", KEY, True)


def test_no_setting_means_no_model():
    assert load_settings({"LIVOA_ENV": "local"}).model_endpoints == ()
    assert load_settings({"LIVOA_ENV": "local", "LIVOA_MODEL_DEPLOYMENTS": ""}).model_endpoints == ()


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"name": "a/b"}, "/0/name"),
        ({"kind": "openai"}, "/0/kind"),
        ({"endpoint": "http://vllm.models.example/v1"}, "/0/endpoint"),
        ({"endpoint": "ftp://vllm.models.example"}, "/0/endpoint"),
        ({"endpoint": "https://user:pass@vllm.models.example/v1"}, "/0/endpoint"),
        ({"endpoint": "https://vllm.models.example/v1?key=x"}, "/0/endpoint"),
        ({"endpoint": "https://[broken/v1"}, "/0/endpoint"),
        ({"endpoint": "https://vllm.example:99999/v1"}, "/0/endpoint"),
        ({"model": ""}, "/0/model"),
        ({"model": "a\nb"}, "/0/model"),
        ({"azure_deployment": "x"}, "/0/azure_deployment"),
        ({"key_setting": "LIVOA_MODEL_KEY_MISSING"}, "/0/key_setting"),
        ({"key_setting": "sk-not-a-name"}, "/0/key_setting"),
        ({"key": "sk-in-the-wrong-place"}, "/0/key"),
        ({"open_weight": "yes"}, "/0/open_weight"),
        ({"context_tokens": 0}, "/0/context_tokens"),
        ({"max_output_tokens": 200_000}, "/0/max_output_tokens"),
        ({"input_micro_usd_per_mtok": -1}, "/0/input_micro_usd_per_mtok"),
        ({"default_for": ["poet"]}, "/0/default_for/0"),
        ({"default_for": ["router", "router"]}, "/0/default_for"),
    ],
)
def test_a_fault_is_named_by_its_place_and_its_value_is_not_repeated(change, pointer):
    error = fault(VLLM | change)
    assert error.pointer == f"/LIVOA_MODEL_DEPLOYMENTS{pointer}"
    said = error.message + str(error.violations) + repr(error.__cause__)
    assert not any(word in said for word in ("sk-", "user:pass", KEY))


def test_every_fault_is_listed_at_once():
    error = fault(AZURE | {"azure_deployment": None}, VLLM | {"name": "gpt-4o", "endpoint": "http://other.example"})
    assert [one.pointer.removeprefix("/LIVOA_MODEL_DEPLOYMENTS") for one in error.violations] == [
        "/0/azure_deployment",
        "/1/name",
        "/1/endpoint",
    ]


@pytest.mark.parametrize(
    "text", ["{", "{}", "7", "[7]", '[{"name": "a", "name": "b"}]', "[" * 1_000, '["' + "x" * 70_000 + '"]']
)
def test_text_that_is_no_list_of_deployments_is_refused(text):
    with pytest.raises(LivoaError) as caught:
        load_settings(environment() | {"LIVOA_MODEL_DEPLOYMENTS": text})
    assert caught.value.pointer.startswith("/LIVOA_MODEL_DEPLOYMENTS")


def test_an_azure_resource_has_no_path():
    assert fault(AZURE | {"endpoint": "https://contoso.openai.azure.com/openai"}).pointer.endswith("/0/endpoint")


@pytest.mark.parametrize(
    ("endpoint", "env"),
    [("http://127.0.0.1:8000/v1", "azure"), ("http://localhost:11434/v1", "azure"), ("http://vllm:8000/v1", "local")],
)
def test_http_is_for_this_machine_or_a_local_environment(endpoint, env):
    (one,) = load_settings(environment(VLLM | {"endpoint": endpoint}, LIVOA_ENV=env)).model_endpoints
    assert one.url == endpoint


def test_a_key_is_in_no_representation_of_the_settings():
    assert KEY not in repr(load_settings(environment(VLLM)))


def tenant(**chosen: tuple[str, ...]) -> TenantConfig:
    """A tenant with these model choices."""
    return TenantConfig(tenant_id="contoso", display_name="Contoso", models=ModelChoice(**chosen))


def test_a_tenants_choice_comes_before_the_defaults_and_in_its_order():
    models = AzureOpenAiChatModels(load_settings(environment(AZURE, VLLM)).model_endpoints)

    def names(who: TenantConfig, work: ModelWork) -> list[str]:
        return [one.name for one in models.for_tenant(who, work)]

    assert names(tenant(), "planner") == ["gpt-4o", "qwen"]
    assert names(tenant(), "router") == ["qwen"]
    assert names(tenant(planner=("qwen", "gpt-4o")), "planner") == ["qwen", "gpt-4o"]
    assert names(tenant(planner=("qwen",)), "synthesiser") == ["gpt-4o"]


def test_a_chosen_deployment_that_does_not_exist_is_skipped_with_one_warning_and_no_default(caplog):
    models = AzureOpenAiChatModels(load_settings(environment(AZURE, VLLM)).model_endpoints)
    for _ in range(3):
        assert [one.name for one in models.for_tenant(tenant(planner=("gtp-4o", "qwen")), "planner")] == ["qwen"]
    assert models.for_tenant(tenant(synthesiser=("in-the-eu",)), "synthesiser") == ()
    assert [record.getMessage() for record in caplog.records] == [
        "tenant contoso chooses the model deployment gtp-4o for the planner, which does not exist",
        "tenant contoso chooses the model deployment in-the-eu for the synthesiser, which does not exist",
    ]


def test_building_the_dependencies_with_models_loads_no_model_library(tmp_path):
    code = (
        "import sys, json\n"
        "from engine.bootstrap.container import get_deps\n"
        "deps = get_deps()\n"
        "heavy = ('langchain_core', 'langchain_openai', 'openai', 'httpx2', 'langsmith', 'tiktoken')\n"
        "print(json.dumps([type(deps.models).__name__, deps.models.deployment('qwen').model,\n"
        "    [name for name in heavy if name in sys.modules]]))"
    )
    local = {"LIVOA_ENV": "local", "LIVOA_DATA": str(tmp_path), "LIVOA_DATABASE_URL": "", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(VLLM) | local,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == ["AzureOpenAiChatModels", "Qwen/Qwen3-8B", []]


def test_without_deployments_there_are_no_models(tmp_path):
    deps = build_deps(load_settings({"LIVOA_ENV": "local", "LIVOA_DATA": str(tmp_path)}))
    assert isinstance(deps.models, NoChatModels)


def test_tracing_of_prompts_is_switched_off_whatever_the_environment_says():
    env = {"LANGSMITH_TRACING": "true", "LANGCHAIN_TRACING_V2": "true", "OTHER": "x"}
    forbid_prompt_tracing(env)
    assert env.pop("OTHER") == "x"
    assert set(env.values()) == {"false"}

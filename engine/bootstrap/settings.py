"""Settings: the only reader of the environment. Every setting is listed in local.settings.sample.json and docs/settings.md."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engine.adapters.azure_openai import ModelEndpoint
from engine.bootstrap.bus_settings import (
    BusConfiguration,
    bus_configuration,
    is_bus_configured,
    results_queue,
)
from engine.bootstrap.model_settings import model_endpoints
from engine.bootstrap.payload_settings import PayloadSettings, payload_settings
from engine.bootstrap.store_settings import StoreSettings, store_settings
from engine.domain.errors import LivoaError
from engine.domain.execute import EXECUTE_AUDIENCE

ROOT = Path(__file__).resolve().parent.parent.parent
API_AUDIENCE = "api://livoa"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything configurable about the app. ``environment`` is ``azure`` unless LIVOA_ENV says ``local``."""

    environment: Literal["local", "azure"]
    data_dir: Path
    catalog_dir: Path
    database_url: str
    agent_endpoints: Mapping[str, str]
    api_audience: str
    agent_audience: str
    jwks_url: str | None
    telemetry_exporter: Literal["none", "otlp", "azure_monitor"]
    log_level: str
    http_streaming: bool
    embedding_router: Literal["auto", "on", "off"]
    grant_key: Path | str
    """Signs execution grants: a PEM file, or the address of a key in a vault. Never the key of checkpoints."""
    personal_data_model: str | None = None
    """A spaCy pipeline that is installed, for names of people and places; None: only what has a pattern is found."""
    model_endpoints: tuple[ModelEndpoint, ...] = ()
    audit_anchors: Path | str | None = None
    """Where signed checkpoints are anchored, a folder or the address of a container; None: none are made."""
    audit_key: Path | str | None = None
    """A PEM file, or the address of a key in a vault."""
    stores: StoreSettings = field(default_factory=StoreSettings)
    """Without Cosmos DB in it, the stores are those of ``database_url``."""
    bus: BusConfiguration = field(default_factory=BusConfiguration)
    payloads: PayloadSettings = field(default_factory=PayloadSettings)


def _settings_error(name: str, problem: str) -> LivoaError:
    return LivoaError("settings.invalid", f"setting {name}: {problem}", status=500, pointer=f"/{name}")


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read and check the environment.

    Raises ``LivoaError("settings.invalid")`` naming the setting and what is wrong with it.
    """
    env = os.environ if environ is None else environ
    environment = _choice(env, "LIVOA_ENV", ("azure", "local"))
    data_dir = Path(env.get("LIVOA_DATA") or ROOT / ".livoa").resolve()
    anchors, key = _audit(env, environment, data_dir)
    stores = store_settings(env, local=environment == "local")
    return Settings(
        environment="local" if environment == "local" else "azure",
        data_dir=data_dir,
        catalog_dir=Path(env.get("LIVOA_CATALOG") or ROOT / "catalog").resolve(),
        database_url=_database_url(env, environment, data_dir) if stores.cosmos is None else "",
        agent_endpoints=agent_endpoints(env),
        api_audience=env.get("LIVOA_API_AUDIENCE") or API_AUDIENCE,
        agent_audience=env.get("LIVOA_AGENT_AUDIENCE") or EXECUTE_AUDIENCE,
        jwks_url=_https(env, "LIVOA_JWKS_URL"),
        telemetry_exporter=_exporter(env),
        log_level=_choice(env, "LIVOA_LOG_LEVEL", ("INFO", "DEBUG", "WARNING", "ERROR")),
        http_streaming=streaming_enabled(env),
        embedding_router=_embedding_router(env),
        grant_key=_grant_key(env, environment, data_dir, audit_key=key),
        personal_data_model=_module(env, "LIVOA_PERSONAL_DATA_MODEL"),
        model_endpoints=model_endpoints(
            env.get("LIVOA_MODEL_DEPLOYMENTS") or "[]", keys=env, local=environment == "local"
        ),
        audit_anchors=anchors,
        audit_key=key,
        stores=stores,
        bus=bus_configuration(env),
        payloads=payload_settings(env, local=environment == "local", data_dir=data_dir),
    )


def forbid_prompt_tracing(environ: MutableMapping[str, str] | None = None) -> None:
    """Switch LangSmith's tracing off for this process: it would send prompts and replies to a third party.

    The model adapter does so for its own calls; this covers whatever else langchain or langgraph might trace.
    """
    env = os.environ if environ is None else environ
    for name in ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING", "LANGCHAIN_TRACING_V2"):
        env[name] = "false"


def streaming_enabled(environ: Mapping[str, str] | None = None) -> bool:
    """Whether responses may stream. Read while the app is indexed, because it changes the types every HTTP trigger takes."""
    return _choice(os.environ if environ is None else environ, "LIVOA_HTTP_STREAMING", ("off", "on")) == "on"


def bus_results_queue(environ: Mapping[str, str] | None = None) -> str | None:
    """The queue that results of workers come from; None where no bus is configured. Read while the app is indexed, because a
    trigger without a connection would keep the host from starting."""
    env = os.environ if environ is None else environ
    return results_queue(env) if is_bus_configured(env) else None


def _database_url(env: Mapping[str, str], environment: str, data_dir: Path) -> str:
    url = env.get("LIVOA_DATABASE_URL")
    if url:
        return url
    if environment != "local":
        raise _settings_error(
            "LIVOA_DATABASE_URL", "is required unless LIVOA_ENV=local; a file on one instance is no store"
        )
    return f"sqlite:///{data_dir / 'livoa.db'}"


def _audit(env: Mapping[str, str], environment: str, data_dir: Path) -> tuple[Path | str | None, Path | str | None]:
    """Where checkpoints go and the key that signs them: both or neither, and on one machine below the data folder."""
    anchors, key = env.get("LIVOA_AUDIT_ANCHORS"), env.get("LIVOA_AUDIT_KEY")
    if environment == "local":
        audit = data_dir / "audit"
        place = _place("LIVOA_AUDIT_ANCHORS", anchors or str(audit / "anchors"))
        return place, _place("LIVOA_AUDIT_KEY", key or str(audit / "signing-key.pem"))
    if bool(anchors) != bool(key):
        missing = "LIVOA_AUDIT_KEY" if anchors else "LIVOA_AUDIT_ANCHORS"
        raise _settings_error(missing, "is required where the other of LIVOA_AUDIT_ANCHORS and LIVOA_AUDIT_KEY is set")
    if not (anchors and key):
        return None, None
    return _place("LIVOA_AUDIT_ANCHORS", anchors), _place("LIVOA_AUDIT_KEY", key)


def _grant_key(env: Mapping[str, str], environment: str, data_dir: Path, *, audit_key: Path | str | None) -> Path | str:
    text = env.get("LIVOA_GRANT_KEY")
    if not text:
        if environment != "local":
            raise _settings_error(
                "LIVOA_GRANT_KEY", "is required unless LIVOA_ENV=local; agents refuse calls without grant"
            )
        text = str(data_dir / "grants" / "signing-key.pem")
    key = _place("LIVOA_GRANT_KEY", text)
    if key == audit_key:
        raise _settings_error("LIVOA_GRANT_KEY", "must not be the key of LIVOA_AUDIT_KEY")
    return key


def _place(name: str, text: str) -> Path | str:
    if "://" not in text:
        return Path(text).resolve()
    if not text.startswith("https://"):
        raise _settings_error(name, "must be a path on this machine, or an https:// address")
    return text


def _choice(env: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    value = env.get(name) or allowed[0]
    if value not in allowed:
        raise _settings_error(name, f"must be one of {', '.join(allowed)}")
    return value


def _exporter(env: Mapping[str, str]) -> Literal["none", "otlp", "azure_monitor"]:
    value = _choice(env, "LIVOA_TELEMETRY", ("none", "otlp", "azure_monitor"))
    if value == "azure_monitor" and not env.get("APPLICATIONINSIGHTS_CONNECTION_STRING"):
        raise _settings_error("LIVOA_TELEMETRY", "azure_monitor needs APPLICATIONINSIGHTS_CONNECTION_STRING")
    return "otlp" if value == "otlp" else "azure_monitor" if value == "azure_monitor" else "none"


def _https(env: Mapping[str, str], name: str) -> str | None:
    value = env.get(name)
    if value and not value.startswith("https://"):
        raise _settings_error(name, "must be an https:// address")
    return value or None


def _module(env: Mapping[str, str], name: str) -> str | None:
    value = env.get(name) or None
    if value is not None and not value.isidentifier():
        raise _settings_error(name, "must be the name of an installed package")
    return value


def _embedding_router(env: Mapping[str, str]) -> Literal["auto", "on", "off"]:
    value = _choice(env, "LIVOA_EMBEDDING_ROUTER", ("auto", "on", "off"))
    return "on" if value == "on" else "off" if value == "off" else "auto"


def agent_endpoints(env: Mapping[str, str]) -> dict[str, str]:
    """Address of each agent by the endpoint its manifest names. Raises ``LivoaError("settings.invalid")``."""
    text = env.get("LIVOA_AGENT_ENDPOINTS") or "{}"
    try:
        value = json.loads(text)
    except ValueError as err:
        raise _settings_error("LIVOA_AGENT_ENDPOINTS", "must be a JSON object of endpoint name to address") from err
    if not isinstance(value, dict) or not all(
        isinstance(url, str) and url.startswith(("http://", "https://")) for url in value.values()
    ):
        raise _settings_error("LIVOA_AGENT_ENDPOINTS", "must be a JSON object of endpoint name to http(s) address")
    return {str(name): url.rstrip("/") for name, url in value.items()}

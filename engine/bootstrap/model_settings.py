"""Which chat models there are, read from LIVOA_MODEL_DEPLOYMENTS: strict, bounded, every fault with its pointer.

Keys never stand in it: ``key_setting`` names the setting that holds one. Values are not repeated in faults either, because a key
in the wrong place is one of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from engine.adapters.azure_openai import EndpointKind, ModelEndpoint
from engine.domain.base import Frozen
from engine.domain.errors import LivoaError, Violation
from engine.domain.ids import WireId
from engine.domain.strict_json import parse
from engine.ports.models import ModelDeployment, ModelWork

SETTING = "LIVOA_MODEL_DEPLOYMENTS"
AZURE_API_VERSION = "2024-10-21"
"""The first generally available version with structured output."""

_MAX_DEPLOYMENTS = 32
_MAX_BYTES = 64 * 1024
_MAX_TOKENS = 10_000_000
_MAX_PRICE = 10_000_000_000
_KEY = re.compile(r"[\x21-\x7e]{1,1000}")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")

_Word = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")]
_DeploymentName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class DeploymentSetting(Frozen):
    """One element of the setting. Prices in micro-USD per million tokens; docs/models.md explains each field."""

    model_config = ConfigDict(strict=True)

    name: WireId
    kind: EndpointKind
    endpoint: str = Field(min_length=1, max_length=500)
    model: _Word
    azure_deployment: _DeploymentName | None = None
    api_version: _DeploymentName = AZURE_API_VERSION
    key_setting: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,99}$")] | None = None
    open_weight: bool = False
    reasoning: bool = False
    context_tokens: int = Field(default=128_000, ge=256, le=_MAX_TOKENS)
    max_output_tokens: int = Field(default=4_096, ge=1, le=_MAX_TOKENS)
    input_micro_usd_per_mtok: int = Field(default=0, ge=0, le=_MAX_PRICE)
    output_micro_usd_per_mtok: int = Field(default=0, ge=0, le=_MAX_PRICE)
    default_for: Annotated[list[ModelWork], Field(max_length=3)] = []


_DEPLOYMENTS = TypeAdapter(Annotated[list[DeploymentSetting], Field(max_length=_MAX_DEPLOYMENTS)])


def model_endpoints(text: str, *, keys: Mapping[str, str], local: bool) -> tuple[ModelEndpoint, ...]:
    """The deployments, in the order of the setting's ``text``. ``keys`` are the settings that ``key_setting`` may name;
    ``local`` allows http to other machines than this one.

    Raises ``LivoaError("settings.invalid")`` with one violation per fault.
    """
    try:
        found = _DEPLOYMENTS.validate_python(parse(text.encode(), max_bytes=_MAX_BYTES))
    except LivoaError as error:
        raise _invalid([_fault(error.pointer or "", "is not acceptable JSON")]) from error
    except ValidationError as error:
        # No cause: the error holds what stood there.
        raise _invalid([_of_pydantic(one["loc"], one["type"], one["msg"]) for one in _details(error)]) from None
    faults = list(_faults(found, keys, local=local))
    if faults:
        raise _invalid(faults)
    return tuple(_endpoint(one, keys) for one in found)


def _details(error: ValidationError) -> Iterator[dict[str, object]]:
    for one in error.errors(include_input=False, include_url=False, include_context=False):
        yield dict(one)


def _of_pydantic(place: object, kind: object, message: object) -> Violation:
    parts = place if isinstance(place, tuple) else ()
    words = "is not a field; a key stands in a setting of its own, named by key_setting"
    return _fault("".join(f"/{part}" for part in parts), words if kind == "extra_forbidden" else str(message))


def _faults(found: list[DeploymentSetting], keys: Mapping[str, str], *, local: bool) -> Iterator[Violation]:
    names: set[str] = set()
    for index, one in enumerate(found):
        place = f"/{index}"
        if one.name in names:
            yield _fault(f"{place}/name", "is the name of an earlier deployment")
        names.add(one.name)
        yield from _endpoint_faults(one, f"{place}/endpoint", local=local)
        if one.kind == "azure_openai" and one.azure_deployment is None:
            yield _fault(f"{place}/azure_deployment", "is required with kind azure_openai")
        if one.kind == "openai_compatible" and one.azure_deployment is not None:
            yield _fault(f"{place}/azure_deployment", "belongs to kind azure_openai")
        if one.max_output_tokens > one.context_tokens:
            yield _fault(f"{place}/max_output_tokens", "exceeds context_tokens")
        if len(set(one.default_for)) != len(one.default_for):
            yield _fault(f"{place}/default_for", "names something twice")
        if one.key_setting is not None and not _KEY.fullmatch(keys.get(one.key_setting, "")):
            yield _fault(f"{place}/key_setting", f"setting {one.key_setting} holds no key")


def _endpoint_faults(one: DeploymentSetting, pointer: str, *, local: bool) -> Iterator[Violation]:
    try:
        parts = urlsplit(one.endpoint)
        _ = parts.port
    except ValueError:
        yield _fault(pointer, "is not an address")
        return
    if parts.scheme not in ("http", "https") or not parts.hostname or not one.endpoint.isascii() or " " in one.endpoint:
        yield _fault(pointer, "must be an http(s) address")
    elif parts.scheme == "http" and not local and parts.hostname not in _LOOPBACK:
        yield _fault(pointer, "must be https, except on this machine or with LIVOA_ENV=local")
    if _has_more(parts):
        yield _fault(pointer, "must have no user, query or fragment")
    if one.kind == "azure_openai" and parts.path not in ("", "/"):
        yield _fault(pointer, "must be the address of the Azure resource, without a path")


def _has_more(parts: SplitResult) -> bool:
    return "@" in parts.netloc or bool(parts.query) or bool(parts.fragment)


def _endpoint(one: DeploymentSetting, keys: Mapping[str, str]) -> ModelEndpoint:
    return ModelEndpoint(
        deployment=ModelDeployment(
            name=one.name,
            model=one.model,
            provider=one.kind,
            open_weight=one.open_weight,
            context_tokens=one.context_tokens,
            max_output_tokens=one.max_output_tokens,
            input_micro_usd_per_mtok=one.input_micro_usd_per_mtok,
            output_micro_usd_per_mtok=one.output_micro_usd_per_mtok,
        ),
        kind=one.kind,
        url=one.endpoint.rstrip("/"),
        azure_deployment=one.azure_deployment or "",
        api_version=one.api_version,
        key=keys[one.key_setting] if one.key_setting is not None else None,
        reasoning=one.reasoning,
        default_for=frozenset(one.default_for),
    )


def _fault(pointer: str, words: str) -> Violation:
    return Violation(code="settings.invalid", pointer=f"/{SETTING}{pointer}", message=words)


def _invalid(faults: list[Violation]) -> LivoaError:
    words = "; ".join(f"{fault.pointer.removeprefix(f'/{SETTING}') or '/'} {fault.message}" for fault in faults[:5])
    return LivoaError(
        "settings.invalid", f"setting {SETTING}: {words}", status=500, pointer=faults[0].pointer, violations=faults
    )

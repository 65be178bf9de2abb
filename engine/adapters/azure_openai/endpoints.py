"""Where a named deployment lives and how it is spoken to. Configuration of the platform, checked by bootstrap; no client here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from engine.ports.models import ModelDeployment, ModelWork

EndpointKind = Literal["azure_openai", "openai_compatible"]


@dataclass(frozen=True, slots=True)
class ModelEndpoint:
    """A deployment and its address.

    ``url`` is the Azure resource for ``azure_openai`` (with ``azure_deployment`` and ``api_version``), the base that ends in /v1
    for ``openai_compatible``. Without ``key`` Azure is asked with the app's own identity, another server with no credential.
    ``reasoning`` models take ``max_completion_tokens`` and neither temperature nor seed. ``default_for`` is the work it does for
    tenants that choose nothing.
    """

    deployment: ModelDeployment
    kind: EndpointKind
    url: str
    azure_deployment: str = ""
    api_version: str = ""
    key: str | None = field(default=None, repr=False)
    reasoning: bool = False
    default_for: frozenset[ModelWork] = frozenset()

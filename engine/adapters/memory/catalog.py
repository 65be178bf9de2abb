"""A catalog made of given manifests and playbooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from engine.adapters.catalog_rules import catalog_findings, catalog_version
from engine.domain.capability import Capability
from engine.domain.errors import LivoaError
from engine.domain.playbook import Playbook


class MemoryCatalog:
    """Held to the same rules as a catalog of files. Raises ``LivoaError("catalog.invalid")`` listing every offence."""

    def __init__(self, capabilities: Iterable[Capability], playbooks: Iterable[Playbook] = ()) -> None:
        self._capabilities = {manifest.name: manifest for manifest in capabilities}
        self._playbooks = {playbook.name: playbook for playbook in playbooks}
        findings = catalog_findings(self._capabilities, self._playbooks)
        if findings:
            raise LivoaError(
                "catalog.invalid", "the catalog cannot be used; see the violations", status=500, violations=findings
            )
        self._version = catalog_version(self._capabilities, self._playbooks)

    @property
    def version(self) -> str:
        """See ``Catalog.version``."""
        return self._version

    @property
    def capabilities(self) -> Mapping[str, Capability]:
        """See ``Catalog.capabilities``."""
        return MappingProxyType(self._capabilities)

    @property
    def playbooks(self) -> Mapping[str, Playbook]:
        """See ``Catalog.playbooks``."""
        return MappingProxyType(self._playbooks)

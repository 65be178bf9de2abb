"""The catalog as YAML pages: ``capabilities/{name}.yaml`` and ``playbooks/{name}.yaml``, loaded and checked as one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from engine.adapters.catalog_rules import catalog_findings, catalog_remarks, catalog_version
from engine.adapters.files.pages import FileState, file_states, read_pages
from engine.domain.capability import Capability
from engine.domain.errors import LivoaError, Violation
from engine.domain.playbook import Playbook

_MAX_WORDS = 5


class FilesCatalog:
    """The catalog below a directory, read once.

    Raises ``LivoaError("catalog.invalid")`` (500) with one violation per offence, each naming file and field: a catalog is used
    whole or not at all. ``remarks`` lists what its owner should look at.
    """

    def __init__(self, root: Path) -> None:
        # Before the files are read: a change in between is then seen as one.
        self.files = catalog_states(root)
        capabilities, findings = read_pages(
            root, "capabilities", Capability, lambda page: page.name, "catalog.page_invalid"
        )
        playbooks, more = read_pages(root, "playbooks", Playbook, lambda page: page.name, "catalog.page_invalid")
        # References between pages mean nothing while pages are missing because they could not be read.
        findings = [*findings, *more] or list(catalog_findings(capabilities, playbooks))
        if findings:
            raise _invalid(root, findings)
        self._capabilities = capabilities
        self._playbooks = playbooks
        self._version = catalog_version(capabilities, playbooks)
        self.remarks: tuple[Violation, ...] = catalog_remarks(capabilities)

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


def catalog_states(root: Path) -> tuple[tuple[FileState, ...], ...]:
    """The states of the catalog's files, by folder: a change of any of them is another value."""
    return tuple(file_states(root / folder) for folder in ("capabilities", "playbooks"))


def _invalid(root: Path, findings: list[Violation]) -> LivoaError:
    words = "; ".join(f"{found.pointer}: {found.message}" for found in findings[:_MAX_WORDS])
    return LivoaError(
        "catalog.invalid",
        f"the catalog in {root.name} has {len(findings)} {'fault' if len(findings) == 1 else 'faults'}: {words}",
        status=500,
        pointer=findings[0].pointer,
        violations=findings,
    )

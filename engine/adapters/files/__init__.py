"""The stores that are files: payloads, the catalog and the tenants' configuration."""

from engine.adapters.files.catalog import FilesCatalog
from engine.adapters.files.catalog_watch import FilesCatalogWatch
from engine.adapters.files.payload_objects import FilesPayloadObjects
from engine.adapters.files.tenant_directory import FilesTenantDirectory

__all__ = ["FilesCatalog", "FilesCatalogWatch", "FilesPayloadObjects", "FilesTenantDirectory"]

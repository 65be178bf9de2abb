"""Anchors in Azure Blob Storage."""

from engine.adapters.blob_anchors.anchors import STORAGE_AUDIENCE, BlobAnchors

__all__ = ["STORAGE_AUDIENCE", "BlobAnchors"]

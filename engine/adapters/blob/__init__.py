"""Objects of payloads in Azure Blob Storage. Importing this package is light; the SDK is loaded by the first request."""

from engine.adapters.blob.payload_objects import BlobPayloadObjects

__all__ = ["BlobPayloadObjects"]

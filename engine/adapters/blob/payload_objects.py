"""Objects of payloads as block blobs: ``{tenant}/{run}/{name}`` in one container, through azure-storage-blob (asynchronous).

Nothing here creates the container: one that is missing is an outage, not an empty place. Every write puts the whole blob, so one
that may have happened is simply done again, by the SDK or by whoever asked. What is in a blob is sealed and checked by who puts
it there (``engine.adapters.sealed``); blob versions and soft-deleted blobs are sealed with the same key and die with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from engine.adapters.payload_objects import checked_name, folder_of
from engine.adapters.payload_rules import MAX_PAYLOAD_BYTES, payload_corrupt, payload_unavailable
from engine.domain.errors import LivoaError

T = TypeVar("T")
MAX_BLOB_BYTES = MAX_PAYLOAD_BYTES + 1_024
"""Content at its cap, sealed. Anything larger was not put there by us."""
_CONNECT_S = 5
_READ_S = 20
_TRIES_AGAIN = 3
_DELETES_AT_ONCE = 16
_PAGE = 1_000
_ABSENT = "BlobNotFound"


class BlobPayloadObjects:
    """Implements ``PayloadObjects`` over ``https://{account}/{container}``.

    ``account_key`` None means the app's own identity, which needs the role Storage Blob Data Contributor on the container alone.
    A request that failed is sent again at most three times, after half of ``pause_s`` first and a few times as long
    later.
    """

    def __init__(self, container_url: str, account_key: str | None = None, *, pause_s: float = 1.0) -> None:
        parts = urlsplit(container_url)
        if parts.scheme not in ("https", "http") or not parts.hostname or not parts.path.strip("/") or parts.query:
            raise LivoaError("settings.invalid", "The place of payloads is https://ACCOUNT/CONTAINER.", status=500)
        self._url, self._account_key, self._pause_s = container_url, account_key, pause_s
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()

    async def put(self, tenant_id: str, run_id: str, name: str, data: bytes) -> None:
        """See ``PayloadObjects.put``."""
        blob = self._path(tenant_id, run_id) + checked_name(name)
        await self._done("written", lambda client: client.upload_blob(blob, data, length=len(data), overwrite=True))

    async def get(self, tenant_id: str, run_id: str, name: str) -> bytes | None:
        """See ``PayloadObjects.get``."""
        blob = self._path(tenant_id, run_id) + checked_name(name)

        async def read(client: Any) -> bytes:
            stream = await client.download_blob(blob, max_concurrency=1)
            if stream.size > MAX_BLOB_BYTES:
                raise payload_corrupt(name)
            return bytes(await stream.readall())

        return await self._done("read", read, if_absent=None)

    async def delete_run(self, tenant_id: str, run_id: str) -> int:
        """See ``PayloadObjects.delete_run``."""
        path, gone = self._path(tenant_id, run_id), 0
        while names := await self._done("listed", lambda client: _first_page(client, path)):
            for start in range(0, len(names), _DELETES_AT_ONCE):
                batch = names[start : start + _DELETES_AT_ONCE]
                gone += sum(await asyncio.gather(*(self._deleted(name) for name in batch)))
        return gone

    async def close(self) -> None:
        """Close the client of this event loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    async def _deleted(self, blob: str) -> bool:
        async def delete(client: Any) -> bool:
            await client.delete_blob(blob, delete_snapshots="include")
            return True

        # Gone already: another process removes the same run, or our own earlier request did.
        return bool(await self._done("removed", delete, if_absent=False))

    async def _done(self, verb: str, work: Callable[[Any], Awaitable[T]], *, if_absent: Any = ...) -> T:
        from azure.core.exceptions import AzureError, ResourceNotFoundError

        try:
            return await work(self._client())
        except ResourceNotFoundError as err:
            # A missing container has the same status, and is no answer about a blob.
            if if_absent is not ... and getattr(err, "error_code", None) == _ABSENT:
                absent: T = if_absent
                return absent
            raise payload_unavailable(f"{verb}: {getattr(err, 'error_code', None) or 'not found'}") from err
        except AzureError as err:
            # Its message may name blobs and accounts; type and status are enough to go by.
            status = getattr(err, "status_code", None)
            raise payload_unavailable(f"{verb}: {type(err).__name__}{f' {status}' if status else ''}") from err

    def _path(self, tenant_id: str, run_id: str) -> str:
        return f"{folder_of(tenant_id)}/{folder_of(run_id)}/"

    def _client(self) -> Any:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            from azure.storage.blob.aio import ContainerClient

            client = self._clients[loop] = ContainerClient.from_container_url(
                self._url,
                credential=self._credential(),
                retry_policy=_retries(self._pause_s),
                connection_timeout=_CONNECT_S,
                read_timeout=_READ_S,
                max_single_get_size=MAX_BLOB_BYTES + 1,
                max_single_put_size=MAX_BLOB_BYTES + 1,
            )
        return client

    def _credential(self) -> Any:
        if self._account_key is not None:
            from azure.core.credentials import AzureNamedKeyCredential

            return AzureNamedKeyCredential(_account(self._url), self._account_key)
        from azure.identity.aio import DefaultAzureCredential

        return DefaultAzureCredential()


def _retries(pause_s: float) -> Any:
    from azure.storage.blob.aio import ExponentialRetry

    # The SDK's own default waits 15 s and more.
    options: dict[str, Any] = {
        "initial_backoff": pause_s / 2,
        "increment_base": 2 * pause_s,
        "random_jitter_range": pause_s / 4,
        "retry_total": _TRIES_AGAIN,
    }
    return ExponentialRetry(**options)


def _account(url: str) -> str:
    """The account's name: the first label of the host, or the first part of the path where an emulator is addressed."""
    parts = urlsplit(url)
    path = parts.path.strip("/").split("/")
    return path[0] if len(path) > 1 else str(parts.hostname).split(".", 1)[0]


async def _first_page(client: Any, path: str) -> list[str]:
    """The first page that holds anything: the service may answer with an empty one and go on."""
    pages = client.list_blob_names(name_starts_with=path, results_per_page=_PAGE).by_page()
    async for page in pages:
        if names := [name async for name in page]:
            return names
    return []

"""Objects of payloads in memory. Not durable: only tests may rely on it."""

from __future__ import annotations


class MemoryPayloadObjects:
    """Implements ``PayloadObjects``. ``objects`` is what somebody with access to the storage sees."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, bytes]] = {}

    async def put(self, tenant_id: str, run_id: str, name: str, data: bytes) -> None:
        """See ``PayloadObjects.put``."""
        self.objects.setdefault((tenant_id, run_id), {})[name] = data

    async def get(self, tenant_id: str, run_id: str, name: str) -> bytes | None:
        """See ``PayloadObjects.get``."""
        return self.objects.get((tenant_id, run_id), {}).get(name)

    async def delete_run(self, tenant_id: str, run_id: str) -> int:
        """See ``PayloadObjects.delete_run``."""
        return len(self.objects.pop((tenant_id, run_id), {}))

"""The keys of runs in this process: made once per run, unwrapped once, kept for a while in a bounded store.

A key that was destroyed elsewhere is noticed within ``FRESH_S``: only the record is read again then, nothing is unwrapped twice.
The wrapped text holds the data key and a hash of whose it is, so a record that was moved to another tenant or run is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakValueDictionary

from engine.adapters.payload_rules import payload_erased
from engine.adapters.sealed.envelope import DATA_KEY_BYTES, KEY_ID_BYTES, RunSecrets
from engine.domain.errors import LivoaError
from engine.ports.clock import Clock
from engine.ports.run_keys import KeyWrapper, RunKey, RunKeys

MAX_KEYS = 1_024
"""Most runs whose keys are held at once; the one that was not used for longest goes first."""
FRESH_S = 60.0
_Place = tuple[str, str]


@dataclass(slots=True)
class _Held:
    secrets: RunSecrets
    looked_at: float


class RunKeyring:
    """Keys by tenant and run. ``monotonic`` is in seconds."""

    def __init__(
        self,
        keys: RunKeys,
        wrapper: KeyWrapper,
        clock: Clock,
        *,
        max_keys: int = MAX_KEYS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys, self._wrapper, self._clock = keys, wrapper, clock
        self._max, self._monotonic = max_keys, monotonic
        self._held: OrderedDict[_Place, _Held] = OrderedDict()
        self._locks: WeakValueDictionary[tuple[int, _Place], asyncio.Lock] = WeakValueDictionary()

    async def find(self, tenant_id: str, run_id: str) -> RunSecrets | None:
        """The secrets of a run, or None where no key was ever made.

        Raises ``LivoaError``: ``payload.erased`` (410) for a destroyed key, and what store and wrapper raise.
        """
        return await self._look(tenant_id, run_id, make=False)

    async def get(self, tenant_id: str, run_id: str) -> RunSecrets:
        """The secrets of a run; its key is made where there is none. Raises as ``find``."""
        found = await self._look(tenant_id, run_id, make=True)
        assert found is not None, "a key was made"
        return found

    async def destroy(self, tenant_id: str, run_id: str) -> bool:
        """Destroy a run's key, or see to it that none is ever made. False when it was destroyed before."""
        now, place = self._clock.now(), (tenant_id, run_id)
        # In line with who is looking: one that has read the record before would hold the key again afterwards.
        async with self._lock(place):
            self._held.pop(place, None)
            return (await self._keys.destroy(tenant_id, run_id, now)).destroyed_at == now

    def forget(self, tenant_id: str, run_id: str) -> None:
        """Look at the record again next time."""
        self._held.pop((tenant_id, run_id), None)

    async def _look(self, tenant_id: str, run_id: str, *, make: bool) -> RunSecrets | None:
        place = (tenant_id, run_id)
        if (held := self._fresh(place)) is not None:
            return held
        async with self._lock(place):
            if (held := self._fresh(place)) is not None:
                return held
            record = await self._keys.get(tenant_id, run_id)
            if record is None and make:
                return await self._make(place)
            return await self._opened(place, record) if record is not None else None

    def _lock(self, place: _Place) -> asyncio.Lock:
        return self._locks.setdefault((id(asyncio.get_running_loop()), place), asyncio.Lock())

    def _fresh(self, place: _Place) -> RunSecrets | None:
        held = self._held.get(place)
        if held is None or self._monotonic() - held.looked_at > FRESH_S:
            return None
        self._held.move_to_end(place)
        return held.secrets

    async def _make(self, place: _Place) -> RunSecrets:
        tenant_id, run_id = place
        key_id, data_key = secrets.token_hex(KEY_ID_BYTES), secrets.token_bytes(DATA_KEY_BYTES)
        wrapped = await self._wrapper.wrap(data_key + _whose(tenant_id, run_id, key_id))
        ours = RunKey(tenant_id, run_id, key_id, wrapped, self._clock.now())
        stands = await self._keys.create(ours)
        if stands.key_id != key_id:
            return await self._opened(place, stands)
        return self._hold(place, RunSecrets.of(tenant_id, run_id, key_id, data_key))

    async def _opened(self, place: _Place, record: RunKey) -> RunSecrets:
        if record.wrapped is None:
            self._held.pop(place, None)
            raise payload_erased()
        held = self._held.get(place)
        if held is not None and held.secrets.key_id == record.key_id:
            return self._hold(place, held.secrets)
        opened = await self._wrapper.unwrap(record.wrapped)
        data_key, whose = opened[:DATA_KEY_BYTES], opened[DATA_KEY_BYTES:]
        if len(data_key) != DATA_KEY_BYTES or not hmac.compare_digest(whose, _whose(*place, record.key_id)):
            raise LivoaError("payload.key_invalid", "the key of this run's content is another run's", status=500)
        return self._hold(place, RunSecrets.of(*place, record.key_id, data_key))

    def _hold(self, place: _Place, found: RunSecrets) -> RunSecrets:
        self._held[place] = _Held(found, self._monotonic())
        self._held.move_to_end(place)
        while len(self._held) > self._max:
            self._held.popitem(last=False)
        return found


def _whose(tenant_id: str, run_id: str, key_id: str) -> bytes:
    return hashlib.sha256(f"livoa/run-key/1\n{tenant_id}\n{run_id}\n{key_id}".encode()).digest()

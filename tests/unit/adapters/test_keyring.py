"""Keys of runs in one process: made once, bounded, fresh, and nobody else's."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from engine.adapters.files.key_wrapper import FileKeyWrapper
from engine.adapters.memory import FixedClock, MemoryRunKeys
from engine.adapters.sealed import RunKeyring
from engine.adapters.sealed.keyring import FRESH_S
from engine.domain.errors import LivoaError
from engine.ports.run_keys import RunKey, WrappedKey


class Counting(FileKeyWrapper):
    wrapped = unwrapped = 0

    async def wrap(self, key: bytes) -> WrappedKey:
        self.wrapped += 1
        return await super().wrap(key)

    async def unwrap(self, wrapped: WrappedKey) -> bytes:
        self.unwrapped += 1
        return await super().unwrap(wrapped)


class Desk:
    def __init__(self, folder: Path) -> None:
        self.keys, self.wrapper, self.now = MemoryRunKeys(), Counting(folder / "keys", create=True), 0.0

    def ring(self, max_keys: int = 10) -> RunKeyring:
        return RunKeyring(self.keys, self.wrapper, FixedClock(), max_keys=max_keys, monotonic=lambda: self.now)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_a_key_is_made_once_and_unwrapped_once_per_process(desk: Desk) -> None:
    ring = desk.ring()
    found = await asyncio.gather(*(ring.get("contoso", "run-1") for _ in range(20)))
    assert len({secrets.key_id for secrets in found}) == 1
    assert (desk.wrapper.wrapped, desk.wrapper.unwrapped) == (1, 0)
    other = desk.ring()
    assert {s.content_key for s in await asyncio.gather(*(other.get("contoso", "run-1") for _ in range(20)))} == {
        found[0].content_key
    }
    desk.now += FRESH_S + 1
    await other.get("contoso", "run-1")
    assert (desk.wrapper.wrapped, desk.wrapper.unwrapped) == (1, 1)


async def test_of_two_processes_that_make_a_key_one_wins(desk: Desk) -> None:
    class Late(MemoryRunKeys):
        """Somebody else's key lands between the look and the write."""

        async def get(self, tenant_id: str, run_id: str) -> RunKey | None:
            return None

    first = await desk.ring().get("contoso", "run-1")
    late = Late()
    late._rows = desk.keys._rows
    second = await RunKeyring(late, desk.wrapper, FixedClock()).get("contoso", "run-1")
    assert second == first


async def test_looking_makes_no_key(desk: Desk) -> None:
    assert await desk.ring().find("contoso", "run-1") is None
    assert await desk.keys.get("contoso", "run-1") is None


async def test_no_more_keys_are_held_than_allowed(desk: Desk) -> None:
    ring = desk.ring(max_keys=3)
    for number in range(10):
        await ring.get("contoso", f"run-{number}")
    assert [run for _, run in ring._held] == ["run-7", "run-8", "run-9"]
    await ring.get("contoso", "run-7")
    await ring.get("contoso", "run-0")
    assert [run for _, run in ring._held] == ["run-9", "run-7", "run-0"]


async def test_a_key_destroyed_elsewhere_is_gone_here_when_the_look_is_old(desk: Desk) -> None:
    ours, theirs = desk.ring(), desk.ring()
    await ours.get("contoso", "run-1")
    await theirs.get("contoso", "run-1")
    assert await theirs.destroy("contoso", "run-1")
    desk.now += FRESH_S + 1
    for ring in (ours, theirs):
        for ask in (ring.find, ring.get):
            with pytest.raises(LivoaError) as caught:
                await ask("contoso", "run-1")
            assert (caught.value.code, caught.value.status) == ("payload.erased", 410)
    assert list(ours._held) == []


async def test_a_run_without_a_key_never_gets_one_once_it_was_destroyed(desk: Desk) -> None:
    await desk.ring().destroy("contoso", "run-1")
    with pytest.raises(LivoaError) as caught:
        await desk.ring().get("contoso", "run-1")
    assert caught.value.code == "payload.erased"


@pytest.mark.parametrize("place", [("fabrikam", "run-1"), ("contoso", "run-2")])
async def test_a_record_that_was_moved_to_another_tenant_or_run_is_refused(desk: Desk, place: tuple[str, str]) -> None:
    await desk.ring().get("contoso", "run-1")
    record = await desk.keys.get("contoso", "run-1")
    assert record is not None
    desk.keys._rows[place] = replace(record, tenant_id=place[0], run_id=place[1])
    with pytest.raises(LivoaError) as caught:
        await desk.ring().find(*place)
    assert caught.value.code == "payload.key_invalid"


async def test_every_change_of_a_wrapped_key_is_noticed(desk: Desk) -> None:
    await desk.ring().get("contoso", "run-1")
    record = await desk.keys.get("contoso", "run-1")
    assert record is not None
    assert record.wrapped is not None
    for place in range(len(record.wrapped.data)):
        data = bytearray(record.wrapped.data)
        data[place] ^= 1
        desk.keys._rows["contoso", "run-1"] = replace(record, wrapped=WrappedKey(record.wrapped.kek_id, bytes(data)))
        with pytest.raises(LivoaError) as caught:
            await desk.ring().find("contoso", "run-1")
        assert caught.value.code == "payload.key_invalid"


async def test_a_new_key_above_the_old_one_wraps_and_the_old_one_still_opens(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    old = await FileKeyWrapper(path, create=True).wrap(bytes(64))
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("ab" * 32 + "\n" + path.read_text())
    both = FileKeyWrapper(path, create=False)
    new = await both.wrap(bytes(64))
    assert new.kek_id != old.kek_id
    assert await both.unwrap(old) == await both.unwrap(new) == bytes(64)
    path.write_text("ab" * 32 + "\n")
    with pytest.raises(LivoaError) as caught:
        await FileKeyWrapper(path, create=False).unwrap(old)
    assert caught.value.code == "payload.key_unavailable"


@pytest.mark.parametrize("content", [None, b"", b"abc", b"\xff" * 64, b"AB" * 32])
async def test_a_key_file_that_is_none_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LivoaError, match="keys") as caught:
        await FileKeyWrapper(path, create=False).wrap(bytes(64))
    assert (caught.value.code, caught.value.status) == ("payload.key_unavailable", 503)


async def test_processes_that_start_together_make_one_key_file(tmp_path: Path) -> None:
    wrapped = await asyncio.gather(*(FileKeyWrapper(tmp_path / "keys", create=True).wrap(bytes(64)) for _ in range(8)))
    assert len({each.kek_id for each in wrapped}) == 1


async def test_who_looked_just_before_the_key_was_destroyed_does_not_hold_it_afterwards(desk: Desk) -> None:
    await desk.ring().get("contoso", "run-1")
    read, ring = asyncio.Event(), desk.ring()
    unwrap = desk.wrapper.unwrap

    async def slowly(wrapped: WrappedKey) -> bytes:
        read.set()
        for _ in range(20):
            await asyncio.sleep(0)
        return await unwrap(wrapped)

    desk.wrapper.unwrap = slowly  # type: ignore[method-assign]
    looking = asyncio.create_task(ring.find("contoso", "run-1"))
    await read.wait()
    await ring.destroy("contoso", "run-1")
    await looking
    with pytest.raises(LivoaError, match="erased"):
        await ring.find("contoso", "run-1")

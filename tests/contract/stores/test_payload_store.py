"""What every payload store promises: content by its hash, checked when read, and nobody else's."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.adapters.files import FilesPayloadStore
from engine.adapters.files.payload_store import _directory_name
from engine.adapters.memory import MemoryPayloadStore
from engine.adapters.payload_rules import MAX_PAYLOAD_BYTES
from engine.domain.errors import LivoaError, NotFoundError
from engine.domain.ids import is_wire_id
from engine.domain.run import PayloadRef
from engine.ports.payload_store import PayloadStore
from tests.contract.stores.builders import ref, sha


@pytest.fixture(params=["memory", "files"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> PayloadStore:
    return MemoryPayloadStore() if request.param == "memory" else FilesPayloadStore(tmp_path)


@pytest.fixture
def files(tmp_path: Path) -> FilesPayloadStore:
    return FilesPayloadStore(tmp_path)


def objects(tmp_path: Path) -> list[Path]:
    return sorted(path for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize("data", [b"", b"{}", b"\x00\xff" * 10, bytes(range(256)) * 4096])
async def test_content_is_read_back_as_it_was(store: PayloadStore, data: bytes) -> None:
    found = await store.put("contoso", "run-1", data, "application/octet-stream")
    assert (found.size_bytes, found.media_type) == (len(data), "application/octet-stream")
    assert await store.get("contoso", "run-1", found) == data


async def test_the_reference_is_the_hash_of_the_content(store: PayloadStore) -> None:
    assert await store.put("contoso", "run-1", b"{}") == ref("{}")


async def test_the_same_content_twice_is_one_object(store: PayloadStore) -> None:
    first = await store.put("contoso", "run-1", b"{}")
    assert await store.put("contoso", "run-1", b"{}") == first
    assert await store.delete_run("contoso", "run-1") == 1


async def test_the_same_content_written_at_once_is_one_object(store: PayloadStore) -> None:
    data = b"x" * 100_000
    refs = await asyncio.gather(*(store.put("contoso", "run-1", data) for _ in range(20)))
    assert len(set(refs)) == 1
    assert await store.get("contoso", "run-1", refs[0]) == data
    assert await store.delete_run("contoso", "run-1") == 1


async def test_another_tenant_or_run_does_not_find_it_even_with_the_reference(store: PayloadStore) -> None:
    found = await store.put("contoso", "run-1", b"{}")
    for tenant_id, run_id in (("fabrikam", "run-1"), ("contoso", "run-2"), ("CONTOSO", "run-1"), ("contoso", "RUN-1")):
        with pytest.raises(NotFoundError) as caught:
            await store.get(tenant_id, run_id, found)
        assert caught.value.code == "payload.not_found"
        assert await store.delete_run(tenant_id, run_id) == 0
    assert await store.get("contoso", "run-1", found) == b"{}"


async def test_deleting_a_run_removes_all_of_it_and_nothing_else(store: PayloadStore) -> None:
    kept = await store.put("contoso", "run-2", b"kept")
    gone = [await store.put("contoso", "run-1", data) for data in (b"a", b"b")]
    assert await store.delete_run("contoso", "run-1") == 2
    assert await store.delete_run("contoso", "run-1") == 0
    for each in gone:
        with pytest.raises(NotFoundError):
            await store.get("contoso", "run-1", each)
    assert await store.get("contoso", "run-2", kept) == b"kept"


async def test_content_over_the_cap_is_refused(store: PayloadStore) -> None:
    with pytest.raises(LivoaError) as caught:
        await store.put("contoso", "run-1", bytes(MAX_PAYLOAD_BYTES + 1))
    assert (caught.value.code, caught.value.status) == ("payload.too_large", 413)
    assert await store.delete_run("contoso", "run-1") == 0


async def test_a_reference_with_another_size_is_not_what_was_stored(store: PayloadStore) -> None:
    found = await store.put("contoso", "run-1", b"{}")
    with pytest.raises(LivoaError) as caught:
        await store.get("contoso", "run-1", found.model_copy(update={"size_bytes": 3}))
    assert (caught.value.code, caught.value.status) == ("payload.corrupt", 500)


@pytest.mark.parametrize("damage", [b"", b"{]", b"{} "])
async def test_damaged_content_is_noticed_and_healed_by_writing_it_again(
    files: FilesPayloadStore, tmp_path: Path, damage: bytes
) -> None:
    found = await files.put("contoso", "run-1", b"{}")
    objects(tmp_path)[0].write_bytes(damage)
    with pytest.raises(LivoaError) as caught:
        await files.get("contoso", "run-1", found)
    assert caught.value.code == "payload.corrupt"
    await files.put("contoso", "run-1", b"{}")
    assert await files.get("contoso", "run-1", found) == b"{}"


async def test_files_are_for_their_owner_only(files: FilesPayloadStore, tmp_path: Path) -> None:
    await files.put("contoso", "run-1", b"{}")
    (path,) = objects(tmp_path)
    assert path.relative_to(tmp_path) == Path("payloads", "contoso", "run-1", sha("{}"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("failing", ["fsync", "replace"])
async def test_a_write_that_fails_leaves_nothing_behind(
    files: FilesPayloadStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(LivoaError, match="cannot be written") as caught:
        await files.put("contoso", "run-1", b"{}")
    assert (caught.value.code, caught.value.status) == ("payload.unavailable", 503)
    assert objects(tmp_path) == []


async def test_content_is_on_disk_before_its_name_appears(
    files: FilesPayloadStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noting_fsync(descriptor: int) -> None:
        steps.append("sync directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        fsync(descriptor)

    def noting_replace(path: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "replace", noting_replace)
    await files.put("contoso", "run-1", b"{}")
    assert steps == ["sync file", "rename", "sync directory"]


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "a\\b", "a\x00", "~x", "x" * 101, "é"])
async def test_an_id_that_is_none_never_becomes_a_path(files: FilesPayloadStore, tmp_path: Path, name: str) -> None:
    if name == "..":  # an id by its alphabet, though never a directory of that name
        await files.put(name, name, b"{}")
        assert objects(tmp_path)[0].is_relative_to(tmp_path / "payloads")
        assert ".." not in objects(tmp_path)[0].parts
        return
    for tenant_id, run_id in ((name, "run-1"), ("contoso", name)):
        with pytest.raises(LivoaError) as caught:
            await files.put(tenant_id, run_id, b"{}")
        assert caught.value.code == "payload.id_invalid"
    assert objects(tmp_path) == []


@given(st.text("aAbB.-_", min_size=1, max_size=4), st.text("aAbB.-_", min_size=1, max_size=4))
def test_different_ids_are_different_directories_even_where_case_does_not_count(left: str, right: str) -> None:
    assert is_wire_id(left)
    same = _directory_name(left).lower() == _directory_name(right).lower()
    assert same == (left == right)
    assert _directory_name(left) not in (".", "..")
    assert "/" not in _directory_name(left)


async def test_a_link_in_the_place_of_content_is_not_followed(files: FilesPayloadStore, tmp_path: Path) -> None:
    found = await files.put("contoso", "run-1", b"{}")
    (path,) = objects(tmp_path)
    secret = tmp_path / "secret"
    secret.write_bytes(b"{}")
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(LivoaError) as caught:
        await files.get("contoso", "run-1", found)
    assert caught.value.code == "payload.unavailable"


def test_a_reference_cannot_name_a_path() -> None:
    with pytest.raises(ValueError):
        PayloadRef(sha256="../../etc/passwd", size_bytes=1)

"""What every payload store promises: content by its hash, checked when read, encrypted at rest, and nobody else's."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.adapters.blob import BlobPayloadObjects
from engine.adapters.files import FilesPayloadObjects
from engine.adapters.memory import MemoryPayloadObjects, MemoryPayloadStore, MemoryRunKeys
from engine.adapters.payload_objects import PayloadObjects, folder_of
from engine.adapters.payload_rules import MAX_PAYLOAD_BYTES
from engine.adapters.sealed import SealedPayloadStore
from engine.adapters.sealed.envelope import seal
from engine.domain.errors import LivoaError, NotFoundError
from engine.domain.ids import is_wire_id
from engine.domain.run import PayloadRef
from engine.ports.payload_store import PayloadStore
from tests.contract.stores.builders import ref, sha
from tests.support.blob_fake import KEY, BlobFake
from tests.support.payloads import keyring, sealed_payloads


@dataclass(frozen=True)
class Place:
    """Where sealed payloads lie: the store of this process, and how another process would open it."""

    objects: PayloadObjects
    open: Callable[[], PayloadStore]


AZURITE = "LIVOA_TEST_AZURITE"
# One test says that Azurite was left out; a skip of every test would say it twenty times.
PLACES = ["sealed-memory", "sealed-files", "sealed-blob-fake", *(["sealed-azurite"] if os.environ.get(AZURITE) else [])]


@asynccontextmanager
async def objects_of(kind: str, folder: Path) -> AsyncIterator[PayloadObjects]:
    """An empty place of one kind."""
    match kind:
        case "sealed-memory":
            yield MemoryPayloadObjects()
        case "sealed-files":
            yield FilesPayloadObjects(folder)
        case "sealed-blob-fake":
            async with BlobFake() as fake:
                opened = BlobPayloadObjects(fake.url, KEY, pause_s=0)
                yield opened
                await opened.close()
        case _:
            async with azurite_container() as container:
                opened = BlobPayloadObjects(*container, pause_s=0)
                yield opened
                await opened.close()


@asynccontextmanager
async def azurite_container() -> AsyncIterator[tuple[str, str]]:
    """The address of a container that exists nowhere else, and the account's key."""
    from azure.storage.blob.aio import ContainerClient

    settings = dict(part.split("=", 1) for part in os.environ[AZURITE].split(";") if part)
    name = f"payloads-{secrets.token_hex(6)}"
    async with ContainerClient.from_connection_string(os.environ[AZURITE], name) as container:
        await container.create_container()
        yield f"{settings['BlobEndpoint']}/{name}", settings["AccountKey"]
        await container.delete_container()


@asynccontextmanager
async def place_of(kind: str, folder: Path) -> AsyncIterator[Place]:
    keys = MemoryRunKeys()
    async with objects_of(kind, folder) as kept:
        yield Place(kept, lambda: sealed_payloads(folder, kept, keys))


@pytest.fixture(params=PLACES)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with place_of(request.param, tmp_path) as found:
        yield found


@pytest.fixture(params=["memory", *PLACES])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PayloadStore]:
    if request.param == "memory":
        yield MemoryPayloadStore()
        return
    async with place_of(request.param, tmp_path) as found:
        yield found.open()


@pytest.mark.skipif(AZURITE in os.environ, reason="there is one")
def test_azurite_was_left_out() -> None:
    pytest.skip(f"no Azurite: set {AZURITE}=CONNECTION_STRING to run the contract on it")


@pytest.fixture
def files(tmp_path: Path) -> FilesPayloadObjects:
    return FilesPayloadObjects(tmp_path)


def objects(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "payloads").rglob("*") if path.is_file())


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
        with pytest.raises(LivoaError) as caught:
            await store.get("contoso", "run-1", each)
        assert caught.value.code in ("payload.not_found", "payload.erased")
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


async def test_what_is_stored_tells_nothing_and_is_named_by_nothing_one_could_guess(
    place: Place, tmp_path: Path
) -> None:
    found = await place.open().put("contoso", "run-1", b"a secret of ours")
    await place.open().put("contoso", "run-2", b"a secret of ours")
    assert await place.objects.get("contoso", "run-1", found.sha256) is None
    if isinstance(place.objects, FilesPayloadObjects):
        first, second = objects(tmp_path)
        assert first.name != second.name
        assert b"secret" not in first.read_bytes()
        assert first.read_bytes() != second.read_bytes()


async def test_another_process_reads_it_under_the_same_key(place: Place) -> None:
    found = await place.open().put("contoso", "run-1", b"{}")
    assert await place.open().get("contoso", "run-1", found) == b"{}"


async def test_two_processes_that_make_the_key_at_once_end_up_with_one(place: Place) -> None:
    data = [bytes([number]) for number in range(8)]
    refs = await asyncio.gather(*(place.open().put("contoso", "run-1", each) for each in data))
    reader = place.open()
    assert [await reader.get("contoso", "run-1", each) for each in refs] == data


async def test_erased_content_is_gone_for_every_process_and_nothing_can_be_added(place: Place) -> None:
    ours, theirs = place.open(), place.open()
    found = await ours.put("contoso", "run-1", b"{}")
    assert await theirs.get("contoso", "run-1", found) == b"{}"
    assert await ours.delete_run("contoso", "run-1") == 1
    for store in (ours, theirs, place.open()):
        with pytest.raises(LivoaError) as caught:
            await store.get("contoso", "run-1", found)
        assert (caught.value.code, caught.value.status) == ("payload.erased", 410)
    with pytest.raises(LivoaError) as caught:
        await ours.put("contoso", "run-1", b"{}")
    assert caught.value.code == "payload.erased"


async def test_a_copy_of_the_storage_without_the_key_record_is_worth_nothing(place: Place, tmp_path: Path) -> None:
    store = place.open()
    found = await store.put("contoso", "run-1", b"{}")
    name = (await keyring_of(place, "contoso", "run-1")).name(found.sha256)
    copy = await place.objects.get("contoso", "run-1", name)
    assert copy is not None
    await store.delete_run("contoso", "run-1")
    await place.objects.put("contoso", "run-1", name, copy)  # restored from a backup
    with pytest.raises(LivoaError) as caught:
        await place.open().get("contoso", "run-1", found)
    assert caught.value.code == "payload.erased"
    fresh = sealed_payloads(tmp_path, place.objects)  # the record of the key is gone as well
    with pytest.raises(NotFoundError):
        await fresh.get("contoso", "run-1", found)


async def keyring_of(place: Place, tenant_id: str, run_id: str):
    found = await place.open()._keyring.find(tenant_id, run_id)
    assert found is not None
    return found


async def test_content_is_found_by_its_commitment_with_the_key_that_proves_it(place: Place) -> None:
    found = await place.open().put("contoso", "run-1", b"{}")
    commitment = (await keyring_of(place, "contoso", "run-1")).name(found.sha256)
    committed = await place.open().committed("contoso", "run-1", commitment)
    assert committed.data == b"{}"
    assert committed.key is not None
    assert hmac.new(committed.key, bytes.fromhex(found.sha256), hashlib.sha256).hexdigest() == commitment
    # Records of earlier versions hold the plain hash, whether the content was written in the clear or sealed.
    await place.objects.put("contoso", "run-1", sha("[]"), b"[]")
    for plain, data in ((found.sha256, b"{}"), (sha("[]"), b"[]")):
        committed = await place.open().committed("contoso", "run-1", plain)
        assert (committed.data, committed.key) == (data, None)


async def test_what_nothing_was_committed_to_is_not_found_by_it(place: Place) -> None:
    found = await place.open().put("contoso", "run-1", b"{}")
    commitment = (await keyring_of(place, "contoso", "run-1")).name(found.sha256)
    for tenant_id, run_id, wanted in (
        ("contoso", "run-2", commitment),
        ("fabrikam", "run-1", commitment),
        ("contoso", "run-1", "f" * 64),
        ("contoso", "run-2", found.sha256),
    ):
        with pytest.raises(NotFoundError):
            await place.open().committed(tenant_id, run_id, wanted)
    await place.objects.put("contoso", "run-1", sha("[]"), b"[ ]")
    with pytest.raises(LivoaError) as caught:
        await place.open().committed("contoso", "run-1", sha("[]"))
    assert caught.value.code == "payload.corrupt"
    await place.open().delete_run("contoso", "run-1")
    with pytest.raises(LivoaError) as caught:
        await place.open().committed("contoso", "run-1", commitment)
    assert caught.value.code == "payload.erased"


async def test_a_process_that_died_between_key_and_objects_is_made_up_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = place.open()
    found = await store.put("contoso", "run-1", b"{}")

    async def killed(*_: object) -> int:
        raise LivoaError("payload.unavailable", "the process is gone", status=503)

    with monkeypatch.context() as patch:
        patch.setattr(store._objects, "delete_run", killed)
        with pytest.raises(LivoaError, match="the process is gone"):
            await store.delete_run("contoso", "run-1")
    with pytest.raises(LivoaError) as caught:
        await place.open().get("contoso", "run-1", found)
    assert caught.value.code == "payload.erased"
    assert await place.open().delete_run("contoso", "run-1") == 1
    assert await place.open().delete_run("contoso", "run-1") == 0


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "clear", "another's", "another run's"])
async def test_damaged_content_is_noticed_and_healed_by_writing_it_again(place: Place, damage: str) -> None:
    store = place.open()
    found = await store.put("contoso", "run-1", b"{}")
    name = (await keyring_of(place, "contoso", "run-1")).name(found.sha256)
    whole = await place.objects.get("contoso", "run-1", name)
    assert whole is not None
    other = await store.put("contoso", "run-1", b"[]")
    other_name = (await keyring_of(place, "contoso", "run-1")).name(other.sha256)
    await store.put("contoso", "run-2", b"{}")
    foreign = (await keyring_of(place, "contoso", "run-2")).name(found.sha256)
    damaged = {
        "cut": whole[:-1],
        "empty": b"",
        "flipped": whole[:-1] + bytes([whole[-1] ^ 1]),
        "clear": b"{}",
        "another's": await place.objects.get("contoso", "run-1", other_name) or b"",
        "another run's": await place.objects.get("contoso", "run-2", foreign) or b"",
    }[damage]
    await place.objects.put("contoso", "run-1", name, damaged)
    with pytest.raises(LivoaError) as caught:
        await store.get("contoso", "run-1", found)
    assert (caught.value.code, caught.value.status) == ("payload.corrupt", 500)
    await store.put("contoso", "run-1", b"{}")
    assert await store.get("contoso", "run-1", found) == b"{}"


async def test_content_in_the_clear_of_an_earlier_version_is_still_read_and_checked(place: Place) -> None:
    old = ref("{}")
    await place.objects.put("contoso", "run-1", old.sha256, b"{}")
    assert await place.open().get("contoso", "run-1", old) == b"{}"
    await place.open().put("contoso", "run-1", b"[]")  # the run has a key by now
    assert await place.open().get("contoso", "run-1", old) == b"{}"
    await place.objects.put("contoso", "run-1", old.sha256, b"{ ")
    with pytest.raises(LivoaError) as caught:
        await place.open().get("contoso", "run-1", old)
    assert caught.value.code == "payload.corrupt"
    assert await place.open().delete_run("contoso", "run-1") == 2
    with pytest.raises(LivoaError) as caught:
        await place.open().get("contoso", "run-1", old)
    assert caught.value.code == "payload.erased"


async def test_files_are_for_their_owner_only(files: FilesPayloadObjects, tmp_path: Path) -> None:
    await files.put("contoso", "run-1", sha("{}"), b"{}")
    (path,) = objects(tmp_path)
    assert path.relative_to(tmp_path) == Path("payloads", "contoso", "run-1", sha("{}"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("failing", ["fsync", "replace"])
async def test_a_write_that_fails_leaves_nothing_behind(
    files: FilesPayloadObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(LivoaError, match="cannot be written") as caught:
        await files.put("contoso", "run-1", sha("{}"), b"{}")
    assert (caught.value.code, caught.value.status) == ("payload.unavailable", 503)
    assert objects(tmp_path) == []


async def test_content_is_on_disk_before_its_name_appears(
    files: FilesPayloadObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    await files.put("contoso", "run-1", sha("{}"), b"{}")
    assert steps == ["sync file", "rename", "sync directory"]


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "a\\b", "a\x00", "~x", "x" * 101, "é"])
async def test_an_id_that_is_none_never_becomes_a_path(files: FilesPayloadObjects, tmp_path: Path, name: str) -> None:
    if name == "..":  # an id by its alphabet, though never a directory of that name
        await files.put(name, name, sha("{}"), b"{}")
        assert objects(tmp_path)[0].is_relative_to(tmp_path / "payloads")
        assert ".." not in objects(tmp_path)[0].parts
        return
    for tenant_id, run_id in ((name, "run-1"), ("contoso", name)):
        with pytest.raises(LivoaError) as caught:
            await files.put(tenant_id, run_id, sha("{}"), b"{}")
        assert caught.value.code == "payload.id_invalid"
    assert objects(tmp_path) == []


@given(st.text("aAbB.-_", min_size=1, max_size=4), st.text("aAbB.-_", min_size=1, max_size=4))
def test_different_ids_are_different_directories_even_where_case_does_not_count(left: str, right: str) -> None:
    assert is_wire_id(left)
    same = folder_of(left).lower() == folder_of(right).lower()
    assert same == (left == right)
    assert folder_of(left) not in (".", "..")
    assert "/" not in folder_of(left)


async def test_a_link_in_the_place_of_content_is_not_followed(files: FilesPayloadObjects, tmp_path: Path) -> None:
    await files.put("contoso", "run-1", sha("{}"), b"{}")
    (path,) = objects(tmp_path)
    secret = tmp_path / "secret"
    secret.write_bytes(b"{}")
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(LivoaError) as caught:
        await files.get("contoso", "run-1", sha("{}"))
    assert caught.value.code == "payload.unavailable"


@pytest.mark.parametrize("name", ["", "../x", "a" * 63, "A" * 64, "a" * 64 + "\n"])
async def test_a_name_that_is_no_hash_never_becomes_a_path(files: FilesPayloadObjects, name: str) -> None:
    with pytest.raises(LivoaError) as caught:
        await files.put("contoso", "run-1", name, b"{}")
    assert caught.value.code == "payload.id_invalid"
    with pytest.raises(LivoaError):
        await files.get("contoso", "run-1", name)


def test_a_reference_cannot_name_a_path() -> None:
    with pytest.raises(ValueError):
        PayloadRef(sha256="../../etc/passwd", size_bytes=1)


async def test_what_a_record_commits_to_is_shown_only_when_it_is_that(tmp_path: Path) -> None:
    """Sealed under the very name with the very key, as a bug of ours might: the content has to say so too."""
    objects, ring = MemoryPayloadObjects(), keyring(tmp_path)
    payloads = SealedPayloadStore(objects, ring)
    known = await payloads.put("contoso", "run-1", b"what was asked")
    found = await ring.get("contoso", "run-1")
    name = found.name(known.sha256)
    assert (await payloads.committed("contoso", "run-1", name)).data == b"what was asked"
    await objects.put("contoso", "run-1", name, seal(found, name, b"something else"))
    for shown in (payloads.committed("contoso", "run-1", name), payloads.get("contoso", "run-1", known)):
        with pytest.raises(LivoaError) as caught:
            await shown
        assert caught.value.code == "payload.corrupt"

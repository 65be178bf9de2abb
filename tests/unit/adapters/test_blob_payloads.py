"""Objects in Blob Storage when things go wrong: through the real SDK, against a container on loopback that fails on demand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from engine.adapters.blob import BlobPayloadObjects
from engine.adapters.blob.payload_objects import MAX_BLOB_BYTES
from engine.domain.errors import LivoaError
from engine.domain.run import PayloadRef
from tests.support.blob_fake import ACCOUNT, KEY, BlobFake
from tests.support.payloads import sealed_payloads

NAME = "a" * 64


@pytest.fixture
async def fake() -> AsyncIterator[BlobFake]:
    async with BlobFake() as served:
        yield served


@pytest.fixture
async def objects(fake: BlobFake) -> AsyncIterator[BlobPayloadObjects]:
    opened = BlobPayloadObjects(fake.url, KEY, pause_s=0)
    yield opened
    await opened.close()


def first(fault: str | int, times: int = 1, method: str = "PUT") -> object:
    """The fault, so many times, for requests of a method."""
    left: Iterator[int] = iter(range(times))
    return lambda request: fault if request.method == method and next(left, None) is not None else None


@pytest.mark.parametrize("fault", [500, 503, "late", "lost"])
async def test_a_write_that_failed_or_seemed_to_is_done_again(
    fake: BlobFake, objects: BlobPayloadObjects, fault: str | int
) -> None:
    fake.fault = first(fault, 2)  # type: ignore[assignment]  # a lambda
    await objects.put("contoso", "run-1", NAME, b"data")
    assert await objects.get("contoso", "run-1", NAME) == b"data"
    assert fake.asked.count("PUT") == 3


@pytest.mark.parametrize("fault", [500, 503, "late", "lost"])
async def test_a_write_that_never_succeeds_is_refused_after_four_tries_and_heals_later(
    fake: BlobFake, objects: BlobPayloadObjects, fault: str | int
) -> None:
    fake.fault = first(fault, 99)  # type: ignore[assignment]
    with pytest.raises(LivoaError) as caught:
        await objects.put("contoso", "run-1", NAME, b"data")
    assert (caught.value.code, caught.value.status) == ("payload.unavailable", 503)
    # The transport itself repeats a request once whose connection was closed under it.
    assert len(fake.asked) == (8 if fault == "lost" else 4)
    assert ACCOUNT not in caught.value.message
    assert NAME not in caught.value.message
    fake.fault = lambda request: None
    await objects.put("contoso", "run-1", NAME, b"data")
    assert list(fake.blobs.values()) == [b"data"]


@pytest.mark.parametrize("fault", [500, "lost"])
async def test_a_read_that_failed_is_done_again_within_bounds(
    fake: BlobFake, objects: BlobPayloadObjects, fault: str | int
) -> None:
    await objects.put("contoso", "run-1", NAME, b"data")
    fake.fault = first(fault, 3, "GET")  # type: ignore[assignment]
    assert await objects.get("contoso", "run-1", NAME) == b"data"
    fake.fault = first(fault, 99, "GET")  # type: ignore[assignment]
    with pytest.raises(LivoaError) as caught:
        await objects.get("contoso", "run-1", NAME)
    assert caught.value.code == "payload.unavailable"


async def test_a_missing_container_is_an_outage_and_not_an_empty_place(
    fake: BlobFake, objects: BlobPayloadObjects
) -> None:
    fake.missing = True
    for ask in (
        objects.get("contoso", "run-1", NAME),
        objects.put("contoso", "run-1", NAME, b"data"),
        objects.delete_run("contoso", "run-1"),
    ):
        with pytest.raises(LivoaError, match="ContainerNotFound") as caught:
            await ask
        assert caught.value.code == "payload.unavailable"


@pytest.mark.parametrize("status", [401, 403, 409])
async def test_a_refusal_is_an_outage_and_not_tried_again(
    fake: BlobFake, objects: BlobPayloadObjects, status: int
) -> None:
    fake.fault = lambda request: status
    with pytest.raises(LivoaError) as caught:
        await objects.put("contoso", "run-1", NAME, b"data")
    assert (caught.value.code, fake.asked) == ("payload.unavailable", ["PUT"])


async def test_removing_that_stopped_in_between_is_finished_by_the_next(
    fake: BlobFake, objects: BlobPayloadObjects
) -> None:
    for number in range(8):
        await objects.put("contoso", "run-1", f"{number:064x}", b"data")
    await objects.put("contoso", "run-10", NAME, b"another run's")
    stop = iter(range(5))

    def faults(request: web.Request) -> int | None:
        return 403 if request.method == "DELETE" and next(stop, None) is None else None

    fake.fault = faults
    with pytest.raises(LivoaError):
        await objects.delete_run("contoso", "run-1")
    assert 1 < len(fake.blobs) < 9
    fake.fault = lambda request: None
    left = len(fake.blobs) - 1
    assert await objects.delete_run("contoso", "run-1") == left
    assert list(fake.blobs) == [f"contoso/run-10/{NAME}"]


async def test_an_empty_page_is_not_the_end_of_a_listing(fake: BlobFake, objects: BlobPayloadObjects) -> None:
    for number in range(5):
        await objects.put("contoso", "run-1", f"{number:064d}", b"data")
    fake.empty_first = True
    assert await objects.delete_run("contoso", "run-1") == 5
    assert fake.blobs == {}


async def test_a_delete_whose_answer_was_lost_counts_as_done(fake: BlobFake, objects: BlobPayloadObjects) -> None:
    await objects.put("contoso", "run-1", NAME, b"data")
    fake.fault = first("lost", 1, "DELETE")  # type: ignore[assignment]
    assert await objects.delete_run("contoso", "run-1") in (0, 1)
    assert fake.blobs == {}


async def test_what_is_larger_than_anything_we_put_is_not_read(fake: BlobFake, objects: BlobPayloadObjects) -> None:
    fake.blobs[f"contoso/run-1/{NAME}"] = bytes(MAX_BLOB_BYTES + 1)
    with pytest.raises(LivoaError) as caught:
        await objects.get("contoso", "run-1", NAME)
    assert caught.value.code == "payload.corrupt"


async def test_neither_names_nor_bytes_show_what_is_stored(
    fake: BlobFake, objects: BlobPayloadObjects, tmp_path: Path
) -> None:
    found = await sealed_payloads(tmp_path, objects).put("contoso", "run-1", b"a secret of ours")
    ((name, data),) = fake.blobs.items()
    assert found.sha256 not in name
    assert b"secret" not in data


async def test_an_empty_blob_is_corrupt_content(fake: BlobFake, objects: BlobPayloadObjects, tmp_path: Path) -> None:
    store = sealed_payloads(tmp_path, objects)
    found: PayloadRef = await store.put("contoso", "run-1", b"{}")
    (name,) = fake.blobs
    fake.blobs[name] = b""
    with pytest.raises(LivoaError) as caught:
        await store.get("contoso", "run-1", found)
    assert caught.value.code == "payload.corrupt"


@pytest.mark.parametrize("url", ["https://account.example", "ftp://a/b", "https://a/b?sv=1", "payloads"])
def test_an_address_that_is_no_container_is_refused(url: str) -> None:
    with pytest.raises(LivoaError) as caught:
        BlobPayloadObjects(url)
    assert caught.value.code == "settings.invalid"

"""Streaming in both directions, through the FastAPI extension, over real sockets."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from local_host.host import HostOptions


async def test_a_stream_arrives_piece_by_piece_with_its_type(start_host, http):
    host = await start_host("streaming")
    async with http.get(f"{host.url}/api/count/3") as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert await response.text() == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
    async with http.get(f"{host.url}/api/count/x") as response:
        assert response.status == 404


async def test_a_request_body_is_streamed_into_the_function(start_host, http):
    host = await start_host("streaming")

    async def pieces():
        for _ in range(4):
            yield b"x" * 1000
            await asyncio.sleep(0.01)

    async with http.post(f"{host.url}/api/upload?a=b%20c", data=pieces()) as response:
        assert await response.json() == {
            "size": 4000,
            "several": True,
            "query": {"a": "b c"},
            "url": f"{host.url}/api/upload?a=b%20c",
        }
    async with http.post(f"{host.url}/api/upload") as response:
        assert (await response.json())["size"] == 0


async def test_both_directions_flow_at_the_same_time(start_host, http):
    host = await start_host("streaming")
    answered = asyncio.Event()

    async def pieces():
        yield b"one"
        await asyncio.wait_for(answered.wait(), 5)  # the answer to "one" must come before "two" is sent
        yield b"two"

    async with http.post(f"{host.url}/api/upper", data=pieces()) as response:
        assert await response.content.readexactly(3) == b"ONE"
        answered.set()
        assert await response.content.read() == b"TWO"


async def test_a_client_that_leaves_cancels_the_generator(start_host, http):
    host = await start_host("streaming")
    async with http.get(f"{host.url}/api/forever") as response:
        await response.content.readany()
        response.close()
    async with http.get(f"{host.url}/api/was_cancelled") as response:
        assert await response.json() == {"cancelled": True}


async def test_silence_inside_a_stream_cuts_it_and_it_does_not_look_complete(start_host, http):
    host = await start_host("streaming", HostOptions(response_limit_s=0.2, drain_s=1.0))
    async with http.get(f"{host.url}/api/silent") as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientError):
            await response.read()


async def test_a_generator_that_raises_breaks_the_response_off_without_a_trace(start_host, http):
    host = await start_host("streaming")
    async with http.get(f"{host.url}/api/breaks") as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_values_and_http_exceptions_are_rendered_by_the_extension(start_host, http):
    host = await start_host("streaming")
    async with http.get(f"{host.url}/api/plain") as response:
        assert (response.status, await response.text()) == (200, '"text"')
    async with http.get(f"{host.url}/api/teapot") as response:
        assert (response.status, json.loads(await response.text())) == (418, {"detail": "short and stout"})
    async with http.get(f"{host.url}/api/boom") as response:
        assert (response.status, await response.read()) == (500, b"")


async def test_head_sends_no_body(start_host, http):
    host = await start_host("streaming")
    async with http.head(f"{host.url}/api/head") as response:
        assert (response.status, response.headers["X-Seen"], response.headers["Content-Length"]) == (200, "HEAD", "12")
        assert await response.read() == b""
    async with http.get(f"{host.url}/api/head") as response:
        assert await response.text() == "twelve chars"


async def test_a_body_over_the_limit_is_413(start_host, http, monkeypatch):
    monkeypatch.setenv("FUNCTIONS_REQUEST_BODY_SIZE_LIMIT", "1000")
    host = await start_host("streaming")

    async def pieces():
        yield b"x" * 600
        yield b"x" * 600

    async with http.post(f"{host.url}/api/upload", data=pieces()) as response:
        assert response.status == 413


async def test_the_switch_of_one_app_does_not_reach_the_next_one(tmp_path, http):
    from local_host.host import EmbeddedHost

    from .conftest import APPS

    for round_number in range(2):
        async with (
            EmbeddedHost(APPS / "streaming", tmp_path / f"s{round_number}") as host,
            http.get(f"{host.url}/api/plain") as response,
        ):
            assert await response.text() == '"text"'
        async with (
            EmbeddedHost(APPS / "route_zoo", tmp_path / f"z{round_number}") as host,
            http.get(f"{host.url}/api/named_after_function") as response,
        ):
            assert await response.text() == "hello"


async def test_a_durable_client_works_beside_the_extension(start_host, http):
    host = await start_host("streaming")
    async with http.post(f"{host.url}/api/start", data=b"hello") as response:
        body = await response.json()
        assert (response.status, body["output"]) == (202, "HELLO")

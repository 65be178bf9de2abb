"""The HTTP side over real sockets: what a client of the route zoo sees."""

from __future__ import annotations

import asyncio
import json
import logging
import stat
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from local_host.host import EmbeddedHost, HostOptions

GUID = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"


async def _json(response: aiohttp.ClientResponse) -> dict:
    assert response.status == 200, await response.text()
    return json.loads(await response.text())


@pytest.mark.parametrize(
    ("path", "function", "route"),
    [
        ("items/7", "item_by_number", {"id": "7"}),
        ("items/-7", "item_by_number", {"id": "-7"}),
        (f"items/{GUID}", "item_by_guid", {"id": GUID}),
        ("items/newest", "item_newest", {}),
        ("ITEMS/Newest", "item_newest", {}),
        ("items/seven", "item_by_name", {"name": "seven"}),
        ("items/99999999999", "item_by_name", {"name": "99999999999"}),
        ("page", "page", {}),
        ("page/3", "page", {"number": "3"}),
        ("echo/a/b/c", "echo", {"rest": "a/b/c"}),
        ("echo", "echo", {}),
        ("echo/sp%20ace/%C3%BC/pl+us", "echo", {"rest": "sp ace/ü/pl+us"}),
        ("echo/a%2Fb", "echo", {"rest": "a%2Fb"}),
        ("echo/%FF", "echo", {"rest": "%FF"}),
        ("echo//a/./b/../c/", "echo", {"rest": "a/c"}),
    ],
)
async def test_a_path_reaches_its_function_with_decoded_values(start_host, http, path, function, route):
    host = await start_host("route_zoo")
    async with http.get(URL(f"{host.url}/api/{path}", encoded=True)) as response:
        seen = await _json(response)
    assert (seen["function"], seen["route"]) == (function, route)


async def test_wrong_method_unknown_route_and_missing_prefix_are_not_found(start_host, http):
    host = await start_host("route_zoo")
    for method, path in [
        ("DELETE", "/api/items/7"),
        ("HEAD", "/api/items/7"),
        ("GET", "/api/nothing"),
        ("GET", "/items/7"),
        ("GET", "/api/items/7/more"),
        ("GET", "/runtime/other"),
    ]:
        async with http.request(method, host.url + path) as response:
            assert (response.status, await response.read()) == (404, b""), (method, path)


async def test_a_nul_in_the_path_is_refused(start_host, http):
    host = await start_host("route_zoo")
    async with http.get(URL(f"{host.url}/api/echo/%00", encoded=True)) as response:
        assert response.status == 400


async def test_repeated_query_names_and_headers_are_joined_with_commas(start_host, http):
    host = await start_host("route_zoo")
    headers = [("X-Two", "1"), ("X-Two", "2")]
    async with http.get(URL(f"{host.url}/api/echo?a=1&A=2&b=x+y%20z&c", encoded=True), headers=headers) as response:
        seen = await _json(response)
    assert seen["query"] == {"a": "1,2", "b": "x y z", "c": ""}
    assert seen["headers"]["x-two"] == "1,2"
    assert seen["url"] == f"{host.url}/api/echo?a=1&A=2&b=x+y%20z&c"


async def test_chunked_and_sized_bodies_arrive_whole(start_host, http):
    host = await start_host("route_zoo")

    async def pieces():
        for _ in range(10):
            yield b"x" * 1000

    async with http.post(f"{host.url}/api/echo", data=pieces()) as response:
        assert (await _json(response))["size"] == 10_000
    async with http.post(f"{host.url}/api/items", data=b"body") as response:
        assert (response.status, response.headers["Location"], await response.read()) == (201, "/api/items/1", b"body")
    async with http.post(f"{host.url}/api/form", data={"a": "1"}) as response:
        assert await _json(response) == {"a": "1"}


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_413(start_host, http, monkeypatch, chunked):
    monkeypatch.setenv("FUNCTIONS_REQUEST_BODY_SIZE_LIMIT", "1000")
    host = await start_host("route_zoo")

    async def pieces():
        yield b"x" * 600
        yield b"x" * 600

    async with http.post(f"{host.url}/api/echo", data=pieces() if chunked else b"x" * 1001) as response:
        assert response.status == 413
    async with http.post(f"{host.url}/api/echo", data=b"x" * 1000) as response:
        assert response.status == 200


async def test_head_has_the_headers_of_get_and_no_body(start_host, http):
    host = await start_host("route_zoo")
    async with http.head(f"{host.url}/api/named_after_function") as response:
        assert response.status == 200
        assert response.headers["Content-Length"] == "5"
        assert await response.read() == b""


async def test_a_string_result_is_plain_text(start_host, http):
    host = await start_host("route_zoo")
    async with http.get(f"{host.url}/api/named_after_function") as response:
        assert (await response.text(), response.headers["Content-Type"]) == ("hello", "text/plain; charset=utf-8")


async def test_cookies_stay_separate_and_hop_by_hop_headers_are_dropped(start_host, http):
    host = await start_host("route_zoo")
    async with http.get(f"{host.url}/api/cookies") as response:
        cookies = response.headers.getall("Set-Cookie")
        assert [cookie.split(";")[0] for cookie in cookies] == ["a=1", "b=2"]
        assert "HttpOnly" in cookies[0]
        assert "SameSite=Lax" in cookies[1]
        assert response.headers["X-Plain"] == "1"
        assert "Connection" not in response.headers


@pytest.mark.parametrize(
    "path", ["boom", "wrong", "exits", "exits_in_thread", "cancels", "split?value=a%0D%0AX-Injected:%201"]
)
async def test_a_failure_is_an_empty_500_and_the_reason_is_in_the_log_only(start_host, http, caplog, path):
    host = await start_host("route_zoo")
    caplog.set_level(logging.ERROR, "local_host.http")
    async with http.get(URL(f"{host.url}/api/{path}", encoded=True)) as response:
        assert (response.status, await response.read()) == (500, b"")
        assert "X-Injected" not in response.headers
    assert "Result: Failure" in caplog.text
    async with http.get(f"{host.url}/api/named_after_function") as response:
        assert response.status == 200  # the host lives on


async def test_function_and_admin_levels_take_the_right_keys(start_host, http, tmp_path):
    host = await start_host("route_zoo")
    keys = json.loads((tmp_path / "data" / "keys.json").read_text())
    function_key, master = keys["functionKeys"]["default"], keys["masterKey"]
    assert stat.S_IMODE((tmp_path / "data" / "keys.json").stat().st_mode) == 0o600
    for path, key, status in [
        ("locked", None, 401),
        ("locked", "wrong", 401),
        ("locked", function_key, 200),
        ("locked", master, 200),
        ("admin-only", None, 401),
        ("admin-only", function_key, 401),
        ("admin-only", master, 200),
    ]:
        headers = {"x-functions-key": key} if key else {}
        async with http.get(f"{host.url}/api/{path}", headers=headers) as response:
            assert response.status == status, (path, status)
        async with http.get(f"{host.url}/api/{path}", params={"code": key} if key else {}) as response:
            assert response.status == status, (path, status)


async def test_host_status_needs_the_master_key(start_host, http):
    host = await start_host("route_zoo")
    async with http.get(f"{host.url}/admin/host/status") as response:
        assert response.status == 401
    async with http.get(f"{host.url}/admin/host/status", headers={"x-functions-key": host.keys.master}) as response:
        assert (await _json(response))["state"] == "Running"


async def test_context_carries_the_callers_trace_and_settings_prefer_the_environment(start_host, http, monkeypatch):
    monkeypatch.setenv("ZOO_OVERRIDDEN", "from environment")
    host = await start_host("route_zoo")
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01", "tracestate": "k=v"}
    async with http.get(f"{host.url}/api/context", headers=headers) as response:
        seen = await _json(response)
    version, seen_trace, span, flags = seen["traceparent"].split("-")
    assert (version, seen_trace, flags, seen["tracestate"]) == ("00", trace, "01", "k=v")
    assert span != "b7ad6b7169203331"
    assert seen["old_alias"] == seen["traceparent"]
    assert seen["name"] == "context_facts"
    assert Path(seen["directory"]).name == "route_zoo"
    assert (seen["setting"], seen["overridden"]) == ("from file", "from environment")
    async with http.get(f"{host.url}/api/context", headers={"traceparent": "00-zz-1-01"}) as response:
        assert (await _json(response))["traceparent"].count("-") == 3


async def test_a_blocking_function_does_not_hold_up_others(start_host, http):
    host = await start_host("route_zoo")
    slow = asyncio.create_task(http.get(f"{host.url}/api/slow?seconds=0.5").__aenter__())
    await asyncio.sleep(0.05)
    async with http.get(f"{host.url}/api/named_after_function") as response:
        assert response.status == 200
    assert not slow.done()
    assert (await slow).status == 200


async def test_the_response_limit_is_a_504(start_host, http):
    host = await start_host("route_zoo", HostOptions(response_limit_s=0.1, drain_s=2.0))
    async with http.get(f"{host.url}/api/slow?seconds=0.3") as response:
        assert (response.status, await response.read()) == (504, b"")


async def test_a_body_that_never_comes_is_408(start_host):
    host = await start_host("route_zoo", HostOptions(response_limit_s=0.1, drain_s=2.0))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(host.url.rsplit(":", 1)[1]))
    writer.write(b"POST /api/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab")
    assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 408")
    writer.close()


async def test_an_asgi_app_is_served_through_its_function_and_told_of_the_end(http, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app_dir = tmp_path / "asgi"
    app_dir.mkdir()
    (app_dir / "host.json").write_text('{"version": "2.0", "extensions": {"http": {"routePrefix": ""}}}')
    (app_dir / "function_app.py").write_text(
        "import azure.functions as func\n"
        "async def site(scope, receive, send):\n"
        "    if scope['type'] == 'lifespan':\n"
        "        while (await receive())['type'] != 'lifespan.shutdown':\n"
        "            await send({'type': 'lifespan.startup.complete'})\n"
        "        open('ended', 'w').close()\n"
        "        return await send({'type': 'lifespan.shutdown.complete'})\n"
        "    body = (await receive())['body']\n"
        "    await send({'type': 'http.response.start', 'status': 203, 'headers': [(b'x-path', scope['path'].encode())]})\n"
        "    await send({'type': 'http.response.body', 'body': body[::-1]})\n"
        "app = func.AsgiFunctionApp(app=site, http_auth_level=func.AuthLevel.ANONYMOUS)\n"
    )
    async with (
        EmbeddedHost(app_dir, tmp_path / "data") as host,
        http.post(f"{host.url}/some/path", data=b"abc") as response,
    ):
        assert (response.status, response.headers["x-path"], await response.read()) == (203, "/some/path", b"cba")
    assert (tmp_path / "ended").exists()


async def test_too_many_requests_are_429_and_a_function_over_its_time_is_500(start_host, http, monkeypatch):
    monkeypatch.setenv("AzureFunctionsJobHost__extensions__http__maxOutstandingRequests", "2")
    monkeypatch.setenv("AzureFunctionsJobHost__extensions__http__maxConcurrentRequests", "1")
    monkeypatch.setenv("AzureFunctionsJobHost__functionTimeout", "00:00:01")
    host = await start_host("route_zoo")

    async def status(path):
        async with http.get(f"{host.url}/api/{path}") as response:
            return response.status

    first = asyncio.create_task(status("slow?seconds=1.2"))
    await asyncio.sleep(0.1)
    second = asyncio.create_task(status("slow?seconds=0"))
    await asyncio.sleep(0.1)
    assert await status("slow?seconds=0") == 429
    assert not second.done()  # waits for its turn
    assert (await first, await second) == (500, 200)
    assert await status("slow?seconds=0") == 200

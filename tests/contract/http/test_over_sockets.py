"""One good run over real sockets: it leaves its traces, its events arrive each once, and it ends when it is cancelled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.contract.http.api import HostApi, host_api
from tests.unit.triggers.test_events import parse_sse

INTENT = json.dumps({"intent": "Why did sales change in the last quarter?"}).encode()


async def all_events(api: HostApi, run_id: str) -> tuple[list[int], int]:
    """The events of a run as a resuming EventSource sees them, and how many responses that took."""
    seen: list[int] = []
    for responses in range(1, 200):
        headers = {"last-event-id": str(seen[-1])} if seen else {}
        answer = await api.send("GET", f"/api/runs/{run_id}/events", headers=headers)
        if answer.status == 204:
            return seen, responses
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        seen += [event["seq"] for event in parse_sse(answer.body)]
    raise AssertionError("the stream did not end")


async def until(api: HostApi, run_id: str, event_type: str) -> None:
    """Long-poll the log until it holds an event of this type."""
    after = 0
    for _ in range(20):
        target = f"/api/runs/{run_id}/events?after={after}&wait_s=5"
        page = (await api.send("GET", target, headers={"accept": "application/json"})).json
        if event_type in {event["type"] for event in page["events"]}:
            return
        after = page["next_after"]
    raise AssertionError(f"no {event_type}")


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_good_run_leaves_traces_streams_and_ends(tmp_path: Path, streaming: bool) -> None:
    async with host_api(tmp_path, streaming=streaming) as api:
        assert await api.is_untouched()
        accepted = await api.send("POST", "/api/runs", body=INTENT, headers={"idempotency-key": "one"})
        assert accepted.status == 202
        run_id = accepted.json["run_id"]
        again = await api.send("POST", "/api/runs", body=INTENT, headers={"idempotency-key": "one"})
        assert (again.status, again.json["run_id"]) == (202, run_id)
        assert min((await api.traces()).values()) > 0

        await until(api, run_id, "plan.vetted")
        assert (await api.send("POST", f"/api/runs/{run_id}/cancel")).status == 202
        seen, responses = await all_events(api, run_id)
        assert seen == list(range(1, len(seen) + 1))
        if streaming:
            assert responses == 2  # one stream to the end, one answer that says so
        status = await api.send("GET", f"/api/runs/{run_id}/status")
        assert (status.status, status.json["customStatus"]["status"]) == (200, "cancelled")
        page = await api.send("GET", f"/api/runs/{run_id}/events", headers={"accept": "application/json"})
        assert (len(page.json["events"]), page.json["ended"]) == (len(seen), True)
        assert (await api.send("POST", f"/api/runs/{run_id}/cancel")).code == "run.finished"

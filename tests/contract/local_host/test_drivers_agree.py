"""Warm, cold and rebuilt executions say the same; the host's numbers are the SDK's numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from local_host.durable.determinism import check_framework, roles_by_id
from local_host.durable.episodes import Mail
from local_host.durable.execution import Execution
from local_host.durable.history import EventSent
from local_host.durable.protocol import CreateTimer, EntityOperation
from local_host.durable.records import EpisodeWrites
from local_host.durable.walker import SdkIds, not_yet_created, walk_again
from tests.contract.local_host.random_programs import Loop, World, make_app

SEEDS = range(50)


def comparable(writes: EpisodeWrites) -> Any:
    """Everything but the random execution id of a continued or child execution."""
    return (
        replace(writes.instance, execution_id=""),
        writes.chunk,
        writes.events,
        writes.reset,
        writes.work,
        writes.timers,
        [replace(child, execution_id="") for child in writes.children],
        writes.entity_items,
        sorted(writes.consumed_inbox),
        writes.consumed_work,
        writes.consumed_timers,
        writes.carried,
        writes.notify,
    )


def normal(raw: list[dict[str, Any]]) -> str:
    """A raw list without the cancel flags, which a warm reply reports apart."""
    return json.dumps(raw, sort_keys=True).replace('"isCanceled": true', '"isCanceled": false')


def sdk_open_ids(execution: Execution) -> set[int]:
    """Integer keys the SDK itself waits for, entity calls aside (they are re-keyed by request id)."""
    assert execution.warm is not None
    tasks = execution.warm._context.open_tasks
    return {key for key, task in tasks.items() if isinstance(key, int) and task._api_name != "CallEntityAction"}


def host_open_ids(execution: Execution) -> set[int]:
    """Ids the host believes the SDK waits for: listed and not completed, retry timers and attempts included."""
    waiting = set()
    for task_id, (leaf, _) in roles_by_id(execution.listing, execution.numbering).items():
        is_completed = task_id in execution.created and task_id not in execution.outstanding
        if not is_completed and not isinstance(leaf.action, EntityOperation):
            waiting.add(task_id)
    return waiting


@pytest.mark.parametrize("retries", [False, True], ids=["plain", "retries"])
def test_warm_and_cold_agree_on_every_episode_of_random_programs(retries: bool) -> None:
    episodes = ends = 0
    for seed in SEEDS:
        app, world = make_app(), World(seed)
        # Retry programs can drift from what the framework would number; here only the drivers are compared.
        given = {"seed": seed, "retries": retries}
        warm, cold = (Loop.start(app, given, warm=is_warm, strict=False) for is_warm in (True, False))
        mail, at = Mail(), "2026-01-01T00:00:00.000000Z"
        for _ in range(80):
            left, right = warm.episode(mail, at), cold.episode(mail, at)
            assert comparable(left) == comparable(right), (seed, at)
            assert normal(warm.execution.listing.raw) == normal(cold.execution.listing.raw), seed
            assert [leaf.cancelled for leaf in warm.execution.listing.leaves] == [
                leaf.cancelled for leaf in cold.execution.listing.leaves
            ], seed
            episodes += 1
            if left.instance.is_terminal or left.reset:
                ends += 1
                break
            world.take_in(left)
            mail, at = world.batch()
    assert episodes > 5 * len(SEEDS) / 2
    assert ends > len(SEEDS) * 0.7


@pytest.mark.parametrize("retries", [False, True], ids=["plain", "retries"])
def test_the_hosts_numbers_are_the_sdks_numbers(retries: bool) -> None:
    compared = 0
    for seed in SEEDS:
        app, world = make_app(), World(seed)
        loop = Loop.start(app, {"seed": seed, "retries": retries}, warm=True, strict=False)
        mail, at = Mail(), "2026-01-01T00:00:00.000000Z"
        for _ in range(80):
            writes = loop.episode(mail, at)
            if writes.instance.is_terminal or writes.reset:
                break
            if loop.execution.warm is not None:
                assert sdk_open_ids(loop.execution) == host_open_ids(loop.execution), (seed, at)
                compared += 1
            world.take_in(writes)
            mail, at = world.batch()
    assert compared > 120


@pytest.mark.parametrize("retries", [False, True], ids=["plain", "retries"])
@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_a_rebuilt_execution_equals_the_living_one(retries: bool, warm: bool) -> None:
    for seed in list(SEEDS)[::3]:
        app, world = make_app(), World(seed)
        loop = Loop.start(app, {"seed": seed, "retries": retries}, warm=warm, strict=False)
        mail, at = Mail(), "2026-01-01T00:00:00.000000Z"
        for _ in range(60):
            writes = loop.episode(mail, at)
            if writes.instance.is_terminal or writes.reset:
                break
            live = loop.execution
            rebuilt = Execution(live.instance, live.wrapper, warm)
            rebuilt.restore(list(live.events), live.chunk)
            assert normal(rebuilt.listing.raw) == normal(live.listing.raw), seed
            assert [leaf.id for leaf in rebuilt.listing.leaves] == [leaf.id for leaf in live.listing.leaves], seed
            assert rebuilt.numbering.next_id == live.numbering.next_id
            assert rebuilt.created == live.created
            assert rebuilt.outstanding == live.outstanding
            assert rebuilt.delivered == live.delivered
            assert rebuilt.walk.position == live.walk.position, seed
            assert rebuilt.walk.has_open_tasks() == live.walk.has_open_tasks(), seed
            assert (rebuilt.ended is None) == (live.ended is None)
            # Half of the programs go on with the rebuilt execution: recovery must be able to finish what was begun.
            if seed % 2:
                loop.execution = rebuilt
            world.take_in(writes)
            mail, at = world.batch()


def test_without_retries_walking_on_equals_walking_again_and_the_framework_counts_alike() -> None:
    for seed in SEEDS:
        app, world = make_app(), World(seed)
        loop = Loop.start(app, {"seed": seed}, warm=True)
        mail, at = Mail(), "2026-01-01T00:00:00.000000Z"
        for _ in range(60):
            writes = loop.episode(mail, at)
            if writes.instance.is_terminal or writes.reset:
                break
            live = loop.execution
            check_framework(live.events, live.listing, live.numbering)
            again, _ = walk_again(live.listing, live.events, SdkIds(live.numbering))
            if not live.listing.is_order_sensitive:
                assert again.position == live.walk.position, seed
                assert set(again.open) == set(live.walk.open), seed
            assert not_yet_created(again.scheduled, live.created) == []
            world.take_in(writes)
            mail, at = world.batch()


def test_head_of_line_no_top_level_action_is_created_before_all_earlier_ones_are_passed() -> None:
    """Read off the history itself: a created id belongs to the action being awaited or to an earlier one."""
    for seed in SEEDS:
        app, world = make_app(), World(seed)
        loop = Loop.start(app, {"seed": seed}, warm=True)
        mail, at = Mail(), "2026-01-01T00:00:00.000000Z"
        for _ in range(60):
            writes = loop.episode(mail, at)
            if writes.instance.is_terminal or writes.reset:
                break
            live = loop.execution
            reached = live.listing.tops[: live.walk.position + 1]
            allowed = {leaf.id for leaf in live.listing.leaves if _belongs(leaf.node, reached)}
            assert live.created <= allowed, seed
            for leaf in live.listing.leaves:
                if isinstance(leaf.action, CreateTimer) and leaf.cancelled and _belongs(leaf.node, reached):
                    assert leaf.id in live.created, "a cancelled timer is created all the same"
            sent = [event.event_id for event in live.events if isinstance(event, EventSent)]
            assert len(sent) == len(set(sent))
            world.take_in(writes)
            mail, at = world.batch()


def _belongs(node: int, tops: list[Any]) -> bool:
    return any(_contains(top, node) for top in tops)


def _contains(top: Any, node: int) -> bool:
    return top.node == node or any(_contains(child, node) for child in getattr(top, "children", ()))

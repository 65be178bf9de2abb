"""The schedules of every day notice what is planted: each fault of ``bus_faults`` is seen by a script or by a daily seed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.chaos.bus_faults import FAULTS, Fault
from tests.chaos.bus_scripts import SCRIPTS, Script, ScriptedWorld
from tests.chaos.bus_world import BusWorld
from tests.chaos.test_bus import broken


async def found(world: BusWorld) -> list[str]:
    """What the schedule has to say against the product."""
    try:
        return await broken(world, await world.play())
    except AssertionError as err:
        return [str(err)]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name.replace(" ", "-"))
async def test_one_thing_goes_wrong_and_is_made_up_for(script: Script, tmp_path: Path) -> None:
    world = ScriptedWorld(script, tmp_path)
    assert not await found(world), f"took {world.took_s} s; {world.crashes}"


@pytest.mark.thorough
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
async def test_a_planted_fault_is_noticed(fault: Fault, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    logging.disable(logging.CRITICAL)
    try:
        fault.plant(monkeypatch)
        noticed = {}
        for number, script in enumerate(SCRIPTS):
            if said := await found(ScriptedWorld(script, tmp_path / str(number))):
                noticed[script.name] = said[0]
    finally:
        logging.disable(logging.NOTSET)
    print(*noticed.items(), sep="\n")
    assert noticed, "nobody noticed"

"""A running host and the catalog's files: what changed is said once, and what was loaded stays in use."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import threading
from pathlib import Path

import pytest

from engine.adapters.files import FilesCatalog, FilesCatalogWatch, catalog_watch
from engine.adapters.files.catalog import catalog_states
from engine.adapters.memory import FixedClock
from engine.domain.errors import LivoaError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("capabilities", "playbooks"):
        shutil.copytree(ROOT / "catalog" / folder, tmp_path / folder)
    return tmp_path


class Watched:
    def __init__(self, root: Path) -> None:
        self.catalog = FilesCatalog(root)
        self.clock = FixedClock()
        self.watch = FilesCatalogWatch(root, self.catalog, self.clock)

    async def state(self) -> str:
        self.clock.advance(3)
        return (await self.watch.look()).state


async def test_files_that_break_and_are_mended_are_told_once_each(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "livoa.catalog")
    watched = Watched(root)
    version, page = watched.catalog.version, root / "capabilities" / "rag.search.yaml"
    good = page.read_text()
    assert [await watched.state() for _ in range(2)] == ["as_loaded"] * 2
    page.write_text("name: [")
    assert [await watched.state() for _ in range(3)] == ["broken"] * 3
    found = await watched.watch.look()
    assert [fault.pointer for fault in found.faults] == ["capabilities/rag.search.yaml#"]
    page.write_text(good.replace("title: ", "title: New ", 1))
    assert [await watched.state() for _ in range(2)] == ["changed"] * 2
    page.write_text(good)
    assert await watched.state() == "as_loaded"
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING", "INFO"]
    assert "capabilities/rag.search.yaml#" in caplog.records[0].getMessage()
    assert (watched.catalog.version, len(watched.catalog.capabilities)) == (
        version,
        len(FilesCatalog(root).capabilities),
    )


async def test_another_fault_in_broken_files_is_told_too(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(root)
    for name in ("rag.search", "mmm.fit"):
        (root / "capabilities" / f"{name}.yaml").write_text("")
        assert await watched.state() == "broken"
    assert len(caplog.records) == 2


async def test_files_are_looked_at_once_in_two_seconds(root: Path) -> None:
    watched = Watched(root)
    await watched.watch.look()
    (root / "capabilities" / "rag.search.yaml").unlink()
    assert (await watched.watch.look()).state == "as_loaded"
    assert await watched.state() != "as_loaded"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_folder_that_cannot_be_read_is_broken_until_it_can(root: Path) -> None:
    watched = Watched(root)
    (root / "capabilities").chmod(0)
    try:
        assert await watched.state() == "broken"
    finally:
        (root / "capabilities").chmod(0o755)
    assert await watched.state() == "as_loaded"


async def test_a_look_that_is_cancelled_has_noticed_nothing(root: Path) -> None:
    watched = Watched(root)
    (root / "capabilities" / "rag.search.yaml").write_text("")
    watched.clock.advance(3)
    look = asyncio.create_task(watched.watch.look())
    await asyncio.sleep(0)
    look.cancel()
    with pytest.raises(asyncio.CancelledError):
        await look
    await asyncio.to_thread(lambda: None)
    assert await watched.state() == "broken"


@pytest.mark.parametrize("leads_to", ["nowhere.yaml", "odd.yaml"])
async def test_a_link_that_leads_nowhere_is_a_page_that_cannot_be_read(root: Path, leads_to: str) -> None:
    watched = Watched(root)
    link = root / "capabilities" / "odd.yaml"
    link.symlink_to(link.with_name(leads_to))
    assert await watched.state() == "broken"
    assert [fault.pointer for fault in (await watched.watch.look()).faults] == ["capabilities/odd.yaml#"]
    with pytest.raises(LivoaError, match="cannot be read"):
        FilesCatalog(root)
    link.unlink()
    assert await watched.state() == "as_loaded"


async def test_a_folder_that_does_not_answer_keeps_nobody(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, answers, threads = Watched(root), threading.Event(), threading.active_count()
    monkeypatch.setattr(catalog_watch, "LOOK_S", 0.05)
    monkeypatch.setattr(catalog_watch, "catalog_states", lambda root: catalog_states(root) if answers.wait(60) else ())
    (root / "capabilities" / "rag.search.yaml").write_text("")
    assert [await watched.state() for _ in range(4)] == ["as_loaded"] * 4
    assert threading.active_count() == threads + 1, "one of them hangs, however often it is asked"
    assert "does not answer" in caplog.text
    answers.set()
    monkeypatch.setattr(catalog_watch, "LOOK_S", 60.0)
    assert await watched.state() == "broken"


async def test_a_pipe_among_the_pages_is_no_page_and_keeps_nobody(root: Path) -> None:
    watched = Watched(root)
    os.mkfifo(root / "capabilities" / "pipe.yaml")
    assert await watched.state() == "broken"
    (fault,) = (await watched.watch.look()).faults
    assert (fault.pointer, fault.message) == ("capabilities/pipe.yaml#", "cannot be read: it is no file")

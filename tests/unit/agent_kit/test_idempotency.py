"""The idempotency store as a state machine, and what survives a crash."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent_kit.idempotency import RETENTION, Claimed, IdempotencyStore, InFlight, Mismatch, Replayed

START = datetime(2026, 11, 22, tzinfo=UTC)
LEASE_S = 15.0
LOST = b"unknown"
tenants = st.sampled_from(["contoso", "fabrikam"])
keys = st.sampled_from(["r/a", "r/b"])
requests = st.sampled_from(["one", "two"])


class Store(RuleBasedStateMachine):
    """Against a model: per (tenant, key) nothing, a claim, which may be ``once`` claimed, or a last word."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.at = START
        self.store = self.open()
        self.claims: dict[tuple[str, str], tuple[str, str, datetime]] = {}
        self.once: set[tuple[str, str]] = set()
        self.kept: dict[tuple[str, str], tuple[str, bytes, datetime]] = {}
        self.lost: list[tuple[str, str, str]] = []
        self.effects = 0

    def open(self) -> IdempotencyStore:
        return IdempotencyStore(self.folder / "executions.db", now=lambda: self.at)

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    def lose(self, place: tuple[str, str], *, is_dead: bool = False) -> None:
        """Whoever looks at a claim after its lease, or after a restart, settles it, where it must not be made again."""
        held = self.claims.get(place)
        if held is not None and place in self.once and (is_dead or held[2] <= self.at):
            del self.claims[place]
            self.lost.append((*place, held[1]))
            self.kept[place] = held[0], LOST, self.at + RETENTION

    @rule(tenant=tenants, key=keys, request=requests, once=st.booleans())
    def claim(self, tenant: str, key: str, request: str, once: bool) -> None:
        place = tenant, key
        found = self.store.claim(tenant, key, request, LEASE_S, LOST if once else None)
        self.lose(place)
        kept, held = self.kept.get(place), self.claims.get(place)
        if kept is not None and kept[2] > self.at:
            assert found == (Replayed(kept[1]) if kept[0] == request else Mismatch())
        elif held is not None and held[0] != request:
            assert found == Mismatch()
        elif held is not None and held[2] > self.at:
            assert isinstance(found, InFlight)
            assert 0 < found.for_s <= LEASE_S
        else:
            assert isinstance(found, Claimed)
            self.kept.pop(place, None)
            if held is not None:
                self.lost.append((*place, held[1]))
            self.claims[place] = request, found.token, self.at + timedelta(seconds=LEASE_S)
            (self.once.add if once else self.once.discard)(place)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(sorted(self.claims)))
        request, token, _ = self.claims.pop(place)
        self.effects += 1
        response = f"answer {self.effects}".encode()
        assert self.store.conclude(*place, token, response)
        assert not self.store.conclude(*place, token, b"again"), "settled once"
        self.kept[place] = request, response, self.at + RETENTION

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(sorted(self.claims)))
        self.store.release(*place, self.claims.pop(place)[1])

    @precondition(lambda self: any(until > self.at for _, _, until in self.claims.values()))
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        """A failure frees the key and can be looked up; whoever claims next runs, with whatever request."""
        alive = sorted(place for place, (_, _, until) in self.claims.items() if until > self.at)
        place = data.draw(st.sampled_from(alive))
        request, token, _ = self.claims.pop(place)
        assert self.store.fail(*place, token, b"failure")
        assert not self.store.fail(*place, token, b"again"), "settled once"
        assert not self.store.conclude(*place, token, b"late")
        assert self.store.look(*place, request) == Replayed(b"failure")
        assert self.store.look(*place, "a third") == Mismatch()

    @rule(tenant=tenants, key=keys, request=requests)
    def look(self, tenant: str, key: str, request: str) -> None:
        place = tenant, key
        found = self.store.look(tenant, key, request)
        self.lose(place)
        kept, held = self.kept.get(place), self.claims.get(place)
        if kept is not None and kept[2] > self.at:
            assert found == (Replayed(kept[1]) if kept[0] == request else Mismatch())
        elif held is not None and held[2] > self.at:
            assert isinstance(found, InFlight if held[0] == request else Mismatch)
        else:
            assert found in (None, Replayed(b"failure"), Mismatch())

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(sorted(self.claims)))
        request, token, _ = self.claims[place]
        assert self.store.renew(*place, token, LEASE_S)
        self.claims[place] = request, token, self.at + timedelta(seconds=LEASE_S)

    @precondition(lambda self: self.lost)
    @rule(data=st.data())
    def a_late_finisher_changes_nothing(self, data: st.DataObject) -> None:
        tenant, key, token = data.draw(st.sampled_from(self.lost))
        assert not self.store.conclude(tenant, key, token, b"late")
        assert not self.store.renew(tenant, key, token, LEASE_S)
        self.store.release(tenant, key, token)

    @rule(seconds=st.sampled_from([1, 16, 3_600, 26 * 3_600]))
    def time_passes(self, seconds: int) -> None:
        self.at += timedelta(seconds=seconds)

    @rule()
    def restart(self) -> None:
        """The only user of the file comes back: nobody can be holding a claim."""
        self.store.close()
        self.store = self.open()
        for place in tuple(self.claims):
            self.lose(place, is_dead=True)
        self.lost.extend((*place, held[1]) for place, held in self.claims.items())
        self.claims.clear()

    @invariant()
    def successes_are_answered_for_a_day(self) -> None:
        for (tenant, key), (request, response, until) in self.kept.items():
            if until > self.at:
                assert self.store.claim(tenant, key, request, LEASE_S) == Replayed(response)


Store.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestStore = Store.TestCase


def test_claims_of_a_living_process_survive_another_ones_start(tmp_path: Path) -> None:
    path = tmp_path / "executions.db"
    first = IdempotencyStore(path)
    assert isinstance(first.claim("t", "k", "x", 60), Claimed)
    second = IdempotencyStore(path)
    assert isinstance(second.claim("t", "k", "x", 60), InFlight)
    first.close()
    second.close()


def test_claims_of_a_killed_process_are_free_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "executions.db"
    script = (
        "import os, sys, signal; from pathlib import Path; from agent_kit.idempotency import IdempotencyStore\n"
        "store = IdempotencyStore(Path(sys.argv[1])); done = store.claim('t', 'done', 'x', 600)\n"
        "store.conclude('t', 'done', done.token, b'kept'); store.claim('t', 'open', 'x', 600)\n"
        "store.claim('t', 'once', 'x', 600, b'unknown')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).resolve().parents[3]
    assert subprocess.run([sys.executable, "-c", script, path], cwd=root, check=False).returncode == -9
    store = IdempotencyStore(path)
    assert isinstance(store.claim("t", "open", "x", 60), Claimed)
    assert store.claim("t", "done", "x", 60) == Replayed(b"kept")
    assert store.look("t", "once", "x") == Replayed(b"unknown")
    assert store.claim("t", "once", "x", 60, b"another") == Replayed(b"unknown")
    store.close()


def test_a_clock_that_is_set_back_lengthens_no_lease_of_a_dead_process(tmp_path: Path) -> None:
    path, at = tmp_path / "x.db", START
    dead, neighbour = IdempotencyStore(path, now=lambda: at), IdempotencyStore(path, now=lambda: at)
    assert isinstance(dead.claim("contoso", "r/a", "one", LEASE_S, LOST), Claimed)
    at -= timedelta(hours=3)
    for _ in range(2):
        assert neighbour.claim("contoso", "r/a", "one", LEASE_S, LOST) == InFlight(LEASE_S)
    at += timedelta(seconds=LEASE_S)
    assert neighbour.claim("contoso", "r/a", "one", LEASE_S, LOST) == Replayed(LOST)


def test_a_clock_that_is_set_back_takes_no_lease_of_who_lives(tmp_path: Path) -> None:
    path, at = tmp_path / "x.db", START
    own, neighbour = IdempotencyStore(path, now=lambda: at), IdempotencyStore(path, now=lambda: at)
    claimed = own.claim("contoso", "r/a", "one", LEASE_S, LOST)
    assert isinstance(claimed, Claimed)
    at -= timedelta(hours=3)
    for _ in range(5):
        assert isinstance(neighbour.claim("contoso", "r/a", "one", LEASE_S, LOST), InFlight)
        at += timedelta(seconds=5)
        assert own.renew("contoso", "r/a", claimed.token, LEASE_S)
    assert own.conclude("contoso", "r/a", claimed.token, b"done")


def test_old_successes_do_not_pile_up(tmp_path: Path) -> None:
    at = START
    store = IdempotencyStore(tmp_path / "executions.db", now=lambda: at)
    for number in range(300):
        found = store.claim("t", f"k{number}", "x", LEASE_S)
        assert isinstance(found, Claimed)
        store.conclude("t", f"k{number}", found.token, b"answer")
    at = START + RETENTION + timedelta(seconds=1)
    for number in range(201):
        store.claim("t", f"new{number}", "x", LEASE_S)
    assert store._db.execute("SELECT count(*) FROM executions WHERE response IS NOT NULL").fetchone() == (0,)
    store.close()


def test_a_file_of_before_failures_were_kept_still_works(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "executions.db"
    old = sqlite3.connect(path)
    old.execute(
        "CREATE TABLE executions (tenant_id TEXT NOT NULL, key TEXT NOT NULL, request_sha256 TEXT NOT NULL, "
        "token TEXT NOT NULL, response BLOB, until REAL NOT NULL, PRIMARY KEY (tenant_id, key)) WITHOUT ROWID"
    )
    old.execute("INSERT INTO executions VALUES ('t', 'k', 'x', 'token', x'6b657074', 99999999999)")
    old.execute("INSERT INTO executions VALUES ('t', 'open', 'x', 'token', NULL, 99999999999)")
    old.commit()
    old.close()
    store = IdempotencyStore(path)
    assert store.claim("t", "k", "x", 60) == Replayed(b"kept")
    assert isinstance(store.claim("t", "open", "x", 60), Claimed)
    claimed = store.claim("t", "other", "x", 60, b"unknown")
    assert isinstance(claimed, Claimed)
    assert store.fail("t", "other", claimed.token, b"failure")
    assert isinstance(store.claim("t", "other", "y", 60), Claimed)

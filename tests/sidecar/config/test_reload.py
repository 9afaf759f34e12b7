"""Reload: whatever happens to the files, what worked goes on being served, and the status says what is not."""

import asyncio
import functools
import shutil
import tempfile
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from llmroute_sidecar.config.directory import DirectorySource
from llmroute_sidecar.config.reload import Reload, Reloader
from llmroute_sidecar.config.secrets import SecretValues
from llmroute_sidecar.config.source import TOLD_MAX, Reading, SourceError, TryAgain
from llmroute_sidecar.snapshot import Snapshot
from tests.cluster.projection import project
from tests.sidecar.config.mounted import clear, compiled, write

Damage = Callable[[bytes], bytes]
DAMAGES: Mapping[str, Damage] = {
    "half-written": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "no JSON": lambda data: b"{" + data,
    "not UTF-8": lambda data: b"\xff" + data,
    "schema 2": lambda data: data.replace(b'"schemaVersion":1', b'"schemaVersion":2'),
    "another digest": lambda data: data.replace(b"mock://local", b"mock://other"),
    "nested deep": lambda _: b"[" * 100_000,
    "null": lambda _: b"null\n",
}


def started(config: Path, secrets: Path | None = None) -> Reloader:
    return Reloader(DirectorySource(config, secrets or config / "no-secrets"), clock=lambda: 1000.0)


def applied(reloader: Reloader) -> Snapshot:
    reload = reloader.tick()
    assert reload is not None
    assert reload.snapshot is not None, reload.status
    return reload.snapshot


def test_a_new_version_is_applied(tmp_path: Path) -> None:
    write(tmp_path, compiled(a=1))
    reloader = started(tmp_path)
    assert applied(reloader).model_names == {"a-1"}
    assert reloader.tick() is None
    write(tmp_path, compiled(a=2, b=1))
    snapshot = applied(reloader)
    assert snapshot.model_names == {"a-2", "b-1"}
    assert reloader.status.healthy
    assert reloader.status.revision == reloader.status.wanted_revision == snapshot.revision
    assert [(route.name, route.generation) for route in reloader.status.routes] == [("a", 2), ("b", 1)]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_route_keeps_its_last_good_version_and_the_others_update(tmp_path: Path, damage: str) -> None:
    write(tmp_path, compiled(a=1, b=1))
    reloader = started(tmp_path)
    first = applied(reloader)
    files = compiled(a=2, b=2)
    write(tmp_path, files | {"route.a.json": DAMAGES[damage](files["route.a.json"])})
    reload = reloader.tick()
    assert reload is not None
    assert reload.snapshot is not None
    assert reload.result == "partial"
    assert reload.snapshot.model_names == {"a-1", "b-2"}
    assert reload.snapshot.revision == reload.status.revision
    assert reload.status.revision not in (reload.status.wanted_revision, first.revision)
    stays, moves = reload.status.routes
    assert (stays.accepted, stays.generation, moves.accepted, moves.generation) == (False, 1, True, 2)
    assert "route.a.json" in stays.reason
    write(tmp_path, files)
    assert applied(reloader).model_names == {"a-2", "b-2"}
    assert reloader.status.healthy


@pytest.mark.parametrize("damage", sorted(DAMAGES.keys() - {"another digest"}))
def test_a_damaged_index_keeps_everything(tmp_path: Path, damage: str) -> None:
    write(tmp_path, compiled(a=1))
    reloader = started(tmp_path)
    snapshot = applied(reloader)
    files = compiled(a=2)
    write(tmp_path, files | {"gateway.json": DAMAGES[damage](files["gateway.json"])})
    reload = reloader.tick()
    assert reload is not None
    assert (reload.result, reload.snapshot) == ("failed", None)
    assert reload.status.revision == snapshot.revision
    assert reload.status.error
    assert reloader.tick() is None
    write(tmp_path, files)
    assert applied(reloader).model_names == {"a-2"}
    assert reloader.status.error is None


def test_a_route_that_was_never_good_is_just_not_served(tmp_path: Path) -> None:
    files = compiled(a=1, b=1)
    write(tmp_path, files | {"route.a.json": b"{"})
    reload = started(tmp_path).tick()
    assert reload is not None
    assert reload.snapshot is not None
    assert reload.snapshot.model_names == {"b-1"}
    assert [(route.name, route.generation) for route in reload.status.routes] == [("a", None), ("b", 1)]


def test_a_route_that_is_not_listed_is_gone(tmp_path: Path) -> None:
    write(tmp_path, compiled(a=1, b=1))
    reloader = started(tmp_path)
    applied(reloader)
    write(tmp_path, compiled(b=1))
    assert applied(reloader).model_names == {"b-1"}


def test_a_directory_that_vanishes_keeps_the_last_good(tmp_path: Path) -> None:
    write(tmp_path / "config", compiled(a=1))
    reloader = started(tmp_path / "config")
    revision = applied(reloader).revision
    shutil.rmtree(tmp_path / "config")
    reload = reloader.tick()
    assert reload is not None
    assert (reload.result, reload.snapshot, reload.status.revision) == ("failed", None, revision)
    write(tmp_path / "config", compiled(a=1))
    reloader.tick()
    assert reloader.status.healthy


def test_a_secret_alone_rebuilds_the_snapshot_at_the_same_revision(tmp_path: Path) -> None:
    config, secrets = tmp_path / "config", tmp_path / "secrets"
    project(config, compiled(a=1))
    reloader = started(config, secrets)
    without = applied(reloader)
    assert reloader.status.missing_secrets
    project(secrets / "clients", {"app": b"one"})
    with_key = applied(reloader)
    assert with_key.revision == without.revision
    assert with_key.keys.find(b"one")
    assert reloader.status.missing_secrets == ()
    project(secrets / "clients", {"app": b"two"})
    assert not applied(reloader).keys.find(b"one")
    project(secrets / "clients", {"app": b" \n", "note": b"# no key on purpose"})
    reload = reloader.tick()
    assert reload is not None
    assert reload.status.missing_secrets == (
        "spec.auth.keysFrom.secretRef: entry 'app' of Secret 'clients' holds no key",
    )


def test_a_kubelet_swap_is_applied(tmp_path: Path) -> None:
    project(tmp_path, compiled(a=1))
    reloader = started(tmp_path)
    applied(reloader)
    project(tmp_path, compiled(a=2))
    assert applied(reloader).model_names == {"a-2"}


def test_a_source_that_fails_in_a_way_nobody_foresaw_keeps_what_is_served(tmp_path: Path) -> None:
    write(tmp_path, compiled(a=1))
    source = DirectorySource(tmp_path, tmp_path / "secrets")
    reloader = Reloader(source)
    revision = applied(reloader).revision

    def broken() -> object:
        raise ZeroDivisionError("with content that must not be told")

    source.fingerprint = broken  # type: ignore[method-assign]
    reload = reloader.tick()
    assert reload is not None
    assert reload.status.revision == revision
    assert isinstance(reload.fault, ZeroDivisionError)
    assert "ZeroDivisionError" in (reload.status.error or "")
    assert "content" not in (reload.status.error or "")
    assert reloader.tick() is None
    del source.fingerprint
    assert applied(reloader).revision == revision  # though no file has moved
    assert reloader.status.healthy


class Scripted:
    """A source whose fingerprint never moves, and whose readings the test says. It counts them."""

    def __init__(self) -> None:
        self.next: Reading | Exception = Reading(compiled(a=1), SecretValues({"clients": {}}))
        self.readings = 0

    def fingerprint(self) -> int:
        return 1

    def mark(self) -> None:
        pass

    def read(self) -> Reading:
        self.readings += 1
        if isinstance(self.next, Exception):
            raise self.next
        return self.next


@pytest.mark.parametrize("trouble", [TryAgain("no descriptors"), ValueError()])
def test_trouble_that_may_pass_is_told_once_and_heals_though_no_file_moves(trouble: Exception) -> None:
    source = Scripted()
    good, source.next = source.next, trouble
    reloader = Reloader(source)
    first = reloader.tick()
    assert first is not None
    assert first.result == "failed"
    assert [reloader.tick() for _ in range(5)] == [None] * 5
    assert source.readings == 6
    source.next = good
    assert applied(reloader).model_names == {"a-1"}
    assert reloader.status.healthy
    assert reloader.tick() is None
    assert source.readings == 7


def test_what_is_wrong_with_the_files_themselves_is_not_read_again_until_they_move() -> None:
    source = Scripted()
    source.next = SourceError("one.yaml:1: is not YAML", "two.yaml:7: is not YAML")
    reloader = Reloader(source)
    first = reloader.tick()
    assert first is not None
    assert first.problems == ("one.yaml:1: is not YAML", "two.yaml:7: is not YAML")
    assert reloader.tick() is None
    assert source.readings == 1


def test_a_file_that_cannot_be_read_for_a_while_is_told_once_and_taken_when_it_can() -> None:
    source = Scripted()
    files = compiled(a=1, b=1)
    lost = {name: data for name, data in files.items() if name != "route.a.json"}
    why = {"route.a.json": "cannot be read: Input/output error"}
    source.next = Reading(lost, SecretValues({"clients": {}}), (), why, in_trouble=True)
    reloader = Reloader(source)
    assert applied(reloader).model_names == {"b-1"}
    assert reloader.status.routes[0].reason == "route.a.json cannot be read: Input/output error"
    assert [reloader.tick() for _ in range(3)] == [None] * 3
    source.next = Reading(files, SecretValues({"clients": {}}))
    assert applied(reloader).model_names == {"a-1", "b-1"}
    assert reloader.status.healthy


def test_many_problems_are_told_by_their_first_and_their_number() -> None:
    error = SourceError(*(f"line {number}" for number in range(50)))
    assert len(error.problems) == TOLD_MAX + 1
    assert str(error).endswith("line 19; and 30 more")


def test_watching_hands_each_reload_to_the_event_loop(tmp_path: Path) -> None:
    write(tmp_path, compiled(a=1))
    reloader = started(tmp_path)

    assert asyncio.run(_watched(reloader, lambda: write(tmp_path, compiled(a=2)), interval=0)) == [{"a-1"}, {"a-2"}]


def test_a_volume_that_was_swapped_is_read_before_the_next_look_is_due(tmp_path: Path) -> None:
    project(tmp_path, compiled(a=1))
    reloader = started(tmp_path)

    assert asyncio.run(_watched(reloader, lambda: project(tmp_path, compiled(a=2)), interval=3600)) == [
        {"a-1"},
        {"a-2"},
    ]


async def _watched(reloader: Reloader, change: Callable[[], object], *, interval: float) -> list[frozenset[str]]:
    """The names of the models as they were first, and once `change` was seen."""
    found: list[frozenset[str]] = []
    second = asyncio.Event()

    def on_reload(reload: Reload) -> None:
        asyncio.get_running_loop()  # raises in any other thread
        assert reload.snapshot is not None
        found.append(frozenset(reload.snapshot.model_names))
        if len(found) == 1:
            change()
        else:
            second.set()

    watching = asyncio.create_task(reloader.watch(on_reload, interval=interval))
    await asyncio.wait_for(second.wait(), 60)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    return found


def test_a_reload_that_cannot_be_taken_over_does_not_end_the_watching(tmp_path: Path) -> None:
    write(tmp_path, compiled(a=1))
    reloader = started(tmp_path)

    async def watched() -> list[str]:
        results: list[str] = []
        healed = asyncio.Event()

        def on_reload(reload: Reload) -> None:
            results.append(reload.result)
            if len(results) == 1:
                raise ZeroDivisionError
            if len(results) == 2:
                assert "ZeroDivisionError" in (reload.status.error or "")
                write(tmp_path, compiled(a=2))
            else:
                healed.set()

        watching = asyncio.create_task(reloader.watch(on_reload, interval=0))
        await asyncio.wait_for(healed.wait(), 10)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        return results

    assert asyncio.run(watched()) == ["applied", "failed", "applied"]
    assert reloader.status.healthy


# --- any sequence of states, against a model that says exactly what must be served

State = tuple[dict[str, int], frozenset[str], str]
"""Listed routes with their versions, those whose files are damaged, and the damage; damage to the index is named ""."""


class InMemory:
    """A directory's states without a disk, so that thousands of sequences can be had."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.there = False

    def fingerprint(self) -> Hashable:
        return tuple(sorted(self.files.items())) if self.there else None

    def mark(self) -> Hashable:
        return self.fingerprint()

    def read(self) -> Reading:
        if not self.there:
            raise SourceError("there is no directory")
        return Reading(self.files, SecretValues({"clients": {"app": b"key"}}))


@functools.cache
def compiled_of(versions: frozenset[tuple[str, int]]) -> dict[str, bytes]:
    return compiled(**dict(versions))


STATES = st.tuples(
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 4)),
    st.frozensets(st.sampled_from(["", "a", "b", "c"]), max_size=2),
    st.sampled_from(["vanished", "lost", *sorted(DAMAGES.keys() - {"another digest", "nested deep"})]),
)


@given(st.lists(STATES, min_size=1, max_size=8))
@settings(max_examples=1500, deadline=None)
def test_any_sequence_serves_the_newest_good_version_of_each_listed_route(history: list[State]) -> None:
    source = InMemory()
    reloader = Reloader(source, clock=lambda: 1000.0)
    served: dict[str, int] = {}
    """The model: a good version replaces, a damaged one leaves what was, an index that fails leaves everything."""
    snapshot: Snapshot | None = None
    for versions, damaged, damage in [*history, ({"a": 5, "b": 5}, frozenset[str](), "none")]:
        files = dict(compiled_of(frozenset(versions.items())))
        source.there = damage != "vanished" or not damaged
        for name in damaged & {"", *versions}:
            file = f"route.{name}.json" if name else "gateway.json"
            if damage == "lost":
                del files[file]
            elif damage != "vanished":
                files[file] = DAMAGES[damage](files[file])
        source.files = files
        index_is_good = source.there and "" not in damaged
        if index_is_good:
            intact = {name: version for name, version in versions.items() if name not in damaged}
            served = {name: intact.get(name, served.get(name, 0)) for name in versions}
            served = {name: version for name, version in served.items() if version}

        reload = reloader.tick()
        if reload is not None and reload.snapshot is not None:
            snapshot = reload.snapshot
        expected = {f"{name}-{version}" for name, version in served.items()}
        assert (snapshot.model_names if snapshot else set()) == expected
        assert reloader.tick() is None  # each state is told once
        assert (reloader.status.error is None) == index_is_good
        if index_is_good:
            whole = not (damaged & versions.keys()) or all(
                served.get(n) == versions[n] for n in damaged & versions.keys()
            )
            assert reloader.status.healthy == whole
            assert (reloader.status.revision == reloader.status.wanted_revision) == whole
    assert snapshot is not None
    assert snapshot.model_names == {"a-5", "b-5"}


class AnyHistory(RuleBasedStateMachine):
    """Any order of writes, damages, disappearances and swaps: what is served was always once valid, and never lost."""

    @initialize(kubelet=st.booleans())
    def begin(self, kubelet: bool) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.config, self.secrets = self.folder / "config", self.folder / "secrets"
        self.put = project if kubelet else write
        self.kubelet = kubelet
        self.reloader = started(self.config, self.secrets)
        self.snapshot: Snapshot | None = None
        self.valid: set[str] = set()
        """Models of every route version that was ever there whole."""
        self.files: dict[str, bytes] = {}

    def _put(self, files: Mapping[str, bytes]) -> None:
        if not self.kubelet:
            clear(self.config)
        self.put(self.config, files)

    @rule(a=st.integers(0, 3), b=st.integers(0, 3))
    def write_whole(self, a: int, b: int) -> None:
        versions = {name: version for name, version in (("a", a), ("b", b)) if version}
        self.files = compiled(**versions)
        self.valid |= {f"{name}-{version}" for name, version in versions.items()}
        self._put(self.files)

    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        if self.files:
            name = data.draw(st.sampled_from(sorted(self.files)))
            damage = data.draw(st.sampled_from(sorted(DAMAGES)))
            self._put(self.files | {name: DAMAGES[damage](self.files[name])})

    @rule(data=st.data())
    def lose_a_file(self, data: st.DataObject) -> None:
        if self.files:
            lost = data.draw(st.sampled_from(sorted(self.files)))
            self._put({name: content for name, content in self.files.items() if name != lost})

    @rule()
    def lose_everything(self) -> None:
        self._put({})

    @rule()
    def lose_the_directory(self) -> None:
        shutil.rmtree(self.config, ignore_errors=True)

    @rule(entries=st.dictionaries(st.sampled_from(["app", "web"]), st.binary(max_size=12), max_size=2))
    def write_secret(self, entries: dict[str, bytes]) -> None:
        project(self.secrets / "clients", entries)

    @rule()
    def look(self) -> None:
        reload = self.reloader.tick()
        if reload is not None and reload.snapshot is not None:
            self.snapshot = reload.snapshot

    @invariant()
    def what_is_served_was_once_valid(self) -> None:
        if hasattr(self, "snapshot") and self.snapshot is not None:
            assert self.snapshot.model_names <= self.valid
            assert self.reloader.status.revision == self.snapshot.revision

    @rule()
    def a_whole_configuration_is_always_taken(self) -> None:
        self.write_whole(1, 2)
        self.look()
        assert self.snapshot is not None
        assert self.snapshot.model_names == {"a-1", "b-2"}
        assert self.reloader.status.error is None
        assert self.reloader.tick() is None

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(
    max_examples=60, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

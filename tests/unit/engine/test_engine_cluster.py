"""Work on other processes: same results, deaths of workers, and clusters that cannot be used."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recon.core.memory import machine_memory, memory_size
from recon.engine import cluster
from recon.engine.recipe import Recipe
from recon.engine.runner import RunOptions, RunSummary, run_stages
from recon.errors import ReconError, UsageError
from recon.io.files import INCOMPLETE
from tests.support.cluster_tasks import SpreadStage, squares

pytest.importorskip("distributed", reason="recon[cluster] is not installed")


def run(root: Path, settings: dict[str, int] | None = None, **options: Any) -> RunSummary:
    stage = SpreadStage()
    recipe = Recipe("test", "", "normal", {"spread": stage.Settings(**(settings or {}))}, Path("test.toml"))
    return run_stages([stage], recipe, root, RunOptions(threads=1, **options))


def test_two_processes_one_killed_and_a_number_that_kills_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results are those of one process; what dies each time is left out and said, all else is done."""
    monkeypatch.setattr(cluster, "MOST_DEATHS", 1)
    alone = run(tmp_path / "alone", {"numbers": 60})
    assert alone.counts("spread") == {"squares": 60, "processes": 1, "here": 1}
    shared = run(tmp_path / "shared", {"numbers": 60, "once": 3, "always": 7}, workers=2, memory=2 << 30)
    counts = shared.counts("spread")
    assert counts["squares"] == 59
    assert counts["processes"] >= 2
    assert not counts["here"]
    (warning,) = shared.warnings
    assert warning.startswith("squaring: 7 is left out: each worker that took it died")
    expected = squares(tmp_path / "alone")
    del expected["7.txt"]
    expected["done"] = expected["done"].replace(" 7,", "")
    assert squares(tmp_path / "shared") == expected


@pytest.mark.parametrize("times", [1, cluster._LOSSES + 1])
def test_a_result_lost_before_it_was_fetched_is_made_again(
    monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """As when a worker dies that held results of others; lost again and again, it ends the run."""
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as local, Client(local) as client:
        mission = cluster.Cluster(client, local.scheduler_address, True, logging.getLogger("recon"))
        submit, lost = client.submit, []

        def losing(*args: Any, **options: Any) -> Any:
            future = submit(*args, **options)
            if 3 in map(abs, args[2]) and len(lost) < times:
                lost.append(future.key)
                client.cancel([future], force=True)
            return future

        monkeypatch.setattr(client, "submit", losing)
        done: list[int] = []
        if times == 1:
            assert mission.map(abs, range(-4, 0), lambda: done.append(1), lambda *_: None) == [4, 3, 2, 1]
            assert len(done) == 4
        else:
            with pytest.raises(ReconError, match="does not answer any more"):
                mission.map(abs, range(6), lambda: done.append(1), lambda *_: None)
        assert len(lost) == times


@pytest.mark.parametrize(("seconds", "most"), [(0.0, 30), (0.3, 1)])
def test_short_items_go_to_a_worker_together(
    monkeypatch: pytest.MonkeyPatch, seconds: float, most: int
) -> None:
    from distributed import Client, LocalCluster

    sizes: list[int] = []
    monkeypatch.setattr(cluster, "_timed", lambda task, items: [(task(item), seconds) for item in items])
    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as local, Client(local) as client:
        mission = cluster.Cluster(client, local.scheduler_address, True, logging.getLogger("recon"))
        submit = client.submit

        def counting(*args: Any, **options: Any) -> Any:
            sizes.append(len(args[2]))
            return submit(*args, **options)

        monkeypatch.setattr(client, "submit", counting)
        done: list[int] = []
        found = mission.map(abs, range(-100, 0), lambda: done.append(1), lambda *_: None)
        assert found == list(range(100, 0, -1))
        assert len(done) == sum(sizes) == 100
    assert max(sizes) <= most
    assert sizes[0] == sizes[-1] == 1
    assert (max(sizes) > 1) == (seconds == 0.0)


def test_a_scheduler_that_does_not_answer_ends_the_run_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ReconError, match=r"no Dask scheduler answers there .* or use --workers"):
            run(tmp_path / "out", cluster=address)
    assert not (tmp_path / "out" / "squares").exists()
    with pytest.raises(UsageError, match="give one of them"):
        run(tmp_path / "out", cluster=address, workers=2)


class FakeClient:
    """Answers as workers do that were asked for their versions and their sight of the workspace."""

    status = "running"

    def __init__(self, root: Path, memory: int | None = None, threads: int = 1, **changed: str) -> None:
        self.root, self.changed = root, changed
        self.worker = SimpleNamespace(
            address="tcp://far:1",
            memory_manager=SimpleNamespace(memory_limit=memory),
            state=SimpleNamespace(nthreads=threads),
        )

    def wait_for_workers(self, *_: Any, **__: Any) -> None:
        pass

    def run(self, ask: Any, root: str, token: str) -> dict[str, Any]:
        assert root
        problem, versions, memory = ask(str(self.root), token, self.worker)
        return {"tcp://far:1": (problem, versions | self.changed, memory)}


def check(client: FakeClient, root: Path) -> cluster.Cluster:
    one = cluster.Cluster(client, "tcp://scheduler:1", False, logging.getLogger("recon"))
    cluster.check_workers(one, root)
    return one


def test_workers_of_other_versions_or_without_the_workspace_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "SHARED_SECONDS", 0.2)
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    check(FakeClient(here), here)
    assert not list((here / INCOMPLETE).iterdir())
    with pytest.raises(ReconError, match=r"tcp://far:1 has other versions.*recon 0\.0\.9 there"):
        check(FakeClient(here, recon="0.0.9"), here)
    with pytest.raises(ReconError, match=rf"does not share the workspace {here}: it does not see the folder"):
        check(FakeClient(there), here)
    (there / INCOMPLETE).mkdir(parents=True)
    with pytest.raises(ReconError, match="it sees another folder there"):
        check(FakeClient(there), here)


def test_a_worker_with_too_little_memory_for_a_task_is_refused_before_it_begins(tmp_path: Path) -> None:
    assert check(FakeClient(tmp_path), tmp_path).memory == machine_memory()
    few = check(FakeClient(tmp_path, memory=1 << 30, threads=4), tmp_path)
    assert few.memory == 1 << 28
    few.check_memory(1 << 28)
    with pytest.raises(
        ReconError, match=r"tcp://far:1 has 0\.25 GB .* needs about 0\.50 GB: .*--memory-limit 0\.5GiB"
    ):
        few.check_memory(1 << 29)
    # With what the cache may take, a quarter of all.
    with pytest.raises(
        ReconError,
        match=r"has 0\.50 GB for a task.* needs about 0\.52 GB.*give --memory more, or take fewer --workers",
    ):
        run(tmp_path / "out", workers=1, memory=1 << 29, needs=lambda *_: 400 << 20)
    assert not (tmp_path / "out" / "squares").exists()


def test_memory_sizes() -> None:
    assert memory_size("8G") == memory_size("8 GiB") == 8 << 30
    assert memory_size("900mb") == 900 << 20
    for text in ("8 apples", "1M", "-3G", ""):
        with pytest.raises(UsageError, match="--memory"):
            memory_size(text)
    assert machine_memory() > 1 << 28

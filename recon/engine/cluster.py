"""Tasks on the processes of a Dask cluster: ours for the time of a run, or one that is running already.

Dask is the engine (``recon[cluster]``) and is imported here only. What goes through its scheduler is small: a task, the
number of a photo or pair, and counts or a few matches back. Photos and results are read and written in the workspace,
which every worker must see under the same path.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import statistics
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recon.core.memory import KEPT_FREE, MAPPED, RARE_COLLECTIONS, machine_memory
from recon.core.parallel import Waiting
from recon.engine.workspace import library_versions
from recon.errors import ReconError
from recon.io.files import INCOMPLETE

ANSWER_SECONDS = 15
"""So long a scheduler may take to answer, and a started worker to report."""
SHARED_SECONDS = 10.0
"""So long a file that a worker wrote may take to be seen here: network file systems keep what they know of a folder for
some seconds."""
_BATCH_SECONDS, _SHARES = 0.25, 4
"""Items that take less go to a worker together, for about so long; each thread gets what is left in so many shares."""
MOST_DEATHS = 2
"""A photo whose task ended so many workers of ours, and as many again when it was alone, is left out."""
_NO_WORKER_SECONDS = 60.0
_RESULT_SECONDS = 120.0
_LOSSES = 5
"""So often a result may be lost with the worker that held it, before it was fetched, and its item be done again."""
_HANGS_AFTER, _HANGS_TIMES = 300.0, 30.0
"""A task hangs when it takes longer than these seconds and so many times the middle one of those that are done."""
_WAIT_SECONDS, _ASK_EVERY, _LOOK_EVERY = 0.2, 1.0, 5.0
"""Seconds to wait for a result before looking round, and between questions for the workers, and for what they do."""
_WORKER_TTL = "60s"
"""A worker of ours that is not heard of for so long is given up."""


@dataclass
class Cluster:
    """Workers that do tasks.

    Attributes:
        client: Dask's.
        address: of the scheduler.
        ours: True where the workers live for this run only.
        memory: bytes that a task has on the worker that gives it least, ``tightest``.
        cpu_seconds: of all tasks so far.
        seconds: of each task so far.
        hangs_after: seconds after which a task may be taken to hang.
        preparing: what the workers do while they have no task.
    """

    client: Any
    address: str
    ours: bool
    log: logging.Logger
    memory: int = 0
    tightest: str = ""
    cpu_seconds: float = 0.0
    hangs_after: float = _HANGS_AFTER
    seconds: list[float] = field(default_factory=list)
    preparing: list[Any] = field(default_factory=list)

    def map(
        self,
        task: Callable[[Any], Any],
        items: Sequence[Any],
        on_done: Callable[[], object],
        lost: Callable[[Any, str], Any],
        needs: Sequence[Collection[int]] | None = None,
    ) -> list[Any]:
        """The results of a task over items, in order.

        Neighbours in the order of the items go to one worker as far as that keeps no other one waiting.

        Args:
            task: can be pickled; reads and writes the workspace.
            on_done: called after each item.
            lost: what stands for the result of an item whose worker died or hung each time; its text says what
                happened.
            needs: as ``parallel.Waiting`` takes it.

        Raises:
            ReconError: the scheduler, or the last worker, is gone.
            Whatever a task raises.
        """
        from distributed import CancelledError
        from distributed.comm import CommClosedError

        mission = _Mission(self, task, items, on_done, lost, needs)
        try:
            with self.client.as_current():
                return mission.run()
        except (CancelledError, CommClosedError, TimeoutError, asyncio.TimeoutError) as error:
            raise self.gone() from error
        except OSError as error:
            if self.alive:
                raise
            raise self.gone() from error
        finally:
            mission.cancel()

    def prepare(self, stages: Sequence[Any]) -> None:
        """Have each worker import the modules of stages, and then warm up for them, while it has no task.

        Libraries take seconds to load, and compiled kernels tenths of one.
        """
        workers = list(self.client.nthreads())
        kinds = [type(stage) for stage in stages]
        jobs: list[tuple[Callable[..., None], Any, int]] = [(_prepare, kind.__module__, -1) for kind in kinds]
        jobs += [(_warm_up, kind, -2) for kind in kinds if hasattr(kind, "warm_up")]
        self.preparing = [
            self.client.submit(job, what, workers=[worker], pure=False, priority=priority)
            for job, what, priority in jobs
            for worker in workers
        ]

    def check_memory(self, needed: int) -> None:
        """See that the largest task fits into every worker.

        Args:
            needed: bytes.

        Raises:
            ReconError: it does not fit.
        """
        if needed > self.memory:
            limit = f"--memory-limit {-(-needed // (1 << 28)) / 4:g}GiB"
            how = (
                "give --memory more, or take fewer --workers"
                if self.ours
                else f"start it with {limit} or more"
            )
            raise ReconError(
                f"worker {self.tightest} has {self.memory / 2**30:.2f} GB for a task, and the largest task of this run "
                f"needs about {needed / 2**30:.2f} GB: {how}, or ask for less with --set match.max_size or --quality"
            )

    @property
    def alive(self) -> bool:
        """True while the scheduler is connected."""
        scheduler = getattr(self.client, "scheduler_comm", None)
        comm = getattr(scheduler, "comm", None)
        return self.client.status == "running" and comm is not None and not comm.closed()

    def gone(self) -> ReconError:
        """The error for a scheduler that does not answer any more."""
        return ReconError(
            f"the Dask scheduler at {self.address} does not answer any more. What is finished is kept: start it and "
            "its workers again and run the same command again, or leave --cluster out to go on in one process"
        )


class _Mission:
    """One ``Cluster.map``."""

    def __init__(
        self,
        cluster: Cluster,
        task: Callable[[Any], Any],
        items: Sequence[Any],
        on_done: Callable[[], object],
        lost: Callable[[Any, str], Any],
        needs: Sequence[Collection[int]] | None = None,
    ) -> None:
        self.cluster, self.client = cluster, cluster.client
        self.task, self.items, self.on_done, self.lost = task, items, on_done, lost
        self.results: list[Any] = [None] * len(items)
        self.needs = needs
        self.workers: dict[str, int] = {}
        self.parts: dict[str, int] = {}
        self.waiting = Waiting(0)
        self.seconds: dict[str, list[float]] = {}
        self.flying: dict[Any, list[int]] = {}
        self.held: Counter[str] = Counter()
        self.holders: dict[Any, str] = {}
        self.suspects: list[int] = []
        self.since: dict[str, tuple[str, float]] = {}
        self.losses: Counter[int] = Counter()
        self.seen = self.asked = time.monotonic()
        self.name = f"recon-{uuid.uuid4().hex}"

    def run(self) -> list[Any]:
        """Do all items; those whose worker died are tried once more alone, as their neighbours in the queue look
        suspicious too."""
        self.workers = self.client.nthreads()
        self.parts = {worker: part for part, worker in enumerate(sorted(self.workers))}
        self.waiting = Waiting(len(self.items), self.needs, len(self.parts))
        self._fly()
        while self.suspects:
            self._fly(self.suspects.pop(0))
            self._fly()  # what needed it
        return self.results

    def _fly(self, alone: int | None = None) -> None:
        """Do all items that may begin, or a single one that may end its worker."""
        from distributed import as_completed

        done = as_completed()
        killed = self._suspect if alone is None else self._give_up
        if alone is not None:
            done.add(self._submit([alone]))
        looked = time.monotonic()
        while True:
            if alone is None:
                for worker in self.workers:
                    while self._has_room(worker) and (batch := self._batch(worker)):
                        done.add(self._submit(batch, worker))
            if not self.flying and (alone is not None or self.waiting.next() is None):
                return
            ready = done.next_batch(block=False) if done.has_ready() else []
            for future in ready:
                if future in self.flying and not self._land(future, killed):
                    done.add(self._submit(self._lost(future)))
            now = time.monotonic()
            if now - self.asked > _ASK_EVERY:
                self.asked = now
                self._ask()
            if now - looked > _LOOK_EVERY:
                looked = now
                self._look(killed)
            if not ready:
                with done.thread_condition:
                    if not done.has_ready():
                        done.thread_condition.wait(_WAIT_SECONDS)

    def _has_room(self, worker: str) -> bool:
        """Whether a worker takes more: a task at hand for each of its threads beside what it does, none in the end."""
        threads = sum(self.workers.values())
        return self.held[worker] < self.workers[worker] * (2 if self.waiting.left > 2 * threads else 1)

    def _batch(self, worker: str) -> list[int]:
        """Items of one kind that go to a worker at once, as handing over takes 10 ms: more where they are short, few at
        the end."""
        part = self.parts.setdefault(worker, len(self.parts))
        batch: list[int] = []
        kind, most = "", 1
        while len(batch) < most and (index := self.waiting.next(part)) is not None:
            if not batch:
                kind = self._kind(index)
                if kind in self.seconds:
                    usual = max(statistics.median(self.seconds[kind][-50:]), 1e-4)
                    share = self.waiting.left // (_SHARES * sum(self.workers.values()))
                    most = min(int(_BATCH_SECONDS / usual), share)
            elif self._kind(index) != kind:
                break
            self.waiting.begin(index)
            batch.append(index)
        return batch

    def _kind(self, index: int) -> str:
        """The step that an item is, where a task has several."""
        return str(getattr(self.items[index], "step", ""))

    def _submit(self, batch: list[int], worker: str | None = None) -> Any:
        where = {} if worker is None else {"workers": [worker], "allow_other_workers": True}
        future = self.client.submit(
            _timed,
            self.task,
            [self.items[index] for index in batch],
            key=f"{self.name}-{batch[0]}-{uuid.uuid4().hex[:8]}",
            pure=False,
            **where,
        )
        self.flying[future] = batch
        if worker is not None:
            self.holders[future] = worker
            self.held[worker] += 1
        return future

    def _land(self, future: Any, killed: Callable[[int, str], None]) -> bool:
        """Take results, or what an item failed with; false where the results are lost."""
        from distributed import CancelledError, KilledWorker

        if future.status in ("cancelled", "lost"):
            return False
        try:
            found = future.result(timeout=_RESULT_SECONDS)
        except CancelledError:
            return False
        except KilledWorker as error:
            for index in self._forget(future):
                killed(index, f"each worker that took it died, the last one was {error.last_worker.address}")
            return True
        for index, (result, seconds) in zip(self._forget(future), found, strict=True):
            self.results[index] = result
            self.cluster.cpu_seconds += seconds
            self.cluster.seconds.append(seconds)
            self.seconds.setdefault(self._kind(index), []).append(seconds)
            self.waiting.done(index)
            self.on_done()
        return True

    def _lost(self, future: Any) -> list[int]:
        """The items whose results were lost with the worker that held them; they are to be done again.

        Raises:
            ReconError: the scheduler is gone, or it happened too often.
        """
        batch = self._forget(future)
        self.losses.update(batch)
        if not self.cluster.alive or max(self.losses[index] for index in batch) > _LOSSES:
            raise self.cluster.gone()
        return batch

    def _forget(self, future: Any) -> list[int]:
        self.since.pop(future.key, None)
        self.held[self.holders.pop(future, "")] -= 1
        return self.flying.pop(future)

    def _suspect(self, index: int, why: str) -> None:
        self.cluster.log.info("%s: %s; it is tried once more, alone", self.items[index], why)
        self.suspects.append(index)

    def _give_up(self, index: int, why: str) -> None:
        self.results[index] = self.lost(self.items[index], why)
        self.waiting.done(index)
        self.on_done()

    def _ask(self) -> None:
        """See whether scheduler and workers are there."""
        if not self.cluster.alive:
            raise self.cluster.gone()
        self.workers = self.client.nthreads()
        if self.workers:
            self.seen = self.asked
        elif self.asked - self.seen > _NO_WORKER_SECONDS:
            raise ReconError(
                f"the Dask scheduler at {self.cluster.address} has had no worker for {_NO_WORKER_SECONDS:.0f} s. What "
                "is finished is kept: start workers and run the same command again"
            )

    def _look(self, killed: Callable[[int, str], None]) -> None:
        """See whether a task hangs."""
        now = time.monotonic()
        by_key = {future.key: future for future in self.flying}
        for worker, keys in self.client.processing().items():
            for key in map(str, keys):
                if key not in by_key:
                    continue
                holder, since = self.since.setdefault(key, (worker, now))
                if holder != worker:
                    self.since[key] = (worker, now)
                elif now - since > self._limit():
                    self._free(by_key[key], worker, killed)
                    return

    def _limit(self) -> float:
        seconds = self.cluster.seconds[-200:]
        usual = statistics.median(seconds) if seconds else 0.0
        return max(self.cluster.hangs_after, _HANGS_TIMES * usual)

    def _free(self, future: Any, worker: str, killed: Callable[[int, str], None]) -> None:
        """End the process of a worker on which a task hangs; its nanny starts another one."""
        batch = self._forget(future)
        self.client.cancel([future], force=True)
        self.client.restart_workers([worker], timeout=ANSWER_SECONDS, raise_for_error=False)
        for index in batch:
            killed(index, f"it took more than {self._limit():.0f} s on {worker}, which was restarted")

    def cancel(self) -> None:
        """Take back what is queued."""
        if self.flying:
            try:
                self.client.cancel(list(self.flying), force=True)
            except Exception:
                self.cluster.log.debug("queued tasks could not be cancelled", exc_info=True)
            self.flying.clear()


def _warm_up(stage: Any) -> None:
    stage.warm_up()


def _prepare(module: str) -> None:
    """Import a module. A task is one thread's work, so OpenCV gets one, too."""
    import importlib

    import cv2

    cv2.setNumThreads(1)
    gc.set_threshold(RARE_COLLECTIONS)
    importlib.import_module(module)


def _timed(task: Callable[[Any], Any], items: Sequence[Any]) -> list[tuple[Any, float]]:
    """The results of a task, and the processor seconds for each: of the worker where it does one task at a time, as
    libraries have threads of their own, else of the task's thread."""
    from distributed import get_worker

    clock = time.process_time if get_worker().state.nthreads == 1 else time.thread_time
    found = []
    for item in items:
        began = clock()
        result = task(item)
        found.append((result, clock() - began))
    return found


@contextmanager
def open_cluster(
    root: Path, workers: int | None, address: str | None, memory: int, log: logging.Logger
) -> Iterator[Cluster]:
    """Workers for a run: so many processes of our own, or those of a scheduler that runs already.

    Args:
        root: the workspace, which the workers must see.
        memory: bytes that our own workers may take together.

    Raises:
        ReconError: Dask is not installed, nothing answers, or the workers are of other versions or do not see the
            workspace.
    """
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ReconError(
            f"--workers and --cluster need Dask ({error}); install it: pip install 'recon-photogrammetry[cluster]'"
        ) from error
    settings = {
        "distributed.scheduler.allowed-failures": MOST_DEATHS - 1,
        "distributed.scheduler.worker-ttl": _WORKER_TTL,
        "distributed.comm.timeouts.connect": f"{ANSWER_SECONDS}s",
        "distributed.worker.daemon": False,
        "distributed.worker.profile.enabled": False,  # it looks at the stack a hundred times a second
        # What scheduler, workers and nannies look at while nothing happens took a tenth of a core.
        "distributed.admin.tick.interval": "1s",
        "distributed.admin.system-monitor.interval": "5s",
        "distributed.worker.memory.monitor-interval": "500ms",
        "distributed.scheduler.active-memory-manager.start": False,
        # As ``keep_for_arrays``, and threads share what is free. Dask's value has glibc give every array back to the
        # system: work on arrays takes two to three times as long.
        "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": KEPT_FREE,
        "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": MAPPED,
        "distributed.nanny.pre-spawn-environ.MALLOC_ARENA_MAX": 1,
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        for name in ("distributed", "distributed.client", "distributed.nanny", "distributed.scheduler"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # its news are ours to tell
        if workers is not None:
            local = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                memory_limit=memory // workers,
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
                local_directory=str(root / INCOMPLETE / "dask"),
            )
            stack.callback(_close, local)
            address = local.scheduler_address
        assert address is not None
        try:
            client = Client(address, timeout=ANSWER_SECONDS, set_as_default=False)
        except (OSError, ValueError, TimeoutError, asyncio.TimeoutError) as error:
            raise ReconError(
                f"--cluster {address}: no Dask scheduler answers there ({_first_line(error)}). Start one with 'dask "
                "scheduler' and workers with 'dask worker', or use --workers N for processes on this machine"
            ) from error
        stack.callback(_close, client)
        cluster = Cluster(client, address, workers is not None, log)
        check_workers(cluster, root)
        yield cluster


def _close(one: Any) -> None:
    try:
        one.close(timeout=5)
    except Exception:
        logging.getLogger("recon").debug("a part of Dask did not close", exc_info=True)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def check_workers(cluster: Cluster, root: Path) -> None:
    """See that there are workers, of our versions, which read and write the workspace."""
    try:
        cluster.client.wait_for_workers(1, timeout=_NO_WORKER_SECONDS)
    except (TimeoutError, asyncio.TimeoutError) as error:
        raise ReconError(
            f"the Dask scheduler at {cluster.address} has no workers; start some with 'dask worker {cluster.address} "
            "--nthreads 1'"
        ) from error
    folder = root / INCOMPLETE
    folder.mkdir(exist_ok=True)
    token = uuid.uuid4().hex
    mark = folder / f"seen-{token}"
    mark.write_text(token, encoding="ascii")
    try:
        try:
            answers = cluster.client.run(introduce_worker, str(root), token)
        except ModuleNotFoundError as error:
            raise ReconError(
                f"a worker of {cluster.address} cannot import recon ({_first_line(error)}): install the same version "
                "of recon on every machine"
            ) from error
        mine = library_versions()
        for worker, (problem, versions, _) in sorted(answers.items()):
            wrong = [f"{name} {versions.get(name, 'missing')} there, {mine[name]} here" for name in mine
                     if versions.get(name) != mine[name]]  # fmt: skip
            if wrong:
                raise ReconError(
                    f"worker {worker} has other versions, and would give other results: {'; '.join(wrong)}. Install "
                    "the same on every machine"
                )
            if not problem and not _seen(folder / f"seen-{token}-{_of_name(worker)}", versions["token"]):
                problem = "what it writes there is not seen here"
            if problem:
                raise ReconError(
                    f"worker {worker} does not share the workspace {root}: {problem}. Every worker must see this "
                    "folder under this path and may write there; put --out on a file system that all machines mount"
                )
    finally:
        for one in folder.glob(f"seen-{token}*"):
            one.unlink(missing_ok=True)
    cluster.memory, cluster.tightest = min((one[2], worker) for worker, one in answers.items())
    cluster.log.info("%d workers of %s do the tasks", len(answers), cluster.address)


def introduce_worker(root: str, token: str, dask_worker: Any = None) -> tuple[str, dict[str, str], int]:
    """Problem with a worker's sight of the workspace, empty where there is none, its versions, and the bytes that it
    has for each of the tasks that it does at once.

    Args:
        token: content of a file in the workspace; the worker leaves one beside it that says its own name.
    """
    folder = Path(root) / INCOMPLETE
    name = _of_name(dask_worker.address)
    versions = library_versions() | {"token": name}
    limit = getattr(getattr(dask_worker, "memory_manager", None), "memory_limit", None) or machine_memory()
    memory = min(int(limit), machine_memory()) // max(1, dask_worker.state.nthreads)
    problem = ""
    if not _seen(folder / f"seen-{token}", token):
        problem = "it sees another folder there" if folder.is_dir() else "it does not see the folder"
    else:
        try:
            (folder / f"seen-{token}-{name}").write_text(name, encoding="ascii")
        except OSError as error:
            problem = f"it cannot write there ({error.strerror})"
    return problem, versions, memory


def _of_name(address: str) -> str:
    return "".join(one if one.isalnum() else "-" for one in address)


def _seen(path: Path, text: str) -> bool:
    """True when a file with a text appears within the time that network file systems take."""
    until = time.monotonic() + SHARED_SECONDS
    while True:
        try:
            if path.read_text(encoding="ascii") == text:
                return True
        except OSError:
            pass
        if time.monotonic() > until:
            return False
        time.sleep(0.1)

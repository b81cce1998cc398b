"""Runs stages in order, skips what is done, records what happened."""

from __future__ import annotations

import difflib
import gc
import hashlib
import itertools
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recon.core.memory import (
    RARE_COLLECTIONS,
    give_memory_back,
    keep_for_arrays,
    machine_memory,
    peak_memory,
)
from recon.core.parallel import usable_cores
from recon.engine.forecast import seconds_to_go, time_in_words
from recon.engine.recipe import Recipe
from recon.engine.stage import Stage, StageContext
from recon.engine.workspace import (
    LOG,
    PREVIOUS,
    Workspace,
    library_versions,
    no_room,
    run_log,
    writing_failed,
)
from recon.errors import ReconError, UsageError
from recon.io.manifest import KEPT, Manifest, StageRecord, checksums, counts_in_words

RECIPE = "recipe.toml"
CACHED_PART = 4
"""Photos and maps that could be read again may take this part of the memory; the rest is for the work."""
_TELL_EVERY, _WORTH_TELLING = 60.0, 20.0
_SAMPLE_SECONDS = 0.1
_CHILDREN_EVERY = 10  # samples; to list the children reads all of /proc


class InterruptedRunError(ReconError):
    """The user stopped the run; the workspace can be resumed."""


@dataclass(frozen=True)
class StageOutcome:
    """Outcome of one stage: ``skipped`` when its result of an earlier run still holds."""

    name: str
    skipped: bool
    seconds: float
    cpu_seconds: float
    peak_memory_mb: float
    counts: Mapping[str, Any]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunSummary:
    """Summary of a run.

    Attributes:
        root: the workspace.
        recipe: the resolved recipe.
        stages: outcomes in order; timings of skipped stages are those of the run that computed them.
        seconds: wall time of this run.
    """

    root: Path
    recipe: Recipe
    stages: tuple[StageOutcome, ...] = ()
    seconds: float = 0.0

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings of all stages, each once."""
        return tuple(dict.fromkeys(text for stage in self.stages for text in stage.warnings))

    def counts(self, stage: str) -> Mapping[str, Any]:
        """Counts of one stage, empty if it did not run."""
        return next((outcome.counts for outcome in self.stages if outcome.name == stage), {})


@dataclass(frozen=True)
class RunOptions:
    """Options of a run.

    Attributes:
        inputs: what stages need from outside the workspace; the engine only passes it on.
        described: the inputs by name, for the manifest.
        source: what the workspace is made from, as the user named it; a workspace keeps to one source.
        threads: None for all cores of this process.
        workers: number of processes for the tasks of the run, on this machine.
        cluster: address of a Dask scheduler whose workers do the tasks.
        memory: bytes that the run may take; None for what the machine, or its control group, has.
        costs: what the stages of the run in a workspace are expected to cost, given the counts of the stages that are
            done; empty while that is not known. The time to go is told by it.
        needs: bytes that the largest task of a run takes in its process, caches left out; 0 while that is not known.
            Workers with less are refused before they begin.
        seed: of every random choice.
        stop_after: name of the last stage to run.
        restart_from: name of the first stage to redo, with all that follow, whatever the manifest says.
        resume: False computes everything anew.
        results: paths (or folders of them) that people look at. When they become those of an earlier state they are
            moved to the folder ``previous``.
        derived: further paths that hold what was made from a stage's results; they go when those go.
    """

    inputs: Any = None
    described: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    threads: int | None = None
    workers: int | None = None
    cluster: str | None = None
    memory: int | None = None
    costs: Callable[[Path, Recipe, Mapping[str, Mapping[str, Any]]], Mapping[str, float]] | None = None
    needs: Callable[[Path, Recipe], int] | None = None
    seed: int = 0
    stop_after: str | None = None
    restart_from: str | None = None
    resume: bool = True
    results: Collection[str] = ()
    derived: Mapping[str, Sequence[str]] = field(default_factory=dict)


def run_stages(
    stages: Sequence[Stage], recipe: Recipe, root: Path, options: RunOptions | None = None
) -> RunSummary:
    """Run stages in order in the workspace ``root`` and return what happened.

    A stage whose fingerprint is unchanged and whose state is done is skipped. Before a stage runs, the
    manifest marks it and everything that reads it as not done; it is marked done only after its files are in
    place. So a run killed at any instant computes again exactly what was not finished.

    Raises:
        UsageError: ``stop_after`` or ``restart_from`` names no stage.
        ReconError: a stage failed, the workspace is locked, not writable, or from another source.
        InterruptedRunError: Ctrl-C.
    """
    options = options or RunOptions()
    names = [stage.name for stage in stages]
    _check_order(stages)
    last = _position(options.stop_after, names, "--stop-after", len(names) - 1)
    redo_from = _position(options.restart_from, names, "--restart-from", len(names))
    if not options.resume:
        redo_from = 0
    began = time.perf_counter()
    if options.workers is not None and options.cluster is not None:
        raise UsageError("--workers and --cluster: give one of them")
    keep_for_arrays()
    with (
        _rare_collections(),
        Workspace.open(root) as workspace,
        run_log(workspace.root) as log,
        _workers(workspace.root, options, log) as cluster,
    ):
        run = _Run(workspace, recipe, options, log, cluster)
        run.read = {name for stage in stages for name in stage.reads}
        if cluster is not None:
            cluster.prepare(stages)
        try:
            outcomes = run.all(stages[: last + 1], names, redo_from)
        except OSError as error:
            raise (writing_failed(workspace.root, error) or error) from error
        return RunSummary(workspace.root, recipe, tuple(outcomes), time.perf_counter() - began)


def _workers(root: Path, options: RunOptions, log: logging.Logger) -> AbstractContextManager[Any]:
    """The workers that the options ask for; none as a rule."""
    if options.workers is None and options.cluster is None:
        return nullcontext()
    from recon.engine.cluster import open_cluster

    return open_cluster(root, options.workers, options.cluster, options.memory or machine_memory(), log)


def stage_fingerprints(
    stages: Sequence[Stage], recipe: Recipe, root: Path, options: RunOptions
) -> dict[str, str]:
    """The fingerprint that each stage would have in a run; nothing is run or written.

    A workspace whose manifest says "done" with these fingerprints holds the results of that run.
    """
    run = _Run(Workspace(Path(root).absolute(), Manifest()), recipe, options, logging.getLogger("recon"))
    for stage in stages:
        run.fingerprints[stage.name] = run.fingerprint(stage, run.context(stage.name))[0]
    return run.fingerprints


class _Run:
    """One pass over the stages of a workspace."""

    def __init__(
        self,
        workspace: Workspace,
        recipe: Recipe,
        options: RunOptions,
        log: logging.Logger,
        cluster: Any = None,
    ) -> None:
        self.workspace = workspace
        self.recipe = recipe
        self.options = options
        self.log = log
        self.cluster = cluster
        self.fingerprints: dict[str, str] = {}
        self.took: dict[str, float] = {}
        self.read: set[str] = set()  # stages that others read
        self.todo: set[str] = set()
        self.told = time.monotonic()
        self.threads = options.threads or usable_cores()

    @property
    def manifest(self) -> Manifest:
        return self.workspace.manifest

    def say(self, text: str) -> None:
        """A line for the screen and the log."""
        self.log.info(text, extra={"screen": True})

    def context(self, stage: str) -> StageContext:
        memory = self.options.memory or machine_memory()
        if self.cluster is not None:
            memory = min(memory, self.cluster.memory)
        return StageContext(
            root=self.workspace.root,
            inputs=self.options.inputs,
            threads=self.threads,
            memory=memory // CACHED_PART,
            cluster=self.cluster,
            tell=self.tell,
            seed=self.options.seed,
            quality=self.recipe.quality,
            stage=stage,
            log=self.log,
        )

    def all(self, stages: Sequence[Stage], names: Sequence[str], redo_from: int) -> list[StageOutcome]:
        outcomes: list[StageOutcome] = []
        self.todo = {stage.name for stage in stages}
        for number, stage in enumerate(stages):
            work = self.context(stage.name)
            work.reuse = number < redo_from
            fingerprint, external = self.fingerprint(stage, work)
            if number == 0:
                self.begin(names, external, redo_from)
            work.fingerprint = self.fingerprints[stage.name] = fingerprint
            label = f"[{number + 1}/{len(names)}] {stage.name}"
            record = self.manifest.stages.get(stage.name)
            if record is not None and record.state == "done" and record.fingerprint == fingerprint:
                lost = self.lost(stage.name, record)
                if not lost:
                    self.say(f"{label}: done before{counts_in_words(record.counts)}")
                    outcomes.append(_outcome(stage.name, record, skipped=True))
                    self.todo.discard(stage.name)
                    continue
                self.say(f"{label}: {lost}, computing it again")
            outcomes.append(self.one(stage, work, label))
        return outcomes

    def lost(self, stage: str, record: StageRecord) -> str:
        """Describe the results of a finished stage that are gone or are not what it wrote; empty if there are none."""
        root = self.workspace.root
        for name in record.written:
            if not root.joinpath(name).exists():
                return f"{name} is gone"
        for name in record.checksums:
            if not root.joinpath(name).is_file():
                return f"{name} is gone"
        changed = next(
            (name for one, name in self.manifest.foreign(root, record.checksums) if one == stage), ""
        )
        return changed and f"{changed} is not the file that it wrote"

    def begin(self, names: Sequence[str], source_fingerprint: str, redo_from: int) -> None:
        """Check that this workspace belongs to the source, then note the run."""
        manifest = self.manifest
        changed = bool(manifest.source_fingerprint) and manifest.source_fingerprint != source_fingerprint
        if changed and manifest.source != self.options.source and redo_from > 0:
            raise ReconError(
                f"the workspace {self.workspace.root} was made from {manifest.source}, "
                f"not from {self.options.source}. "
                f"Choose another --out, or add --restart-from {names[0]} to replace what is there"
            )
        if changed and redo_from > 0:
            self.say(
                f"{self.options.source} has changed since the last run: computing again what depends on it"
            )
        for name in names[redo_from:]:
            if name in manifest.stages:
                manifest.stages[name].state = "stale"
                self.workspace.drop_partial(name)
        manifest.source, manifest.source_fingerprint = self.options.source, source_fingerprint
        manifest.run = {
            "recipe": self.recipe.name,
            "quality": self.recipe.quality,
            "seed": self.options.seed,
            "threads": self.threads,
            "inputs": dict(self.options.described),
            "stages": list(names),
        }
        self.workspace.save()
        self.workspace.write_text(RECIPE, self.recipe.to_toml())

    def fingerprint(self, stage: Stage, work: StageContext) -> tuple[str, str]:
        """The stage's fingerprint, and the hash of what it reads from outside the workspace."""
        hook = getattr(stage, "inputs_fingerprint", None)
        external = str(hook(work)) if hook is not None else ""
        named = getattr(stage, "files_fingerprint", None)
        files = str(named(self.recipe.settings[stage.name])) if named is not None else ""
        identity: dict[str, Any] = {
            "name": stage.name,
            "version": stage.version,
            "settings": self.recipe.settings[stage.name].model_dump(mode="json"),
            "reads": {name: self.fingerprints[name] for name in stage.reads},
            "external": external,
            "seed": self.options.seed,
            "quality": self.recipe.quality,
        }
        if files:
            identity["files"] = files
        text = json.dumps(identity, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest(), external

    def one(self, stage: Stage, work: StageContext, label: str) -> StageOutcome:
        """Run one stage and record it."""
        manifest = self.manifest
        before = manifest.stages.get(stage.name)
        resumed = before is not None and before.fingerprint == work.fingerprint
        readers = manifest.invalidate_readers([stage.name])
        for reader in readers:
            self.workspace.drop_partial(reader)  # what it began was made from results that now go
        self.set_aside([stage.name, *readers])
        record = StageRecord(work.fingerprint, "running", list(stage.reads), versions=library_versions())
        manifest.stages[stage.name] = record
        self.workspace.save()
        self.workspace.drop_partial(stage.name, except_fingerprint=work.fingerprint)
        self.log.info("%s: begins", label)
        try:
            if self.cluster is not None and self.options.needs is not None:
                needed = self.options.needs(self.workspace.root, self.recipe)
                self.cluster.check_memory(needed * CACHED_PART // (CACHED_PART - 1))
            with _measured(record, self.cluster):
                counts = dict(stage.run(self.recipe.settings[stage.name], work) or {})
        except KeyboardInterrupt:
            self._fail(record, "interrupted", f"{label}: stopped")
            raise InterruptedRunError(
                f"stopped during '{stage.name}'; run the same command again to resume ({self.workspace.root})"
            ) from None
        except ReconError as error:
            self._fail(record, "failed", f"{label}: {error}")
            raise
        except OSError as error:
            self.log.info("%s failed", label, exc_info=True)
            self._fail(record, "failed", f"{label}: {error}")
            raise (writing_failed(self.workspace.root, error) or self._unexpected(stage, error)) from error
        except BaseException as error:
            self.log.info("%s failed", label, exc_info=True)
            self._fail(record, "failed", f"{label}: failed")
            # Libraries that write files themselves (SQLite, COLMAP) have their own words for a full disk.
            full = no_room(self.workspace.root) if isinstance(error, Exception) else None
            if full is not None:
                raise full from error
            if isinstance(error, Exception) and not isinstance(error, (ImportError, MemoryError)):
                raise self._unexpected(stage, error) from error
            raise
        record.counts, record.warnings, record.written = (
            # What this very stage had begun is no news: a resumed run ends as an undisturbed one.
            {key: count for key, count in counts.items() if not (resumed and key == KEPT)},
            list(work.warnings),
            list(work.written),
        )
        if stage.name in self.read:
            record.checksums = checksums(self.workspace.root, record.written, self.options.results)
        record.state = "done"
        self.workspace.save()
        give_memory_back()
        gc.freeze()  # what is left are modules and kernels; to look among them takes a tenth of a second each time
        cost = f"{record.seconds:.1f} s, {record.peak_memory_mb:.0f} MB"
        self.took[stage.name] = record.seconds
        self.say(f"{label}:{counts_in_words(record.counts, first=' ')} ({cost}){self.to_go()}")
        return _outcome(stage.name, record, skipped=False)

    def to_go(self, running: tuple[str, float, float] | None = None) -> str:
        """Describe the time that the stages to come will take; empty where that is not known, or is no time at all."""
        if self.options.costs is None:
            return ""
        counts = {name: one.counts for name, one in self.manifest.stages.items() if one.state == "done"}
        costs = self.options.costs(self.workspace.root, self.recipe, counts)
        costs = {stage: cost for stage, cost in costs.items() if stage in self.todo}
        seconds = seconds_to_go(costs, self.took, running)
        return (
            f"; about {time_in_words(seconds)} to go"
            if seconds is not None and seconds >= _WORTH_TELLING
            else ""
        )

    def tell(self, stage: str, share: float, seconds: float) -> None:
        """Say within a long stage how far it is, where no progress bar says it."""
        now = time.monotonic()
        if now - self.told > _TELL_EVERY and not sys.stderr.isatty():
            self.told = now
            self.say(f"    {stage}: {share:.0%}{self.to_go((stage, share, seconds))}")

    def _unexpected(self, stage: Stage, error: Exception) -> ReconError:
        """The user's version of an error that the stage did not foresee; its traceback is in the log."""
        again = f"--restart-from {stage.reads[0]}" if stage.reads else "other photos"
        return ReconError(
            f"{self.workspace.root}: stage '{stage.name}' cannot go on from what is there "
            f"({type(error).__name__}: {error}). If files of this folder were changed, run again with {again}; if not, "
            f"it is a fault of recon: please report it with {self.workspace.root / LOG}, which says where it happened"
        )

    def set_aside(self, stages: Sequence[str]) -> None:
        """Move the results of an earlier state away: those of stages that are about to run, or have to."""
        names: list[str] = []
        for stage in stages:
            record = self.manifest.stages.get(stage)
            if record is not None and record.written:
                names += [*record.written, *self.options.derived.get(stage, ())]
        if not names:
            return
        for stage in stages:
            if stage in self.manifest.stages:
                self.manifest.stages[stage].state = "stale"
        self.workspace.save()  # that they are not current any more is known before the first of them moves
        moved = self.workspace.set_aside(dict.fromkeys(names), self.options.results)
        if moved:
            self.say(f"earlier results are in {self.workspace.root / PREVIOUS}: {', '.join(moved)}")

    def _fail(self, record: StageRecord, state: str, line: str) -> None:
        """Note a failure; that the note itself cannot be written must not hide the reason."""
        record.state = state
        self.log.info(line)
        try:
            self.workspace.save()
        except (OSError, ReconError):
            self.log.info("the manifest could not be written")


def _check_order(stages: Sequence[Stage]) -> None:
    """A stage may only read what ran before it."""
    before: set[str] = set()
    for stage in stages:
        unknown = set(stage.reads) - before
        if unknown or stage.name in before:
            raise ValueError(
                f"stage {stage.name!r}: reads {sorted(unknown)} that do not come before it, or is twice"
            )
        before.add(stage.name)


def _position(name: str | None, names: Sequence[str], option: str, default: int) -> int:
    if name is None:
        return default
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise UsageError(f"{option} {name}: there is no such stage{hint}; stages are: {', '.join(names)}")
    return names.index(name)


def _outcome(name: str, record: StageRecord, skipped: bool) -> StageOutcome:
    return StageOutcome(
        name,
        skipped,
        record.seconds,
        record.cpu_seconds,
        record.peak_memory_mb,
        dict(record.counts),
        tuple(record.warnings),
    )


@contextmanager
def _rare_collections() -> Iterator[None]:
    """``RARE_COLLECTIONS`` for the time of the block, and none among what was there before."""
    before = gc.get_threshold()
    gc.set_threshold(RARE_COLLECTIONS, *before[1:])
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


@contextmanager
def _measured(record: StageRecord, cluster: Any = None) -> Iterator[None]:
    """Fill in wall seconds, processor seconds and peak memory (of this process and its children)."""
    import psutil

    process = psutil.Process()
    stop = threading.Event()
    peak, peak_before = [process.memory_info().rss], peak_memory()

    def sample() -> None:
        below = 0
        for count in itertools.count():
            if stop.wait(_SAMPLE_SECONDS):
                return
            if count % _CHILDREN_EVERY == 0:
                below = _children_memory(process)
            peak[0] = max(peak[0], process.memory_info().rss + below)

    sampler = threading.Thread(target=sample, name="recon-memory", daemon=True)
    sampler.start()
    elsewhere = cluster.cpu_seconds if cluster is not None else 0.0
    began, cpu_began = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        record.seconds = round(time.perf_counter() - began, 3)
        if cluster is not None:
            elsewhere = cluster.cpu_seconds - elsewhere
        record.cpu_seconds = round(time.process_time() - cpu_began + elsewhere, 3)
        stop.set()
        sampler.join()
        # The sampler waits while a library keeps the interpreter to itself; the system's own peak misses nothing.
        highest = peak_memory()
        peak[0] = max(peak[0], process.memory_info().rss, highest if highest > peak_before else 0)
        record.peak_memory_mb = round(peak[0] / 2**20, 1)


def _children_memory(process: Any) -> int:
    """Resident bytes of a process's children."""
    import psutil

    total = 0
    for one in process.children(recursive=True):
        try:
            total += one.memory_info().rss
        except psutil.Error:
            continue
    return total

"""One reconstruction of a comparison: taken over where it exists, in a process of its own where it does not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import recon
from recon.compare.sharing import adopt, drop_obsolete, is_finished
from recon.errors import ReconError
from recon.run.inputs import RunInputs


@dataclass(frozen=True)
class Job:
    """One run: what ``recon.api.reconstruct`` is called with, and the folder where runs share dense fields."""

    photos: str
    out: str
    recipe: str
    overrides: tuple[str, ...] = ()
    quality: str = "normal"
    intrinsics: str | None = None
    masks: str | None = None
    stop_after: str | None = None
    threads: int | None = None
    seed: int = 0
    field_cache: str | None = None

    @property
    def root(self) -> Path:
        """The workspace."""
        return Path(self.out)

    def inputs(self) -> RunInputs:
        """Inputs of the stages from outside the workspace."""
        return RunInputs(
            (self.photos,), intrinsics=self.intrinsics, masks=self.masks, field_cache=self.field_cache
        )

    def arguments(self) -> dict[str, Any]:
        """The job as JSON values."""
        return asdict(self)

    def run(self) -> None:
        """Do it.

        Raises:
            ReconError: it failed; what was done stays.
        """
        from recon.api import stages
        from recon.engine.recipe import load_recipe
        from recon.engine.runner import RunOptions, run_stages

        every = stages()
        options = RunOptions(
            inputs=self.inputs(),
            described=self.inputs().described(),
            source=str(Path(self.photos).resolve()),
            threads=self.threads,
            seed=self.seed,
            stop_after=self.stop_after,
        )
        run_stages(every, load_recipe(self.recipe, every, self.quality, self.overrides), self.root, options)


@dataclass(frozen=True)
class Outcome:
    """Outcome of a job.

    Attributes:
        job: what was to be done.
        error: why it failed, empty where it did not.
        before: it was finished already.
        adopted: stages whose results were taken over.
    """

    job: Job
    error: str = ""
    before: bool = False
    adopted: tuple[str, ...] = field(default=())


def fingerprints(job: Job) -> dict[str, str]:
    """The fingerprints that the stages of a job will have, up to its last one.

    Raises:
        UsageError: a wrong setting, recipe or path. ReconError: the photos cannot be read.
    """
    from recon.api import stages
    from recon.engine.recipe import load_recipe
    from recon.engine.runner import RunOptions, stage_fingerprints

    every = stages()
    names = [stage.name for stage in every]
    if job.stop_after is not None and job.stop_after in names:
        every = every[: names.index(job.stop_after) + 1]
    recipe = load_recipe(job.recipe, stages(), job.quality, job.overrides)
    options = RunOptions(inputs=job.inputs(), threads=job.threads, seed=job.seed)
    return stage_fingerprints(every, recipe, job.root, options)


def run_job(job: Job, workspaces: Iterable[Path] = (), *, isolate: bool = True) -> Outcome:
    """Do a job, or as much of it as other workspaces have not done yet. A failure is told, not raised.

    Raises:
        KeyboardInterrupt: the user stops.
    """
    from recon.api import stages

    try:
        marks = fingerprints(job)
        if is_finished(job.root, marks):
            return Outcome(job, before=True)
        drop_obsolete(job.root, marks)
        taken = adopt(job.root, stages(), marks, workspaces, str(Path(job.photos).resolve()))
    except ReconError as problem:
        return Outcome(job, str(problem))
    error = _in_own_process(job) if isolate else run_here(job)
    return Outcome(job, error, adopted=tuple(taken))


def run_here(job: Job) -> str:
    from recon.engine.runner import InterruptedRunError

    try:
        job.run()
    except InterruptedRunError:
        raise KeyboardInterrupt from None
    except ReconError as error:
        return str(error)
    # A contender is foreign code: whatever it raises belongs into its row and must not end the others' runs.
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _in_own_process(job: Job) -> str:
    command = [sys.executable, "-m", "recon.compare.worker"]
    # From a checkout that is not installed, the new process must find this very package from any folder.
    places = [str(Path(recon.__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in places if place)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            answer, _ = process.communicate(json.dumps(job.arguments()))
        except BaseException:
            process.terminate()  # the worker stops as after Ctrl-C: what it finished stays
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    if process.returncode < 0:
        return _ended_by(-process.returncode)
    try:
        said = json.loads(answer.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return (
            f"its process ended with code {process.returncode} and said nothing; see {job.root / 'run.log'}"
        )
    if said.get("interrupted"):
        raise KeyboardInterrupt
    return str(said.get("error", ""))


def _ended_by(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = str(number)
    hint = "; there may not have been enough memory" if name == "SIGKILL" else ""
    return f"its process was ended by {name}{hint}"

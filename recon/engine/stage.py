"""The interface of a stage, and the context that the engine gives it."""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel

from recon.core import parallel
from recon.io.files import AtomicFolder

Item = TypeVar("Item")
Result = TypeVar("Result")
Options = TypeVar("Options")


@runtime_checkable
class Stage(Protocol):
    """One step of a run: reads what earlier stages left in the workspace, leaves its own.

    Attributes:
        name: key of the stage in the recipe, the manifest and on the command line.
        version: raised by the author when the meaning of the stage's output changes, so that old results are
            redone.
        reads: names of the stages whose results this one uses.
        Settings: the stage's section of the recipe; unknown keys are refused whatever its config says.

    A stage may also have ``inputs_fingerprint(work) -> str``: a hash of everything it reads from outside the
    workspace (file contents, not dates). When it changes, the stage runs again. ``files_fingerprint(settings)
    -> str`` does the same for files that the stage's settings name; an empty text says that they name none.
    ``warm_up() -> None``, a static method, has a worker load what the stage's tasks will need, before there is one.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    reads: ClassVar[tuple[str, ...]]
    Settings: ClassVar[type[BaseModel]]

    def run(self, settings: Any, work: StageContext) -> dict[str, Any]:
        """Do the work; return counts for the manifest (JSON values, shown in the stage's line)."""
        ...


_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}, {remaining} to go]"


def _terminal_width() -> int | None:
    """80 where the terminal claims to have no columns, as some containers' do; None to ask it each time."""
    try:
        return None if os.get_terminal_size(sys.stderr.fileno()).columns > 0 else 80
    except (OSError, ValueError):
        return 80


class Progress:
    """Counts work done; safe to call from several threads. Draws a bar on a terminal, nothing elsewhere."""

    def __init__(self, total: int | None, description: str, unit: str = "it") -> None:
        self._lock = threading.Lock()
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            width = _terminal_width()
            self._bar = tqdm(
                total=total,
                desc=description,
                unit=unit,
                file=sys.stderr,
                leave=False,
                ncols=width,
                dynamic_ncols=width is None,
                bar_format=_BAR if total is not None else None,
            )

    def update(self, n: int = 1) -> None:
        """Report that ``n`` more are done."""
        if self._bar is not None:
            with self._lock:
                self._bar.update(n)

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.close()


@dataclass
class StageContext(AtomicFolder):
    """The workspace as one stage sees it.

    Attributes:
        inputs: what the user gave from outside the workspace; the engine only passes it on.
        threads: how many threads the stage may keep busy; results must not depend on it.
        seed: seed of every random choice; mix it with something of the item's own where items run in
            parallel.
        quality: name of the quality level of the run.
        reuse: False where the user asked that nothing of an earlier run is taken over.
        memory: bytes that a stage may keep of what it can read again, in each process.
        cluster: workers for ``spread``; None to do all in this process.
        tell: is told the stage, the share of it that is done, and its seconds so far.
        warnings: what ``warn`` collected.
    """

    inputs: Any = None
    threads: int = 1
    seed: int = 0
    quality: str = "normal"
    reuse: bool = True
    memory: int = 1 << 30
    cluster: Any = None
    tell: Callable[[str, float, float], None] | None = None
    warnings: list[str] = field(default_factory=list)
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("recon"))

    def warn(self, message: str) -> None:
        """Tell the user something that is not an error: it goes to the screen, the log and the manifest."""
        if message not in self.warnings:
            self.warnings.append(message)
            self.log.warning(message)

    # Spreading work

    def map(
        self,
        fn: Callable[[Item], Result],
        items: Iterable[Item],
        description: str,
        threads: int | None = None,
    ) -> list[Result]:
        """``fn`` over ``items`` on the thread pool, results in order, with a progress bar.

        Raises:
            Whatever ``fn`` raises first; items that have not begun are dropped.
        """
        things = list(items)
        with self.progress(len(things), description) as progress:
            return parallel.map_ordered(fn, things, threads or self.threads, progress.update)

    def spread(
        self,
        task: Callable[[Item], Result],
        items: Iterable[Item],
        description: str,
        lost: Callable[[Item], Result],
        needs: Sequence[Collection[int]] | None = None,
    ) -> list[Result]:
        """As ``map``, for a task that can be pickled and works on the workspace: on the workers where there are some.

        Args:
            lost: what stands for the result of an item that ended its worker each time; the user is told.
            needs: of each item the numbers of those that must be done before it; see ``parallel.Waiting``.
        """
        things = list(items)

        def left_out(item: Item, why: str) -> Result:
            self.warn(f"{description}: {getattr(item, 'name', item)} is left out: {why}")
            return lost(item)

        with self.progress(len(things), description) as progress:
            done = self._teller(progress, len(things))
            if self.cluster is None:
                return parallel.map_ordered(task, things, self.threads, done, needs)
            found: list[Result] = self.cluster.map(task, things, done, left_out, needs)
        return found

    def _teller(self, progress: Progress, total: int) -> Callable[[], None]:
        """Callback that counts an item as done, and says how far the stage is."""
        done, began = itertools.count(1), time.perf_counter()

        def tell() -> None:
            progress.update()
            share = next(done) / total
            if self.tell is not None:
                self.tell(self.stage, share, time.perf_counter() - began)

        return tell

    @contextmanager
    def progress(self, total: int | None, description: str, unit: str = "it") -> Iterator[Progress]:
        """A progress bar with a time to go: ``with work.progress(n, "what") as bar: bar.update(1)``."""
        bar = Progress(total, description, unit)
        try:
            yield bar
        finally:
            bar.close()


def options_of(kind: Callable[..., Options], settings: BaseModel, **more: Any) -> Options:
    """The options of an algorithm from the settings of a stage, where both have a field of the same name.

    Args:
        kind: a dataclass whose fields say their default once; the stage's settings take it from there.
        more: fields that the settings do not have.
    """
    names = {field.name for field in fields(kind)} - more.keys()  # type: ignore[arg-type]
    return kind(**{name: getattr(settings, name) for name in names if hasattr(settings, name)}, **more)

"""What a stage is, and what the engine gives it to work with."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
from pydantic import BaseModel

from recon.core import parallel
from recon.engine.files import INCOMPLETE, atomic_path, sync_tree

_SQLITE_SIDECARS = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database while it is open, and leaves there when it is killed."""

Item = TypeVar("Item")
Result = TypeVar("Result")


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

    def set_total(self, total: int) -> None:
        """Correct the total once it is known better."""
        if self._bar is not None:
            with self._lock:
                self._bar.total = total
                self._bar.refresh()

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.close()


@dataclass
class StageContext:
    """The workspace as one stage sees it.

    Attributes:
        root: the workspace folder.
        inputs: what the user gave from outside (paths and options by name); the engine only passes them on.
        threads: how many threads the stage may keep busy; results must not depend on it.
        seed: seed of every random choice; mix it with something of the item's own where items run in
            parallel.
        quality: name of the quality level of the run.
        stage: name of the stage, empty outside of a run.
        fingerprint: of the stage as it runs now; names the folder that survives a kill.
        warnings: what ``warn`` collected.
        written: paths below root that the stage put in place.
    """

    root: Path
    inputs: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1
    seed: int = 0
    quality: str = "normal"
    stage: str = ""
    fingerprint: str = ""
    warnings: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("recon"))

    def path(self, *parts: str) -> Path:
        """A path in the workspace (not created)."""
        return self.root.joinpath(*parts)

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

    def imap(
        self,
        fn: Callable[[Item], Result],
        items: Iterable[Item],
        description: str,
        threads: int | None = None,
    ) -> Iterator[Result]:
        """As ``map``, but yields each result in order as it comes, so that few are in memory at a time."""
        things = list(items)
        with self.progress(len(things), description) as progress:
            for result in parallel.imap_ordered(fn, things, threads or self.threads):
                yield result
                progress.update()

    @contextmanager
    def progress(self, total: int | None, description: str, unit: str = "it") -> Iterator[Progress]:
        """A progress bar with a time to go: ``with work.progress(n, "what") as bar: bar.update(1)``."""
        bar = Progress(total, description, unit)
        try:
            yield bar
        finally:
            bar.close()

    # Writing: everything appears in its place complete, or not at all

    @contextmanager
    def writing(self, *parts: str) -> Iterator[Path]:
        """A path to write a file to; it is flushed and renamed into its place when the block ends well.

        The temporary path keeps the suffix, so that libraries that choose a format by it work. Of an SQLite
        database what a killed process left beside it goes too: SQLite would lay it over the new content.
        """
        target = self.path(*parts)
        with atomic_path(target, self.root / INCOMPLETE) as temporary:
            yield temporary
            for sidecar in _SQLITE_SIDECARS:
                target.with_name(target.name + sidecar).unlink(missing_ok=True)
        self._note(target)

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Write a file atomically; returns its path."""
        with self.writing(name) as temporary:
            temporary.write_bytes(data)
        return self.path(name)

    def write_text(self, name: str, text: str) -> Path:
        """Write a UTF-8 text file atomically; returns its path."""
        return self.write_bytes(name, text.encode("utf-8"))

    def write_json(self, name: str, value: Any) -> Path:
        """Write a JSON file atomically; returns its path."""
        return self.write_text(name, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    def write_npz(self, name: str, /, compressed: bool = True, **arrays: np.ndarray) -> Path:
        """Write arrays into one .npz file atomically; returns its path."""
        with self.writing(name) as temporary, temporary.open("wb") as stream:
            if compressed:
                np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
            else:
                np.savez(stream, **arrays)  # type: ignore[arg-type]
        return self.path(name)

    @contextmanager
    def fresh_directory(self, name: str) -> Iterator[Path]:
        """An empty directory to fill; when the block ends well, it takes the place of ``name``.

        What was there before is removed only then. If the block fails, the old directory stays and the new
        one goes.
        """
        with self._directory(name, f"{name.replace('/', '_')}.new", keep=False) as directory:
            yield directory

    @contextmanager
    def resumable_directory(self, name: str) -> Iterator[Path]:
        """As ``fresh_directory``, but what is in it survives a kill while the stage's fingerprint stays.

        The stage looks what is there already and adds the rest. Each file must be written by ``write_into``
        (or be renamed into place in another way), so that a file that is there is complete.
        """
        built = f"{name.replace('/', '_')}.{self.stage}.{self.fingerprint[:16] or 'unnamed'}.partial"
        with self._directory(name, built, keep=True) as directory:
            yield directory

    @contextmanager
    def _directory(self, name: str, built: str, keep: bool) -> Iterator[Path]:
        target, building = self.path(name), self.root / INCOMPLETE / built
        if building.exists() and not keep:
            shutil.rmtree(building)
        building.mkdir(parents=True, exist_ok=True)
        try:
            yield building
        except BaseException:
            if not keep:
                shutil.rmtree(building, ignore_errors=True)
            raise
        for leftover in building.glob(".writing-*"):
            leftover.unlink()
        sync_tree(building, check=not keep)
        target.parent.mkdir(parents=True, exist_ok=True)
        old = self.root / INCOMPLETE / f"{built}.old"
        if old.exists():
            shutil.rmtree(old)
        if target.exists():
            os.replace(target, old)
        os.replace(building, target)
        shutil.rmtree(old, ignore_errors=True)
        self._note(target)

    @contextmanager
    def write_into(self, directory: Path, name: str) -> Iterator[Path]:
        """A path to write to that is then renamed to ``directory/name``, in a directory being built."""
        with atomic_path(directory / name, directory, prefix=".writing-", durable=False) as temporary:
            yield temporary

    def remove(self, *parts: str) -> None:
        """Remove a file or directory of the workspace if it is there."""
        target = self.path(*parts)
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)

    def _note(self, target: Path) -> None:
        name = target.relative_to(self.root).as_posix()
        if name not in self.written:
            self.written.append(name)

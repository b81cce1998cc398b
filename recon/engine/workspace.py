"""The folder that a run leaves behind: its lock, its manifest, its log."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import IO

from recon.errors import ReconError
from recon.io.files import INCOMPLETE, atomic_path
from recon.io.manifest import MANIFEST, Manifest, read_manifest

LOG = "run.log"
LOCK = ".lock"
PREVIOUS = "previous"
"""Folder of a workspace with results of an earlier state."""
LIBRARIES = ("numpy", "scipy", "numba", "opencv-python", "pycolmap", "open3d", "zarr", "networkx", "torch")
"""Distributions whose versions a manifest records."""

_PROBE = 1 << 20
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ALLOWED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY}


def library_versions() -> dict[str, str]:
    """Versions of recon, Python and the libraries that shape a result."""
    from recon import __version__

    versions = {"recon": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def writing_failed(root: Path, error: OSError) -> ReconError | None:
    """The user's version of an OSError that says that a folder cannot be written, None for any other."""
    named = error.filename2 or error.filename
    where = f"{named}" if isinstance(named, str) and named else f"{root}"
    if error.errno in _NO_ROOM:
        return ReconError(
            f"no room to write {where} (workspace {root}): {error.strerror}. What is finished is kept: "
            "free some space and run the same command again, or choose another --out"
        )
    inside = isinstance(named, str) and Path(named).is_relative_to(root)
    if error.errno in _NOT_ALLOWED and (inside or not named):
        return ReconError(
            f"cannot write {where} (workspace {root}): {error.strerror}. What is finished is kept: "
            "make the folder writable and run the same command again, or choose another --out"
        )
    return None


def no_room(root: Path) -> ReconError | None:
    """The error for a folder in which not even ``_PROBE`` bytes can be written, None where there is room."""
    try:
        with tempfile.TemporaryFile(dir=root) as probe:
            probe.write(bytes(_PROBE))
            probe.flush()
    except OSError as error:
        error.filename = None  # the probe's name means nothing to the user
        return writing_failed(root, error)
    return None


class Workspace:
    """An open workspace, locked against other runs. Use ``Workspace.open``."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root = root
        self.manifest = manifest

    @classmethod
    @contextmanager
    def open(cls, root: Path) -> Iterator[Workspace]:
        """Create or reopen a workspace and hold its lock until the block ends.

        Raises:
            ReconError: another run holds it, it cannot be written, or the folder holds something else.
        """
        root = Path(root).absolute()
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ReconError(
                f"cannot create the workspace folder {root}: {error.strerror}. Choose another --out"
            ) from error
        _refuse_foreign_folder(root)
        with _lock(root):
            manifest = read_manifest(root) or Manifest()
            workspace = cls(root, manifest)
            workspace.clean()
            yield workspace

    def save(self) -> None:
        """Write the manifest (atomically: the old one stays if that fails).

        Raises:
            ReconError: the folder cannot be written.
        """
        self.write_text(MANIFEST, self.manifest.to_json())

    def write_text(self, name: str, text: str) -> None:
        """Write a small file of the workspace atomically."""
        try:
            with atomic_path(self.root / name, self.root / INCOMPLETE) as temporary:
                temporary.write_bytes(text.encode("utf-8"))
        except OSError as error:
            raise (writing_failed(self.root, error) or error) from error

    def clean(self, keep: Sequence[str] = (".partial",)) -> None:
        """Remove what a killed run left half-built; folders that can be resumed stay."""
        folder = self.root / INCOMPLETE
        if not folder.is_dir():
            return
        for entry in folder.iterdir():
            is_folder = entry.is_dir() and not entry.is_symlink()
            if entry.suffix in keep and is_folder:
                continue
            if is_folder:
                shutil.rmtree(entry, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    entry.unlink()

    def set_aside(self, names: Iterable[str], results: Collection[str]) -> list[str]:
        """Move results of an earlier state to ``PREVIOUS``, so that nobody takes them for current ones.

        Args:
            names: paths below the workspace.
            results: those that people look at, or folders that hold such. Others stay: the stage that wrote them
                replaces them when it has new ones.

        Returns:
            What was moved; of each name the last one is kept there.
        """
        moved = []
        for name in names:
            path = self.root / name
            among = {name, *map(str, PurePosixPath(name).parents)}
            if path.exists() and not among.isdisjoint(results):
                target = self.root / PREVIOUS / name
                target.parent.mkdir(parents=True, exist_ok=True)
                if target.is_dir():
                    shutil.rmtree(target)
                os.replace(path, target)
                moved.append(name)
        return moved

    def drop_partial(self, stage: str, except_fingerprint: str = "") -> None:
        """Remove what an earlier, different run of a stage left to be resumed."""
        kept = f".{stage}.{except_fingerprint[:16]}.partial" if except_fingerprint else ""
        for entry in (self.root / INCOMPLETE).glob(f"*.{stage}.*.partial"):
            if not (kept and entry.name.endswith(kept)):
                shutil.rmtree(entry, ignore_errors=True)


def _refuse_foreign_folder(root: Path) -> None:
    """Stages replace whole folders: never let them do that in a folder that is not a workspace."""
    if (root / MANIFEST).exists() or (root / LOCK).exists():
        return
    foreign = [
        e.name for e in root.iterdir() if not e.name.startswith(".") and e.suffix not in {".log", ".txt"}
    ]
    if foreign:
        shown = ", ".join(sorted(foreign)[:3])
        raise ReconError(
            f"{root} is not empty and is not a workspace of recon (it holds {shown}); "
            "choose a new or an empty folder for --out"
        )


@contextmanager
def _lock(root: Path) -> Iterator[None]:
    """Hold the workspace's lock. The system releases it when the process ends, however it ends."""
    path = root / LOCK
    try:
        stream = path.open("a+b")
    except OSError as error:
        raise ReconError(
            f"cannot write into the workspace folder {root}: {error.strerror}. "
            "Make it writable or choose another --out"
        ) from error
    with stream:
        if not _try_lock(stream):
            stream.seek(0)
            holder = stream.read().decode("utf-8", "replace").strip() or "unknown"
            raise ReconError(
                f"another run works on {root} (process {holder}); wait until it ends or choose another --out"
            )
        try:
            stream.seek(0)
            stream.truncate()
            stream.write(f"{os.getpid()} on {socket.gethostname()}".encode())
            stream.flush()
        except OSError as error:
            raise (writing_failed(root, error) or error) from error
        yield


def _try_lock(stream: IO[bytes]) -> bool:
    """Take an exclusive lock without waiting; False if another process has it."""
    if sys.platform == "win32":  # pragma: no cover
        import msvcrt

        try:
            stream.seek(1 << 20)  # a byte beyond the text, so that the holder's name stays readable
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            return False
        if error.errno in {errno.ENOLCK, errno.ENOTSUP}:  # some network file systems have no locks
            return True
        raise
    return True


class _QuietFileHandler(logging.FileHandler):
    """A log that gives up silently when the disk is full: the error that matters is raised by the stage."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, ARG002
        return


@contextmanager
def run_log(root: Path) -> Iterator[logging.Logger]:
    """The logger of a run: all goes to OUT/run.log, warnings and the engine's lines also to the screen."""
    logger = logging.getLogger("recon")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        to_file: logging.Handler = _QuietFileHandler(root / LOG, encoding="utf-8")
    except OSError as error:
        raise (writing_failed(root, error) or error) from error
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_screen = _ScreenHandler()
    logger.addHandler(to_file)
    logger.addHandler(to_screen)
    try:
        with _libraries_log_to(root / LOG):
            yield logger
    finally:
        logger.removeHandler(to_file)
        logger.removeHandler(to_screen)
        with contextlib.suppress(OSError):
            to_file.close()


@contextmanager
def _libraries_log_to(path: Path) -> Iterator[None]:
    """Within the block, what libraries in C++ print to the standard error is appended to a file.

    They write to the file descriptor. Python's own ``sys.stderr`` goes on to where it went before.
    """
    try:
        shown = sys.stderr.fileno() == 2
    except (AttributeError, OSError, ValueError):  # replaced by something that is no file
        shown = False
    try:
        target, kept = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666), os.dup(2)
    except OSError:
        yield
        return
    before = sys.stderr
    if shown:
        before.flush()
        sys.stderr = os.fdopen(os.dup(kept), "w", buffering=1, encoding=before.encoding, errors=before.errors)
    os.dup2(target, 2)
    os.close(target)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        if shown:
            sys.stderr.flush()  # not closed: a thread that still runs may print
            sys.stderr = before


class _ScreenHandler(logging.Handler):
    """Writes to the standard error of the moment, above a progress bar if there is one.

    Shown: warnings, and records with ``extra={"screen": True}``.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING and not getattr(record, "screen", False):
            return
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        with contextlib.suppress(OSError, ValueError):
            if sys.stderr.isatty():
                from tqdm import tqdm

                tqdm.write(text, file=sys.stderr)
            else:
                print(text, file=sys.stderr, flush=True)

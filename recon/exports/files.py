"""Files of an export and of what is imported."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from recon.errors import ReconError, UsageError
from recon.exports.scene import Scene
from recon.io.files import parse_json

MARK = "export.json"
"""Written into every export; only a folder that has it is ever replaced."""

Pairs = dict[tuple[int, int], np.ndarray]
"""Matches by rows of views, ascending: (k, 2) rows of keypoints."""


@dataclass(frozen=True)
class Imported:
    """Result of a reader: the scene, matches by rows of views, and the likely place of the photos."""

    scene: Scene
    pairs: Pairs = field(default_factory=dict)
    photos: tuple[Path, ...] = ()


@contextmanager
def fresh_export(target: Path) -> Iterator[Path]:
    """Make a new folder that replaces the target when the block ends well; only an earlier export is replaced."""
    if target.exists() and not (target.is_dir() and ((target / MARK).is_file() or not any(target.iterdir()))):
        raise UsageError(f"{target}: holds something that is not an export; choose another --out")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise ReconError(f"{target}: cannot be written ({error.strerror}); choose another --out") from error
    try:
        folder.chmod(0o755)
        yield folder
        if target.exists():
            shutil.rmtree(target)
        folder.replace(target)
    except OSError as error:
        raise ReconError(f"{target}: cannot be written ({error}); choose another --out") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_json(path: Path, data: Any) -> None:
    """Write JSON, indented by one space."""
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file of another program.

    Raises:
        ReconError, ValueError: it cannot be read, or is no JSON.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ReconError(f"{path}: is no text file ({error.reason})") from error
    except OSError as error:
        raise ReconError(f"{path}: cannot be read ({error.strerror})") from error


def first_file(source: Path, names: tuple[str, ...], advice: str = "") -> Path:
    """The source itself if it is a file, else the first of these names that it holds.

    Raises:
        UsageError: it holds none.
    """
    if source.is_file():
        return source
    for name in names:
        if (source / name).is_file():
            return source / name
    raise UsageError(f"{source}: holds no {names[0]}" + (f"; {advice}" if advice else ""))

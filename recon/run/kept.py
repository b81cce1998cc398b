"""Results of single photos and pairs of an earlier run, found again by a key of all that they depend on.

A folder of results keeps the keys of what is in it. When photos were added or taken away, the stage makes its folder
anew, takes over what has the same key, whatever its number was, and computes the rest.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from recon.io.files import AtomicFolder, read_texts
from recon.run.shared_fields import copy_into_place

KEYS = "keys.json"
"""File in a folder of results: the key of every result, by file name."""


class KeptItems:
    """The results in a folder, by key."""

    def __init__(self, folder: Path, reuse: bool = True) -> None:
        """Look at what is there.

        Args:
            folder: of the stage's results, as an earlier run left it; it need not be there.
            reuse: False takes nothing over.
        """
        self._folder = folder
        self._names = {key: name for name, key in read_keys(folder).items()} if reuse else {}

    def __contains__(self, key: str) -> bool:
        return key in self._names and (self._folder / self._names[key]).exists()

    def take(self, key: str, target: Path) -> bool:
        """Put the result with a key in a place; False where there is none.

        Files are linked where the file system can, as results are never changed in place.
        """
        if key not in self:
            return False
        source = self._folder / self._names[key]
        if source.is_dir():
            copy_into_place(source, target, link_or_copy)
        elif not target.exists():
            beside = target.with_name(f".writing-{os.getpid()}-{target.name}")
            beside.unlink(missing_ok=True)
            link_or_copy(source, beside)
            os.replace(beside, target)
        return True


def read_keys(folder: Path) -> dict[str, str]:
    """The keys that a folder of results keeps, by file name; empty where it keeps none that can be read."""
    return read_texts(folder / KEYS)


def write_keys(files: AtomicFolder, folder: Path, keys: Mapping[str, str]) -> None:
    """Note the keys of the results in a folder that is being built."""
    with files.write_into(folder, KEYS) as path:
        path.write_text(json.dumps(dict(sorted(keys.items())), indent=0), encoding="utf-8")


def link_or_copy(source: str | Path, target: str | Path) -> str:
    """Make a file appear in a second place: the same file where the file system can, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return str(target)

"""The manifest of a workspace: which stages are done, with what they counted and cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recon.errors import ReconError
from recon.io.files import parse_json

MANIFEST = "manifest.json"
KEPT = "kept_of_before"
"""Count of the results that a stage took over from a run of other photos."""
FORMAT = 1
"""Version of the manifest's own layout."""


_PART = 1 << 20
_REWRITTEN = ".db"
"""SQLite and COLMAP change a database when they open it, without any change of what it holds."""


@dataclass
class StageRecord:
    """The manifest's record of one stage.

    Attributes:
        checksums: of files that the stage wrote, by their paths below the workspace. Not of all: the pixels, points and
            fields of single photos and pairs have none.
    """

    fingerprint: str
    state: str  # running, done, failed, interrupted, stale
    reads: list[str] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_mb: float = 0.0
    counts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)


def checksum(path: Path) -> str:
    """Hash of a file's bytes, read in parts."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while part := stream.read(_PART):
            found.update(part)
    return found.hexdigest()[:32]


def checksums(root: Path, names: Iterable[str], folders: Collection[str]) -> dict[str, str]:
    """The checksums of files of a workspace, by their names; of databases none.

    Args:
        root: the workspace.
        names: files and folders below it.
        folders: the folders whose files are meant; others are passed over.
    """
    found = {}
    for name in names:
        path = root / name
        below = sorted(path.rglob("*")) if path.is_dir() and name in folders else [path]
        files = [one for one in below if one.is_file() and one.suffix != _REWRITTEN]
        found.update({one.relative_to(root).as_posix(): checksum(one) for one in files})
    return found


@dataclass
class Manifest:
    """The state of a workspace.

    Attributes:
        source: what the workspace was made from, in the user's words (the photo folder).
        source_fingerprint: hash of its content.
        stages: one record per stage that was ever run here.
        run: facts of the latest run: recipe, quality, seed, threads.
    """

    source: str = ""
    source_fingerprint: str = ""
    stages: dict[str, StageRecord] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)

    def invalidate_readers(self, names: Sequence[str]) -> list[str]:
        """Mark every stage that reads one of these, directly or not, as stale; returns their names."""
        stale, found = set(names), True
        while found:
            found = False
            for name, record in self.stages.items():
                if name not in stale and stale.intersection(record.reads):
                    stale.add(name)
                    found = True
        changed = [name for name in self.stages if name in stale and name not in names]
        for name in changed:
            self.stages[name].state = "stale"
        return changed

    def foreign(self, root: Path, names: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Files that are not those that their stages wrote: changed since, or taken from elsewhere.

        Args:
            root: the workspace.
            names: files, or folders of them, below it.

        Yields:
            The name of the stage, which is done, and that of the file, which is there.

        Raises:
            OSError: a file cannot be read.
        """
        wanted = tuple(names)
        below = tuple(f"{name}/" for name in wanted)
        for stage, record in self.stages.items():
            for name, expected in record.checksums.items():
                if record.state == "done" and (name in wanted or name.startswith(below)):
                    path = root / name
                    if path.is_file() and checksum(path) != expected:
                        yield stage, name

    def to_json(self) -> str:
        """The text of the manifest's file."""
        data = {
            "format": FORMAT,
            "source": self.source,
            "source_fingerprint": self.source_fingerprint,
            "run": self.run,
            "stages": {name: asdict(record) for name, record in self.stages.items()},
        }
        return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def read_manifest(root: Path) -> Manifest | None:
    """The manifest of a workspace, None where there is none.

    Raises:
        ReconError: it is damaged or of a newer layout.
    """
    path = root / MANIFEST
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReconError(f"{path}: cannot read the manifest: {error.strerror}") from error
    try:
        data = parse_json(content.decode("utf-8"))
        if data["format"] != FORMAT:
            raise ReconError(
                f"{path}: made by another version of recon (layout {data['format']}, this is {FORMAT}); "
                "use that version or choose another --out"
            )
        stages = {name: StageRecord(**record) for name, record in data["stages"].items()}
        return Manifest(data["source"], data["source_fingerprint"], stages, data.get("run", {}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReconError(
            f"{path}: the manifest is damaged ({error}); delete this file to compute everything anew, "
            "or choose another --out"
        ) from error


def counts_in_words(counts: Mapping[str, Any], first: str = ", ") -> str:
    """The plain counts in one phrase: "11 photos, 3 cameras"."""
    words = []
    for key, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            continue
        number = str(value)
        if isinstance(value, float):
            number = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
        noun, _, rest = key.replace("_", " ").partition(" ")
        if number == "1" and len(noun) > 3 and noun.endswith("s"):
            noun = noun[:-1]
        words.append(f"{number} {noun} {rest}".rstrip())
    return first + ", ".join(words) if words else ""

"""Results of a comparison: what each contender reached on a scene, and who is best by each metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from recon.compare.evaluation import Evaluation, difference
from recon.compare.options import EACH, TRUE, Options
from recon.compare.plan import Contender, Scene
from recon.evaluation.bootstrap import Interval, confidence_interval, mean
from recon.evaluation.metrics import describe
from recon.evaluation.report import Samples

Log = Callable[[str], None]
"""Takes a line for the user."""


_OF_PLACED = {
    "run.depth_share",
    "cost.seconds",
    "cost.cpu_seconds",
    "cost.peak_memory_mb",
    "cost.bytes_on_disk",
}

FIELDS = "fields"
"""Folder of the dense fields that runs share."""


@dataclass
class Entry:
    """One contender's results on one scene.

    Attributes:
        contender: who.
        error: why its run failed, empty where it did not.
        failed_stage: where.
        root: its workspace (of the first seed).
        evaluation: of the first seed.
        metrics: medians over the seeds; those of the first seed where there is only one.
        spread: smallest and largest value over the seeds, where there are several.
        stage_seconds: wall time by stage.
        adopted: stages whose results came from another contender.
        warnings: of the run.
    """

    contender: Contender
    root: Path
    error: str = ""
    failed_stage: str = ""
    evaluation: Evaluation = field(default_factory=lambda: Evaluation({}))
    metrics: dict[str, float] = field(default_factory=dict)
    spread: dict[str, tuple[float, float]] = field(default_factory=dict)
    stage_seconds: dict[str, float] = field(default_factory=dict)
    adopted: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ranking:
    """Who is best by one metric, and who cannot be told from the best.

    Attributes:
        best: label.
        inside_noise: labels whose difference from the best is inside the noise.
        tested: labels for which that could be tested.
    """

    best: str
    inside_noise: tuple[str, ...]
    tested: tuple[str, ...]


@dataclass
class SceneResult:
    """A comparison on one scene."""

    scene: Scene
    options: Options
    folder: Path
    entries: list[Entry]
    poses_text: str = ""
    photo_names: tuple[str, ...] = ()
    pair_count: int = 0
    notes: list[str] = field(default_factory=list)
    pictures: dict[str, Any] = field(default_factory=dict)

    def rankings(self) -> dict[str, Ranking]:
        """The ranking of every metric that has a better way."""
        return rank(self.entries)


def rank(entries: Iterable[Entry]) -> dict[str, Ranking]:
    """The ranking of every metric that has a better way and that two entries have."""
    listed = list(entries)
    names = dict.fromkeys(name for entry in listed for name in entry.metrics)
    most = max((_registered(entry) for entry in listed), default=0.0)
    found = {}
    for name in names:
        better = describe(name).better
        have = [
            entry
            for entry in listed
            if name in entry.metrics
            and math.isfinite(entry.metrics[name])
            and not _hollow(entry, name)
            # What is of the photos that were placed says nothing of the others: who placed fewer is not best.
            and not (of_placed_photos(name) and _registered(entry) < most)
        ]
        if not better or len(have) < 2:
            continue
        sign = -1.0 if better == "higher" else 1.0
        best = min(have, key=lambda e: sign * e.metrics[name])
        inside, tested = [], []
        for entry in have:
            if entry is best:
                continue
            verdict = _inside_noise(name, best, entry)
            if verdict is not None:
                tested.append(entry.contender.label)
                if verdict:
                    inside.append(entry.contender.label)
        found[name] = Ranking(best.contender.label, tuple(inside), tuple(tested))
    return found


def _registered(entry: Entry) -> float:
    return entry.metrics.get("registered.share", entry.metrics.get("run.registered", 0.0))


def of_placed_photos(name: str) -> bool:
    """True for measures of the placed photos alone: fewer, easier ones make them better, and the run cheaper."""
    if name.startswith("poses."):
        return describe(name).better == "lower"
    return name.startswith("photo_consistency") or name in _OF_PLACED


def _hollow(entry: Entry, name: str) -> bool:
    """A failed run is cheap and leaves little behind: its cost is no merit."""
    return bool(entry.error) and describe(name).group in {"Cost", "Run"}


def _inside_noise(name: str, best: Entry, other: Entry) -> bool | None:
    """True if a difference is inside the noise; None where nothing says how large the noise is."""
    if best.metrics[name] == other.metrics[name]:
        return True
    test = difference(name, best.evaluation, other.evaluation)
    verdict = None
    if test is not None and test.count >= 2:
        # Over what both have, the best may be the worse: then nothing says that it is best.
        sign = -1.0 if describe(name).better == "higher" else 1.0
        verdict = test.inside_noise or sign * test.difference > 0
    if name in best.spread and name in other.spread:
        a, b = best.spread[name], other.spread[name]
        overlap = a[0] <= b[1] and b[0] <= a[1]
        verdict = overlap if verdict is None else verdict or overlap
    return verdict


def workspaces(out: Path) -> list[Path]:
    """All workspaces of a comparison, oldest first."""
    found = [path.parent for path in out.glob("*/manifest.json")]
    found += [path.parent for path in out.glob("*/*/manifest.json")]
    return sorted(found, key=lambda path: (path / "manifest.json").stat().st_mtime)


def poses_in_words(options: Options) -> str:
    """Whose cameras the densification uses."""
    if options.poses == TRUE:
        return "the true cameras, for all"
    if options.poses == EACH:
        return "each contender's own"
    return f"those of {options.poses}, for all"


def poses_place(scene: Scene, options: Options, label: str, folder_of: Callable[[str], Path]) -> str:
    """Source of the cameras of a contender's run; empty where it finds them itself.

    Args:
        folder_of: the workspace of a contender.
    """
    if options.poses == EACH or label == options.poses:
        return ""
    if options.poses == TRUE:
        return str(scene.truth_place)
    if options.poses in options.labels:
        return str(folder_of(options.poses))
    return options.poses


def add_samples(entry: Entry, name: str, values: Mapping[str, float]) -> None:
    """Add a metric that is the mean of a value per photo, with its interval."""
    known = {key: value for key, value in values.items() if not math.isnan(value)}
    if not known:
        return
    entry.metrics[name] = mean(np.array(list(known.values())))
    entry.evaluation.intervals[name] = confidence_interval(list(known.values()), mean)
    entry.evaluation.samples[name] = Samples(known, "mean")


def interval(entry: Entry, name: str) -> Interval | None:
    """The confidence interval of a metric, None where there is none."""
    found = entry.evaluation.intervals.get(name)
    return None if found is None or math.isnan(found.low) or math.isnan(found.high) else found

"""Cost of a run: time, memory, disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recon.errors import ReconError
from recon.io.files import parse_json


@dataclass(frozen=True)
class CostReport:
    """Cost of a run.

    Attributes:
        seconds: wall time of all finished stages.
        cpu_seconds: processor time of all finished stages.
        seconds_per_pair: the matcher's own time for a pair where the run measured it, else wall time of the stage that
            matches over the number of pairs; NaN where unknown.
        peak_memory_mb: largest of the stages, MB of 10^6 bytes as the manifest counts them.
        bytes_on_disk: all files of the folder.
        stage_seconds: wall time by stage.
    """

    seconds: float
    cpu_seconds: float
    seconds_per_pair: float
    peak_memory_mb: float
    bytes_on_disk: int
    stage_seconds: Mapping[str, float]


def evaluate_cost(run: Path) -> CostReport:
    """Read what a run cost from its ``manifest.json``, and count its bytes.

    Stages that were skipped because their result was there keep the time of the run that made it.

    Raises:
        ReconError: the folder has no manifest that can be read.
    """
    path = Path(run) / "manifest.json"
    try:
        stages: dict[str, dict[str, Any]] = parse_json(path.read_text(encoding="utf-8"))["stages"]
        done = {name: record for name, record in stages.items() if record["state"] == "done"}
        seconds = {name: float(record["seconds"]) for name, record in done.items()}
        cpu = sum(float(record["cpu_seconds"]) for record in done.values())
        peak = max((float(record["peak_memory_mb"]) for record in done.values()), default=float("nan"))
        counts = done.get("match", {}).get("counts", {})
        pairs = int(counts.get("pairs", 0))
        measured = counts.get("seconds_per_pair")
    except FileNotFoundError as error:
        raise ReconError(
            f"{path}: no such file; the cost of a run is known for recon's workspaces"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReconError(f"{path}: not a manifest of a run ({error!r}); run it again") from error
    per_pair = seconds["match"] / pairs if pairs else float("nan")
    if measured is not None:
        per_pair = float(measured)
    return CostReport(sum(seconds.values()), cpu, per_pair, peak, _bytes(Path(run)), seconds)


def _bytes(folder: Path) -> int:
    """Bytes of all files below a folder; links are not followed."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            total += os.lstat(os.path.join(root, name)).st_size
    return total

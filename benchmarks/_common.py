"""What all benchmarks share: where the data is, what machine this is, timing and tables."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from recon.report.html import machine as computer


def data_root() -> Path:
    """The folder with datasets/ and reference/: ``RECON_DATA``, or ``../shared`` beside the checkout."""
    named = os.environ.get("RECON_DATA")
    root = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    if not (root / "datasets").is_dir():
        sys.exit(
            f"no datasets under {root}: set RECON_DATA to the folder that holds datasets/ and reference/"
        )
    return root


def machine() -> str:
    """One line about the machine and the load on it."""
    return f"{computer()}, load {os.getloadavg()[0]:.1f}"


def timed(fn: Callable[[], Any], repeats: int = 5, warmup: int = 1) -> tuple[float, float, float]:
    """Wall seconds of ``fn``: minimum, median and maximum over ``repeats`` calls after ``warmup``."""
    for _ in range(warmup):
        fn()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        fn()
        seconds.append(time.perf_counter() - start)
    seconds.sort()
    return seconds[0], seconds[len(seconds) // 2], seconds[-1]


class Cases:
    """What became of each case of a campaign, kept in a file so that one that was stopped goes on from there.

    One line of JSON for each case; cases of other seeds in the same file are passed over.
    """

    def __init__(self, path: Path | None, seed: int) -> None:
        self.path, self.seed = path, seed
        self.done: dict[str, dict[str, Any]] = {}
        if path is not None and path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                found = json.loads(line)
                if found["seed"] == seed:
                    self.done[found["case"]] = found

    def add(self, case: str, **what: Any) -> None:
        """Note a case."""
        self.done[case] = {"case": case, "seed": self.seed, **what}
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(self.done[case]) + "\n")


def table(rows: Sequence[Sequence[Any]], headers: Sequence[str]) -> str:
    """A Markdown table."""

    def text(cell: Any) -> str:
        return f"{cell:.3g}" if isinstance(cell, float) else str(cell)

    cells = [list(headers), *[[text(c) for c in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)

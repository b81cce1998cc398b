"""Writes what a comparison found: comparison.csv, comparison.json, comparison.html."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recon.compare.evaluation import write_text
from recon.compare.page import as_html
from recon.compare.pictures import draw
from recon.compare.results import SceneResult
from recon.compare.tables import as_csv, as_data, as_json

CSV, JSON, HTML = "comparison.csv", "comparison.json", "comparison.html"


def write_comparison(
    results: Sequence[SceneResult], out: Path, sweep: tuple[str, Sequence[str]] | None = None
) -> tuple[Path, Path, Path]:
    """Write the three files into ``out``; returns their paths."""
    for result in results:
        draw(result)
    data = as_data(results, sweep)
    write_text(out / CSV, as_csv(data))
    write_text(out / JSON, as_json(data))
    write_text(out / HTML, as_html(data, [result.folder / "pictures" for result in results]))
    return out / CSV, out / JSON, out / HTML

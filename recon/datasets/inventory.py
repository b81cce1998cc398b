"""List of the data sets that lie here, in words."""

from __future__ import annotations

from pathlib import Path

from recon.datasets.cards import Card
from recon.datasets.ground_truth import has_ground_truth, load_ground_truth


def card_here(card: Card, root: Path | None) -> str:
    """Say whether a data set is here, or how many of its scenes."""
    if root is None:
        return "no"
    if not card.scenes or "{scene}" not in card.path:
        return "yes" if card.is_here(root) else "no"
    there = [scene for scene in card.scenes if card.of_scene(scene).is_here(root)]
    return f"{len(there)} of {len(card.scenes)}"


def fetch_size(card: Card) -> str:
    """Say what a download costs, or that there is none."""
    if not card.files:
        return "by hand"
    return card.size or "yes"


def describe_folder(folder: Path) -> list[str]:
    """Say in lines what a reader makes of a folder."""
    if not has_ground_truth(folder):
        return [f"here     {folder}, without ground truth that recon reads at its top"]
    truth = load_ground_truth(folder)
    known = [
        f"{len(truth.cameras)} cameras" if truth.cameras else "",
        f"{len(truth.pairs)} pairs" if truth.pairs else "",
        f"{len(truth.flow_pairs)} flows" if truth.flow_pairs else "",
        "depth" if truth.depth is not None else "",
        "mesh" if truth.mesh is not None else "",
        f"{len(truth.points)} scans" if truth.points else "",
        "masks" if truth.masks is not None else "",
        "judged region" if truth.region is not None else "",
    ]
    scale = f"1 unit is {truth.unit_in_metres:g} m" if truth.unit_in_metres is not None else "no scale"
    lines = [f"here     {folder} ({truth.layout}): {', '.join(part for part in known if part)}; {scale}"]
    return lines + ([f"note     {truth.note}"] if truth.note else [])

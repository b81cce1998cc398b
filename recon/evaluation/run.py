"""All metrics of a run that is on disk, as one flat table and as values per photo and per pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from recon.datasets.ground_truth import GroundTruth
from recon.errors import ReconError
from recon.evaluation.evidence.cost import cost_evidence
from recon.evaluation.evidence.depth import depth_evidence
from recon.evaluation.evidence.matches import flow_evidence, match_evidence
from recon.evaluation.evidence.poses import pose_evidence, two_view_evidence
from recon.evaluation.evidence.subject import Subject, open_subject
from recon.evaluation.evidence.surface import surface_evidence, track_evidence
from recon.evaluation.evidence.views import consistency_evidence, left_out_evidence
from recon.evaluation.report import ReportBuilder, RunReport
from recon.run.folder import RunFolder

_EVIDENCE: Mapping[str, Callable[[Subject, ReportBuilder], None]] = {
    "poses": pose_evidence,
    "two_view": two_view_evidence,
    "matches": match_evidence,
    "flow": flow_evidence,
    "tracks": track_evidence,
    "depth": depth_evidence,
    "surfaces": surface_evidence,
    "left_out": left_out_evidence,
    "consistency": consistency_evidence,
    "cost": cost_evidence,
}

PARTS = tuple(_EVIDENCE)
"""What ``evaluate_run`` looks at, in this order."""


def evaluate_run(
    run: Path | RunFolder,
    truth: GroundTruth | None,
    *,
    thresholds: Sequence[float] | None = None,
    seed: int = 0,
    parts: Sequence[str] = PARTS,
    strict: bool = False,
) -> RunReport:
    """Compute all metrics that a run on disk and what is known of its scene allow.

    Args:
        run: a workspace of recon, finished or not, or a folder of another tool with a COLMAP model, a cloud or a mesh
            under the usual names.
        truth: what is known of the scene; None evaluates what needs no truth.
        thresholds: distances for surfaces and points, in metres where the truth's unit is known in metres, else
            in the truth's units; None takes those of benchmarks that suit the extent of the scene.
        seed: of all sampling.
        parts: what to look at, of ``PARTS``; what needs the cameras aligned does that whether "poses" is named or not.
        strict: raise where a part meets something damaged or empty; else that part is left out, and noted.

    Returns:
        The report. What is missing on disk is noted, not raised.

    Raises:
        ReconError: the folder does not exist, its list of photos or its model is damaged, or the truth is that of
            another scene (no photo name in common, or photos of another shape).
    """
    files = run if isinstance(run, RunFolder) else RunFolder(run)
    report = ReportBuilder()
    subject = open_subject(files, truth, report, thresholds=thresholds, seed=seed, strict=strict)
    for part in (one for one in PARTS if one in parts):
        try:
            _EVIDENCE[part](subject, report)
        except ReconError as error:
            if strict:
                raise
            report.note(f"{part}: {error}")
    return report.report()

"""Cost of a run: time, memory, disk."""

from __future__ import annotations

from recon.evaluation.cost import evaluate_cost
from recon.evaluation.evidence.subject import Subject
from recon.evaluation.report import ReportBuilder, Samples
from recon.run.matches import MATCHING


def cost_evidence(subject: Subject, report: ReportBuilder) -> None:
    """Read time, memory and disk space from the run's manifest."""
    root = subject.run.root
    if not (root / "manifest.json").is_file():
        report.note("cost: no manifest.json, so time and memory are unknown")
        return
    cost = evaluate_cost(root)
    report.metrics["cost.seconds"] = cost.seconds
    report.metrics["cost.cpu_seconds"] = cost.cpu_seconds
    report.metrics["cost.seconds_per_pair"] = cost.seconds_per_pair
    each = (subject.run.json(MATCHING) or {}).get("seconds", {})
    if len(each) > 1:
        report.samples["cost.seconds_per_pair"] = Samples(
            {pair: float(s) for pair, s in each.items()}, "mean"
        )
    report.metrics["cost.peak_memory_mb"] = cost.peak_memory_mb
    report.metrics["cost.bytes_on_disk"] = float(cost.bytes_on_disk)

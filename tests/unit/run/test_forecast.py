"""The time to go, against the times that stages of real runs took."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recon.engine.forecast import seconds_to_go, time_in_words
from recon.run.folder import RunFolder
from recon.run.forecast import Workload, plan, stage_costs, task_memory
from recon.synthetic.paths import pinhole_views
from recon.synthetic.runs import write_true_run

# Processor seconds of stages as manifests of runs on one machine noted them: an aerial block and the fountain at
# quality normal, a door, the demo and the fountain at preview.
RUNS = {
    "hamlet": (
        Workload(20, 0.197, 0.197, 190, 106),
        (0.3, 9.6, 36.4, 296.5, 10.3, 24.6, 28.5, 74.5, 3.3, 42.6, 17.9, 9.2),
    ),
    "fountain": (
        Workload(11, 0.699, 0.273, 55, 41),
        (0.4, 12.6, 16.9, 184.7, 3.9, 25.4, 24.2, 75.0, 4.6, 81.5, 37.9, 14.5),
    ),
    "door": (
        Workload(12, 0.274, 0.107, 66, 57),
        (0.3, 6.9, 12.7, 96.0, 3.0, 21.0, 22.5, 57.0, 2.9, 13.5, 10.0, 7.3),
    ),
    "demo": (
        Workload(8, 0.307, 0.12, 28, 28),
        (0.2, 4.4, 7.0, 57.2, 2.0, 13.4, 9.9, 24.7, 0.8, 9.8, 4.9, 5.9),
    ),
    "fountain, preview": (
        Workload(11, 0.308, 0.12, 55, 51),
        (0.4, 4.9, 8.3, 76.2, 3.2, 8.2, 14.9, 41.0, 1.4, 13.0, 6.4, 6.6),
    ),
}
STAGES = (
    "photos",
    "features",
    "pairs",
    "match",
    "verify",
    "tracks",
    "map",
    "depth",
    "fuse",
    "mesh",
    "texture",
    "report",
)


@pytest.mark.parametrize("machine", [1.0, 0.3, 7.0])
@pytest.mark.parametrize("name", RUNS)
def test_time_to_go_is_right_within_a_third_after_a_tenth(name: str, machine: float) -> None:
    """On machines of any speed, from a tenth to three tenths of the work; later within a quarter of the whole."""
    work, seconds = RUNS[name]
    times = {stage: machine * one for stage, one in zip(STAGES, seconds, strict=True)}
    costs, total = stage_costs(work), sum(times.values())
    for at in np.linspace(0.1, 0.9, 33) * total:
        took: dict[str, float] = {}
        for stage in STAGES:
            so_far = sum(took.values())
            if so_far + times[stage] > at:
                break
            took[stage] = times[stage]
        inside = at - sum(took.values())
        found = seconds_to_go(costs, took, (stage, inside / times[stage], inside))
        assert found is not None
        allowed = (total - at) / 3 if at <= 0.3 * total else total / 4
        assert abs(found - (total - at)) < allowed, (at / total, found, total - at)


def test_nothing_is_said_of_what_is_not_known() -> None:
    assert seconds_to_go({}, {"a": 3.0}) is None
    assert seconds_to_go({"a": 1.0, "b": 2.0}, {}) is None
    assert seconds_to_go({"a": 1.0, "b": 2.0}, {"a": 3.0}) == 6.0
    assert [time_in_words(s) for s in (40, 700, 9000)] == ["40 s", "12 min", "2.5 h"]


def test_a_plan_grows_with_photos_and_pairs_only() -> None:
    """Twice the photos with as many pairs each cost twice, the report alone left out."""
    once, twice = Workload(100, 0.7, 0.27, 2000, 800), Workload(200, 0.7, 0.27, 4000, 1600)
    one, two = (plan(work, {"features": 100.0, "pairs": 100.0}, 1, 8 << 30) for work in (once, twice))
    assert set(one.seconds) == set(STAGES) - {"features", "pairs"}
    assert two.disk == pytest.approx(2 * one.disk, rel=1e-6)
    # The same 200 s for twice the work: a machine of twice the speed.
    assert sum(two.seconds.values()) == pytest.approx(sum(one.seconds.values()), rel=0.01)
    # Meshing by parts keeps within half of the memory, whatever the photos.
    assert one.memory < two.memory < 1.5 * one.memory
    small = replace(twice, match_mpx=0.1)  # matching takes less
    less, more = (plan(small, {}, 1, memory).memory for memory in (1 << 29, 8 << 30))
    assert more - less == pytest.approx(8e5 * 400 - (1 << 28))
    text = one.in_words()
    assert "100 photos of 0.70 megapixels, 800 pairs" in text
    assert "time to go" in text
    assert "GB" in text


@pytest.mark.parametrize(("size", "measured_mb"), [((160, 120), 469), ((480, 360), 645)])
def test_what_a_task_needs_is_what_a_process_took(
    tmp_path: Path, size: tuple[int, int], measured_mb: int
) -> None:
    """Against peaks of depth by ``benchmarks/scale.py stages``; nothing is known before there are photos."""
    assert task_memory(RunFolder(tmp_path), 640) == 0
    blank = np.ones((size[1], size[0]), np.float32)
    views = pinhole_views([np.eye(3, 4), np.eye(3, 4)], *size)
    rgb = np.zeros((size[1], size[0], 3), np.uint8)
    write_true_run(tmp_path / "run", views, [rgb, rgb], [blank, blank], tracks=10)
    needed = task_memory(RunFolder(tmp_path / "run"), 640) / 2**20
    assert measured_mb * 0.95 < needed < measured_mb * 1.1

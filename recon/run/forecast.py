"""Estimate of a run's cost: processor seconds by stage, disk and memory, from its photos and pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recon.run.folder import RunFolder


@dataclass(frozen=True)
class Workload:
    """The numbers that a run's cost depends on.

    Attributes:
        photo_mpx, match_mpx: megapixels of a photo at working and at matching size, on average.
        candidates: pairs that interest points are matched in.
        pairs: pairs that are matched.
    """

    photos: int
    photo_mpx: float
    match_mpx: float
    candidates: int
    pairs: int


# Processor seconds of the default recipe on one core of a server of 2023, rounded means of runs with 8 to 20 photos of
# 640x480 to 1024x683 (docs/cluster.md has the table). Only their proportions matter once a run has begun.
_PER_PHOTO_MPX = {"features": 2.0, "depth": 10.0, "fuse": 0.75, "mesh": 8.0, "texture": 4.5}
_PER_CANDIDATE = 0.22
_PER_PAIR_MPX = 15.5  # of match
_VERIFY_PER_PAIR = 0.09
_PER_PHOTO = {"photos": 0.05, "tracks": 1.7, "map": 1.8}
_REPORT = 8.0

# Bytes, from the same runs: a pixel of a photo and its depth map, of the flow of a pair both ways with confidence, an
# interest point file, and what a program that has loaded all its libraries takes. A pixel makes up to a quarter of a
# point, meshing takes 250 bytes for a point, 400 of the largest part (``recon.stages.mesh``), and the mesh 7 a pixel.
_DISK_PER_PIXEL, _DISK_PER_FLOW_PIXEL, _DISK_PER_PHOTO = 19, 6, 600_000
_MEMORY_BASE, _MESHING_PER_PIXEL, _MESH_PER_PIXEL = 600 << 20, 62, 7
_LARGEST_PART = 800_000 * 400
_MATCH_MEMORY_PER_PIXEL = 1200
# Of a worker: what a process holds with all libraries loaded, and the working arrays of a depth map. Peaks of
# `benchmarks/scale.py stages` with six photos of 160x120 and of 480x360: 469 and 645 MB.
_TASK_MEMORY_BASE, _DEPTH_MEMORY_PER_PIXEL = 450 << 20, 1200


def stage_costs(work: Workload) -> dict[str, float]:
    """Processor seconds that each stage is expected to take, on the machine of the measurements."""
    pixels = work.photos * work.photo_mpx
    costs = {stage: each * pixels for stage, each in _PER_PHOTO_MPX.items()}
    costs |= {stage: each * work.photos for stage, each in _PER_PHOTO.items()}
    costs["pairs"] = _PER_CANDIDATE * work.candidates
    costs["match"] = _PER_PAIR_MPX * work.pairs * work.match_mpx
    costs["verify"] = _VERIFY_PER_PAIR * work.pairs
    costs["report"] = _REPORT
    return costs


def workload(run: RunFolder, recipe: Mapping[str, Any], candidates: int) -> Workload | None:
    """The workload of a run whose pairs are chosen; None where they are not.

    Args:
        recipe: settings by section, of which ``match.max_size`` is read.
        candidates: pairs that interest points were matched in.
    """
    if not run.has_photos or not run.pairs:
        return None
    pixels, matched = _pixels(run, int(recipe["match"]["max_size"]))
    count = len(pixels)
    return Workload(count, sum(pixels) / count / 1e6, sum(matched) / count / 1e6, candidates, len(run.pairs))


def _pixels(run: RunFolder, match_size: int) -> tuple[list[int], list[float]]:
    """Pixels of every photo at working and at matching size."""
    sizes = [(photo.width * photo.height, max(photo.width, photo.height)) for photo in run.photo_set.photos]
    return [size for size, _ in sizes], [size * min(1.0, match_size / long) ** 2 for size, long in sizes]


def task_memory(run: RunFolder, match_size: int) -> int:
    """Bytes that the largest task of a run takes in a process of its own, caches left out; 0 without photos.

    Args:
        match_size: longest side of the photos that are matched, pixels.
    """
    if not run.has_photos:
        return 0
    pixels, matched = _pixels(run, match_size)
    work = max(_MATCH_MEMORY_PER_PIXEL * max(matched), _DEPTH_MEMORY_PER_PIXEL * max(pixels))
    return int(_TASK_MEMORY_BASE + work)


@dataclass(frozen=True)
class Plan:
    """Cost of a run beyond what is done.

    Attributes:
        seconds: wall time of the stages to come, by name.
        disk: bytes of the workspace in the end. memory: bytes that the run takes at most, caches left out.
    """

    work: Workload
    seconds: Mapping[str, float]
    disk: int
    memory: int

    def in_words(self) -> str:
        """A few lines for people."""
        work, hours = self.work, {stage: s / 3600 for stage, s in self.seconds.items()}
        longest = sorted(hours, key=lambda stage: -hours[stage])[:4]
        return "\n".join(
            [
                f"{work.photos} photos of {work.photo_mpx:.2f} megapixels, {work.pairs} pairs to match "
                f"(of {work.candidates} that were looked at)",
                f"time to go   {sum(hours.values()):.2f} h ("
                + ", ".join(f"{stage} {hours[stage]:.2f} h" for stage in longest)
                + ")",
                f"disk         {self.disk / 2**30:.1f} GB in all",
                f"memory       {self.memory / 2**30:.1f} GB at most, and what --memory allows for photos at hand",
            ]
        )


def plan(work: Workload, took: Mapping[str, float], at_once: int, memory: int) -> Plan:
    """Estimate the cost to come, by what the stages so far took on this machine.

    Args:
        took: seconds of the stages that are done.
        at_once: photos or pairs that are worked on at once.
        memory: bytes that the run may take; half of them are for meshing.
    """
    costs = stage_costs(work)
    known = [stage for stage in took if stage in ("features", "pairs")]
    expected = sum(costs[stage] for stage in known)
    speed = sum(took[stage] for stage in known) / expected if expected > 0 else 1.0
    pixels = work.photos * work.photo_mpx * 1e6
    disk = _DISK_PER_PIXEL * pixels + _DISK_PER_FLOW_PIXEL * 2 * work.pairs * work.match_mpx * 1e6
    matching = at_once * _MATCH_MEMORY_PER_PIXEL * work.match_mpx * 1e6
    meshing = min(_MESHING_PER_PIXEL * pixels, _LARGEST_PART, memory / 2)
    return Plan(
        work,
        {stage: cost * speed for stage, cost in costs.items() if stage not in took},
        int(disk + _DISK_PER_PHOTO * work.photos),
        int(_MEMORY_BASE + max(matching, meshing) + _MESH_PER_PIXEL * pixels),
    )

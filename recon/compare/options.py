"""Options of a comparison."""

from __future__ import annotations

from dataclasses import dataclass

from recon.options import option

EACH, TRUE = "each", "gt"
"""Values of ``--poses``: each contender's own cameras, or those of the truth, for everybody's densification."""


@dataclass(frozen=True)
class Options:
    """Options of a comparison.

    Attributes:
        pictures: pairs and photos that the page shows of each scene.
        labels: of all contenders (``compare_scene`` sets them).
        once: labels of contenders that run with the first seed alone.
    """

    sweep: str | None = option(
        None,
        "Render a scene at each value of a difficulty and compare over them, for example zoom=1,2,3,4.",
        metavar="DIFFICULTY=V1,V2,...",
    )
    sweep_photos: int = option(6, "Photos of each rendered scene.", min=3)
    sweep_size: str = option("480x360", "Size of the rendered photos.", metavar="WxH")
    poses: str = option(
        EACH,
        "Whose cameras the densification uses: each (its own), gt (the true ones), the name of one of the matchers, "
        "or a place with cameras (a run, a COLMAP model, a cameras.json).",
    )
    quality: str = option("normal", "preview, normal or high.")
    intrinsics: str = option(
        "auto", "auto (the truth's, where it has cameras), estimate, or known ones as for reconstruct."
    )
    leave_out: int = option(
        0, "Leave out N photos, one at a time, and predict them: needs no truth.", min=0, metavar="N"
    )
    seed: int = option(0, "Seed of every random choice.", min=0)
    seeds: int = option(1, "Runs per matcher, with seeds counted up; the spread is reported.", min=1)
    stop_after: str = option(
        "mesh", "Last stage to run, for example map to compare cameras only.", metavar="STAGE"
    )
    threads: int | None = option(None, "Threads to use; all cores by default.", min=1)
    isolate: bool = option(
        True, "Each run in a process of its own, or all in this one.", flags=("--isolate/--in-process",)
    )
    pictures: int = 3
    labels: tuple[str, ...] = ()
    once: tuple[str, ...] = ()

"""``recon evaluate surface``, ``depth`` and ``flow``: what is dense."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recon.cli.evaluate import Json, run_argument, tell
from recon.cli.options import takes_options
from recon.evaluation.options import SurfaceOptions


@takes_options
def evaluate_surface(
    run: Annotated[Path, run_argument("A workspace or folder of another tool, or a cloud or mesh.")],
    truth: Annotated[Path, typer.Option(help="The truth: a scene with a scan or mesh, or the file of one.")],
    json_: Json = None,
    *,
    options: SurfaceOptions,
) -> None:
    """Accuracy, completeness, F at several distances and chamfer distance of points and mesh."""
    from recon.evaluation.kinds import of_surface

    tell("surface", run, truth, of_surface(run, truth, options), json_)


def evaluate_depth(
    run: Annotated[
        Path, run_argument("A workspace, a COLMAP dense folder, or one depth map (.npz, .npy, .pfm, .bin).")
    ],
    truth: Annotated[Path, typer.Option(help="The truth: a scene with depth maps, or one depth map.")],
    scale: Annotated[float, typer.Option(help="Multiply the depth of a single map by this first.")] = 1.0,
    json_: Json = None,
) -> None:
    """Errors of depth maps, photo by photo, with the share of pixels that they cover."""
    from recon.evaluation.kinds import of_depth

    tell("depth", run, truth, of_depth(run, truth, scale), json_)


def evaluate_flow(
    run: Annotated[Path, run_argument("A .flo file, a folder of them, or a workspace.")],
    truth: Annotated[
        Path,
        typer.Option(help="A .flo file, a folder of them, or (for a workspace) a scene with known flow."),
    ],
    missing: Annotated[
        str,
        typer.Option(
            help="Where the truth is known and RUN is not: error, zero (no motion, an outlier) or skip."
        ),
    ] = "error",
    json_: Json = None,
) -> None:
    """Endpoint and angular error and outlier rates of optical flow."""
    from recon.evaluation.kinds import of_flow

    tell("flow", run, truth, of_flow(run, truth, missing), json_)

"""Stage ``report``: the run in numbers, in pictures, and as one page."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from recon.engine.stage import StageContext
from recon.engine.workspace import library_versions
from recon.io.manifest import Manifest, read_manifest
from recon.run.folder import RunFolder

if TYPE_CHECKING:
    from recon.stages.report_surface import RunMesh

PAGE = "report.html"


class ReportSettings(BaseModel):
    """What the report shows."""

    model_config = ConfigDict(extra="forbid")
    pictures: bool = Field(True, description="preview pictures of cameras, depth, cloud and mesh")
    page: bool = Field(True, description="report.html, the run as one page")
    width: int = Field(960, ge=160, le=4096, description="width of the rendered pictures, pixels")


class ReportStage:
    """Writes summary.json, summary.txt, the preview pictures and report.html."""

    name: ClassVar[str] = "report"
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = (
        "photos",
        "pairs",
        "match",
        "verify",
        "tracks",
        "map",
        "depth",
        "fuse",
        "mesh",
        "texture",
    )
    Settings: ClassVar[type[BaseModel]] = ReportSettings

    def run(self, settings: ReportSettings, work: StageContext) -> dict[str, Any]:
        manifest = read_manifest(work.root)
        assert manifest is not None
        summary = summarize(work, manifest)
        mesh = _mesh_of(work, manifest)
        pictures: list[str] = []
        if settings.pictures:
            from recon.stages.previews import write_previews

            pictures = write_previews(work, settings.width, mesh)
        summary["pictures"] = pictures
        work.remove(PAGE)
        if settings.page:
            try:
                page = _page(work, manifest, summary, mesh)
            except Exception as error:  # the results are worth more than their description
                work.log.info("%s could not be made", PAGE, exc_info=True)
                work.warn(f"{PAGE} could not be made ({type(error).__name__}: {error})")
            else:
                work.write_text(PAGE, page)
        work.write_json("summary.json", summary)
        work.write_text("summary.txt", _as_text(summary, work))
        return {"pictures": len(pictures)}


def leave_report(root: Path, error: Exception | None = None) -> Path | None:
    """Writes the page of a run that ended before its last stage: stopped on purpose, or failed.

    Args:
        root: the workspace; its manifest stays as it is.
        error: what ended the run; None if it was to end there.

    Returns:
        The page. None if there is nothing to tell, if no stage failed (another run may hold the workspace), or if the
        page cannot be written: the disk may be full, and what ended the run matters more.
    """
    log = logging.getLogger("recon")
    try:
        manifest = read_manifest(root)
        if manifest is None or not any(record.state == "done" for record in manifest.stages.values()):
            return None
        failed = [name for name, record in manifest.stages.items() if record.state == "failed"]
        if error is not None and not failed:
            return None
        work = StageContext(root=root.absolute(), seed=int(manifest.run.get("seed", 0)))
        failure = "" if error is None else f"The stage ‘{failed[-1]}’ failed: {error}"
        return work.write_text(
            PAGE, _page(work, manifest, summarize(work, manifest), _mesh_of(work, manifest), failure)
        )
    except Exception:
        log.info("%s could not be written", PAGE, exc_info=True)
        return None


def _mesh_of(work: StageContext, manifest: Manifest) -> Callable[[], RunMesh]:
    """The mesh, read when it is first asked for."""
    from recon.stages.report_surface import load_run_mesh

    texture = manifest.stages.get("texture")
    textured = texture is not None and texture.state == "done"
    return cache(lambda: load_run_mesh(work, textured))


def _page(
    work: StageContext,
    manifest: Manifest,
    summary: dict[str, Any],
    mesh: Callable[[], RunMesh],
    failure: str = "",
) -> str:
    from recon.report.page import report_html
    from recon.stages.report_content import gather

    return report_html(gather(work, manifest, summary, mesh, failure))


def summarize(work: StageContext, manifest: Manifest) -> dict[str, Any]:
    """What the stages counted, as JSON values; a part whose stages are not done is not there."""
    run = RunFolder.of(work)
    done = {name: record for name, record in manifest.stages.items() if record.state == "done"}
    counts = {name: record.counts for name, record in done.items()}
    summary: dict[str, Any] = {}
    if "photos" in done:
        photo_set = run.photo_set
        left_out = run.left_out() if "map" in done else photo_set.left_out
        summary["photos"] = {
            "given": len(photo_set.photos) + len(photo_set.left_out),
            "used": len(photo_set.photos),
            "registered": counts["map"]["registered"] if "map" in done else None,
            "left_out": [{"name": out.name, "reason": out.reason} for out in left_out],
        }
    if {"match", "verify"} <= done.keys():
        summary["pairs"] = {
            "matched": counts["match"]["pairs"],
            "verified": counts["verify"]["edges"],
            "components": counts["verify"]["components"],
        }
    if "tracks" in done:
        summary["tracks"] = {key: counts["tracks"][f] for key, f in _TRACKS.items()}
    if "map" in done:
        models = run.models()
        sparse = ("points", "mean_track_length", "mean_reprojection_error_px")
        summary["sparse"] = {**{key: counts["map"][key] for key in sparse}, "models": models}
    if "depth" in done:
        summary["dense"] = {"covered_share": counts["depth"]["covered_share"]}
        if "fuse" in done:
            summary["dense"] |= {key: counts["fuse"][key] for key in ("points", "mean_views")}
    if "mesh" in done:
        summary["mesh"] = {key: counts["mesh"][key] for key in ("vertices", "faces")}
    texture = work.path("mesh", "texture.json")
    if counts.get("texture", {}).get("faces") and texture.is_file():
        stored = json.loads(texture.read_text(encoding="utf-8"))
        kept = ("faces", "charts", "seen_share", "seam_step", "seam_step_before", "texels_per_pixel")
        summary["texture"] = {"size": stored["texture"], **{key: stored[key] for key in kept}}
    summary["stages"] = [
        {
            "name": name,
            "seconds": record.seconds,
            "cpu_seconds": record.cpu_seconds,
            "peak_memory_mb": record.peak_memory_mb,
            "counts": record.counts,
        }
        for name, record in done.items()
    ]
    summary["seconds"] = round(sum(record.seconds for record in done.values()), 2)
    summary["peak_memory_mb"] = max((record.peak_memory_mb for record in done.values()), default=0.0)
    summary["warnings"] = list(dict.fromkeys(text for record in done.values() for text in record.warnings))
    summary["run"] = manifest.run
    summary["versions"] = library_versions()
    return summary


_TRACKS = {"count": "tracks", "mean_length": "mean_length"}


def _as_text(summary: dict[str, Any], work: StageContext) -> str:
    from recon.stages.report_content import facts, run_in_words

    photos, sparse = summary["photos"], summary["sparse"]
    run = summary["run"]
    lines = [
        run_in_words(run),
        "",
        *(f"{label:<11}{text}" for label, text in facts(summary) if label != "Cost"),
        "",
        f"{'stage':<10}{'seconds':>10}{'peak MB':>10}",
    ]
    lines += [f"{s['name']:<10}{s['seconds']:>10.1f}{s['peak_memory_mb']:>10.0f}" for s in summary["stages"]]
    lines.append(f"{'in all':<10}{summary['seconds']:>10.1f}{summary['peak_memory_mb']:>10.0f}")
    if photos["left_out"]:
        lines += ["", "Left out"]
        lines += [f"  {entry['name']}: {entry['reason']}" for entry in photos["left_out"]]
    if len(sparse["models"]) > 1:
        lines += ["", "Models"]
        lines += [
            f"  {m['folder']}: {len(m['registered'])} photos, {m['points']} points" for m in sparse["models"]
        ]
    if summary["warnings"]:
        lines += ["", "Warnings", *(f"  {text}" for text in summary["warnings"])]
    files = [
        (work.path("sparse", "0"), "cameras and sparse points (COLMAP)"),
        (work.path("dense", "points.ply"), "dense points"),
        (work.path("mesh", "mesh.ply"), "mesh"),
        (work.path("mesh", "textured.glb"), "textured mesh"),
        (work.path("mesh", "textured.obj"), "textured mesh"),
        (work.path("pictures"), "pictures"),
        (work.path(PAGE), "all of this to look at, in one file"),
    ]
    shown = [(path, what) for path, what in files if path.exists()]
    lines += ["", "Files", *(f"  {path}  {what}" for path, what in shown)]
    return "\n".join(lines) + "\n"

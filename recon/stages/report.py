"""Stage ``report``: the run in numbers and pictures."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from recon.engine.stage import StageContext
from recon.engine.workspace import library_versions, read_manifest
from recon.stages.map import load_left_out
from recon.stages.photos import load_photo_set


class ReportSettings(BaseModel):
    """What the report shows."""

    model_config = ConfigDict(extra="forbid")
    pictures: bool = Field(True, description="preview pictures of cameras, depth, cloud and mesh")
    width: int = Field(960, ge=160, le=4096, description="width of the rendered pictures, pixels")


class ReportStage:
    """Writes summary.json, summary.txt and the preview pictures."""

    name: ClassVar[str] = "report"
    version: ClassVar[int] = 1
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
    )
    Settings: ClassVar[type[BaseModel]] = ReportSettings

    def run(self, settings: ReportSettings, work: StageContext) -> dict[str, Any]:
        summary = _summary(work)
        pictures: list[str] = []
        if settings.pictures:
            from recon.stages.previews import write_previews

            pictures = write_previews(work, settings.width)
        summary["pictures"] = pictures
        work.write_json("summary.json", summary)
        work.write_text("summary.txt", _as_text(summary, work))
        return {"pictures": len(pictures)}


def _summary(work: StageContext) -> dict[str, Any]:
    manifest = read_manifest(work.root)
    assert manifest is not None
    done = {name: record for name, record in manifest.stages.items() if record.state == "done"}
    counts = {name: record.counts for name, record in done.items()}
    photo_set = load_photo_set(work)
    left_out = [{"name": out.name, "reason": out.reason} for out in load_left_out(work)]
    mapped = counts["map"]
    models = json.loads(work.path("mapping.json").read_text(encoding="utf-8"))["models"]
    return {
        "photos": {
            "given": len(photo_set.photos) + len(photo_set.left_out),
            "used": len(photo_set.photos),
            "registered": mapped["registered"],
            "left_out": left_out,
        },
        "pairs": {
            "matched": counts["match"]["pairs"],
            "verified": counts["verify"]["edges"],
            "components": counts["verify"]["components"],
        },
        "tracks": {"count": counts["tracks"]["tracks"], "mean_length": counts["tracks"]["mean_length"]},
        "sparse": {
            "points": mapped["points"],
            "mean_track_length": mapped["mean_track_length"],
            "mean_reprojection_error_px": mapped["mean_reprojection_error_px"],
            "models": models,
        },
        "dense": {
            "covered_share": counts["depth"]["covered_share"],
            "points": counts["fuse"]["points"],
            "mean_views": counts["fuse"]["mean_views"],
        },
        "mesh": {"vertices": counts["mesh"]["vertices"], "faces": counts["mesh"]["faces"]},
        "stages": [
            {
                "name": name,
                "seconds": record.seconds,
                "cpu_seconds": record.cpu_seconds,
                "peak_memory_mb": record.peak_memory_mb,
                "counts": record.counts,
            }
            for name, record in done.items()
        ],
        "seconds": round(sum(record.seconds for record in done.values()), 2),
        "peak_memory_mb": max(record.peak_memory_mb for record in done.values()),
        "warnings": list(dict.fromkeys(text for record in done.values() for text in record.warnings)),
        "run": manifest.run,
        "versions": library_versions(),
    }


def _as_text(summary: dict[str, Any], work: StageContext) -> str:
    photos, sparse, dense, mesh = (summary[key] for key in ("photos", "sparse", "dense", "mesh"))
    run = summary["run"]
    lines = [
        f"Recipe {run['recipe']}, quality {run['quality']}, seed {run['seed']}, {run['threads']} threads",
        "",
        f"Photos     {photos['registered']} registered of {photos['given']} given",
        f"Pairs      {summary['pairs']['verified']} verified of {summary['pairs']['matched']} matched",
        f"Tracks     {summary['tracks']['count']}, mean length {summary['tracks']['mean_length']:.2f}",
        f"Sparse     {sparse['points']} points, track length {sparse['mean_track_length']:.2f}, "
        f"reprojection error {sparse['mean_reprojection_error_px']:.3f} px, {len(sparse['models'])} model(s)",
        f"Dense      {dense['points']} points, depth on {100 * dense['covered_share']:.0f}% of the pixels",
        f"Mesh       {mesh['vertices']} vertices, {mesh['faces']} faces",
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
    lines += [
        "",
        "Files",
        f"  {work.path('sparse', '0')}  cameras and sparse points (COLMAP)",
        f"  {work.path('dense', 'points.ply')}  dense points",
        f"  {work.path('mesh', 'mesh.ply')}  mesh",
        f"  {work.path('pictures')}  pictures",
    ]
    return "\n".join(lines) + "\n"

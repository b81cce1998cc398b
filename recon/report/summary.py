"""A run in numbers and in words: summary.json, summary.txt, and the first lines of the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recon.io.manifest import Manifest
from recon.run.folder import PICTURES, REPORT, RunFolder
from recon.sfm.trust import trust_in_words


def summarize(run: RunFolder, manifest: Manifest, versions: Mapping[str, str]) -> dict[str, Any]:
    """Collect what the stages counted, as JSON values; a part whose stages are not done is not there."""
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
        tracks = counts["tracks"]
        summary["tracks"] = {"count": tracks["tracks"], "mean_length": tracks["mean_length"]}
    if "map" in done:
        models = run.models()
        sparse = ("points", "mean_track_length", "mean_reprojection_error_px")
        summary["sparse"] = {**{key: counts["map"][key] for key in sparse}, "models": models}
    mapping = manifest.stages.get("map")
    trust = run.trust() if mapping is not None and mapping.state in {"done", "failed"} else None
    if trust is not None:
        summary["trust"] = trust
    if "depth" in done:
        summary["dense"] = {"covered_share": counts["depth"]["covered_share"]}
        if "fuse" in done:
            summary["dense"] |= {key: counts["fuse"][key] for key in ("points", "mean_views")}
    if "mesh" in done:
        summary["mesh"] = {key: counts["mesh"][key] for key in ("vertices", "faces")}
    stored = run.json("mesh/texture.json")
    if counts.get("texture", {}).get("faces") and stored is not None:
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
    summary["versions"] = dict(versions)
    return summary


def run_in_words(run: Mapping[str, Any]) -> str:
    """Say which recipe ran, and how."""
    threads = run.get("threads", 1)
    return (
        f"Recipe {run.get('recipe')}, quality {run.get('quality')}, seed {run.get('seed')}, "
        f"{threads} {'thread' if threads == 1 else 'threads'}"
    )


def facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Tell the run in short: a label and a sentence for each part that is there."""
    found: list[tuple[str, str]] = []
    if summary.get("trust"):
        found.append(("Trust", trust_in_words(summary["trust"])))
    photos = summary.get("photos")
    if photos:
        text = f"{photos['given']} given, {photos['used']} used"
        if photos.get("registered") is not None:
            text = f"{photos['registered']} registered of {photos['given']} given"
        found.append(("Photos", text))
    if summary.get("pairs"):
        pairs = summary["pairs"]
        found.append(("Pairs", f"{pairs['verified']} verified of {pairs['matched']} matched"))
    if summary.get("tracks"):
        tracks = summary["tracks"]
        found.append(("Tracks", f"{tracks['count']}, mean length {tracks['mean_length']:.2f}"))
    if summary.get("sparse"):
        sparse = summary["sparse"]
        count = len(sparse["models"])
        found.append(
            (
                "Sparse",
                f"{sparse['points']} points, track length {sparse['mean_track_length']:.2f}, reprojection error "
                f"{sparse['mean_reprojection_error_px']:.3f} px, {count} {'model' if count == 1 else 'models'}",
            )
        )
    if summary.get("dense"):
        dense = summary["dense"]
        text = f"depth on {100 * dense['covered_share']:.0f}% of the pixels"
        if dense.get("points") is not None:
            text = f"{dense['points']} points, {text}"
        found.append(("Dense", text))
    if summary.get("mesh"):
        found.append(("Mesh", f"{summary['mesh']['vertices']} vertices, {summary['mesh']['faces']} faces"))
    if summary.get("texture"):
        texture = summary["texture"]
        found.append(
            (
                "Texture",
                f"{texture['size']} texels on {texture['faces']} faces in {texture['charts']} charts, photos on "
                f"{100 * texture['seen_share']:.0f}% of the faces, {texture['seam_step']:.1f} grey levels over a seam "
                f"({texture['seam_step_before']:.1f} before levelling)",
            )
        )
    if summary.get("stages"):
        found.append(("Cost", f"{summary['seconds']:.0f} s, {summary['peak_memory_mb']:.0f} MB at most"))
    return found


def summary_text(summary: Mapping[str, Any], run: RunFolder) -> str:
    """Write a summary for people: the run in short, times, what was left out, and where the files are."""
    photos, sparse = summary["photos"], summary["sparse"]
    lines = [
        run_in_words(summary["run"]),
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
            f"  {m['folder']}: {len(m['registered'])} photos, {m['points']} points: {', '.join(m['registered'])}"
            for m in sparse["models"]
        ]
        lines.append("  The first is gone on with; --set map.model=1 takes the next one instead")
    if summary["warnings"]:
        lines += ["", "Warnings", *(f"  {text}" for text in summary["warnings"])]
    files = (
        ("sparse/0", "cameras and sparse points (COLMAP)"),
        ("dense/points.ply", "dense points"),
        ("mesh/mesh.ply", "mesh"),
        ("mesh/textured.glb", "textured mesh"),
        ("mesh/textured.obj", "textured mesh"),
        (PICTURES, "pictures"),
        (REPORT, "all of this to look at, in one file"),
    )
    shown = [(run.path(name), what) for name, what in files if run.path(name).exists()]
    lines += ["", "Files", *(f"  {path}  {what}" for path, what in shown)]
    return "\n".join(lines) + "\n"

"""Stage ``report``: the run in numbers, in pictures, and as one page."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from recon.core import parallel
from recon.core.mesh import VertexMesh
from recon.engine.stage import StageContext
from recon.engine.workspace import library_versions
from recon.io.manifest import Manifest, read_manifest
from recon.io.pictures import encode_picture
from recon.run.folder import PICTURES, REPORT, SUMMARY, RunFolder


class ReportSettings(BaseModel):
    """Parts of the report."""

    model_config = ConfigDict(extra="forbid")
    pictures: bool = Field(True, description="preview pictures of cameras, depth, cloud and mesh")
    page: bool = Field(True, description="report.html, the run as one page")
    width: int = Field(960, ge=160, le=4096, description="width of the rendered pictures, pixels")


class ReportStage:
    """Writes summary.json, summary.txt, the preview pictures and report.html."""

    name: ClassVar[str] = "report"
    version: ClassVar[int] = 3
    reads: ClassVar[tuple[str, ...]] = (
        "photos", "pairs", "match", "verify", "tracks", "map", "depth", "fuse", "mesh", "texture",
    )  # fmt: skip
    Settings: ClassVar[type[BaseModel]] = ReportSettings

    def run(self, settings: ReportSettings, work: StageContext) -> dict[str, Any]:
        from recon.report.summary import summarize, summary_text
        from recon.report.surface import run_mesh

        run, manifest = RunFolder.of(work), read_manifest(work.root)
        assert manifest is not None
        summary = summarize(run, manifest, library_versions())
        mesh = run_mesh(run, manifest)
        summary["pictures"] = _write_pictures(work, settings.width, mesh) if settings.pictures else []
        work.remove(REPORT)
        if settings.page:
            try:
                page = _page(work, manifest, summary, mesh)
            except Exception as error:  # the results are worth more than their description
                work.log.info("%s could not be made", REPORT, exc_info=True)
                work.warn(f"{REPORT} could not be made ({type(error).__name__}: {error})")
            else:
                work.write_text(REPORT, page)
        work.write_json(SUMMARY, summary)
        work.write_text("summary.txt", summary_text(summary, run))
        return {"pictures": len(summary["pictures"])}


def write_partial_report(root: Path, error: Exception | None = None) -> Path | None:
    """Write the page of a run that ended before its last stage: stopped on purpose, or failed.

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
        from recon.report.summary import summarize
        from recon.report.surface import run_mesh

        work = StageContext(root=root.absolute(), seed=int(manifest.run.get("seed", 0)))
        run = RunFolder.of(work)
        failure = "" if error is None else f"The stage ‘{failed[-1]}’ failed: {error}"
        summary = summarize(run, manifest, library_versions())
        if error is not None and "trust" in summary:
            work.write_json(SUMMARY, summary)
        return work.write_text(REPORT, _page(work, manifest, summary, run_mesh(run, manifest), failure))
    except Exception:
        log.info("%s could not be written", REPORT, exc_info=True)
        return None


def _page(
    work: StageContext,
    manifest: Manifest,
    summary: dict[str, Any],
    mesh: Callable[[], VertexMesh],
    failure: str = "",
) -> str:
    from recon.report.gather import gather
    from recon.report.page import report_html

    return report_html(gather(RunFolder.of(work), manifest, summary, mesh, work.map, failure))


def _write_pictures(work: StageContext, width: int, mesh: Callable[[], VertexMesh]) -> list[str]:
    """Draw the preview pictures; return the names of those that could be drawn."""
    from recon.report.previews import previews

    jobs = previews(RunFolder.of(work), width, mesh)
    written: set[str] = set()
    with work.fresh_directory(PICTURES) as folder, work.progress(len(jobs), "pictures") as bar:

        def write(names: Sequence[str]) -> None:
            for name in names:
                try:
                    picture = jobs[name]()
                except Exception as error:  # a picture is not worth a run
                    work.warn(f"{PICTURES}/{name} could not be drawn ({type(error).__name__}: {error})")
                    continue
                (folder / name).write_bytes(encode_picture(picture))
                written.add(name)
                bar.update()

        # These two share what they cast of the surface, and others are drawn meanwhile that cast nothing of it.
        together = ["mesh_front.png", "mesh_shaded.png"]
        alone = sorted((name for name in jobs if name not in together), key=lambda name: "mesh" in name)
        parallel.map_ordered(write, [together, *([name] for name in alone)], work.threads)
    return [f"{PICTURES}/{name}" for name in jobs if name in written]

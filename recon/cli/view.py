"""``recon view``: a run, a cloud or a mesh in the browser."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from recon.cli.signals import stoppable
from recon.errors import UsageError

if TYPE_CHECKING:
    from recon.live.truth import Truth
    from recon.live.viewer import LiveViewer
    from recon.render.scene import ViewScene


_FIRST = 250_000
"""Points of a large cloud that are read before the page opens; the rest follows."""


def view(
    paths: list[Path] = typer.Argument(
        ...,
        metavar="OUT [OUT2]",
        help="A run, a COLMAP model, or a .ply, .obj or .glb; with two both are shown side by side.",
    ),
    port: int = typer.Option(8080, help="Where to listen; the next free port if it is in use."),
    host: str = typer.Option(
        "127.0.0.1", help="Address to listen on; 0.0.0.0 lets other machines see the run."
    ),
    browser: bool = typer.Option(True, "--browser/--no-browser", help="Open the page in the browser."),
    photos: Path | None = typer.Option(
        None, metavar="DIR", help="Where the photos are now, if they moved since the run."
    ),
    truth: Path | None = typer.Option(
        None,
        metavar="FILE",
        help="A mesh or cloud that is right, in the model's frame, to colour by the error; or a rendered "
        "scene's folder (cameras.json, truth/mesh.ply), whose cameras bring the model there.",
    ),
) -> None:
    """Look at results in the browser; Ctrl-C ends it."""
    if len(paths) > 2:
        raise UsageError("view takes one run, or two to compare")
    from recon.live.serving import free_port
    from recon.render.scene_files import open_view_scene

    with stoppable():
        first = free_port(host, port)
        if first != port:
            typer.echo(f"port {port} is in use: {first} is taken")
        scenes = [open_view_scene(path, photos, _FIRST) for path in paths]
        for scene in scenes:
            for note in scene.notes:
                typer.echo(f"note: {note}")
        truths = [None if truth is None else _truth(truth, scene) for scene in scenes]
        _serve(scenes, truths, [str(path) for path in paths], host, first, browser)


def _serve(
    scenes: list[ViewScene],
    truths: list[Truth | None],
    paths: list[str],
    host: str,
    port: int,
    browser: bool,
) -> None:
    """Show one scene or two until somebody ends it."""
    from recon.live.linked import link
    from recon.live.serving import PairPage, free_port, open_browser
    from recon.live.viewer import LiveViewer

    viewers: list[LiveViewer] = []
    page = None
    try:
        if len(scenes) == 1:
            viewers.append(LiveViewer(scenes[0], host, port, truths[0]))
        else:
            a, b = (scene.name for scene in scenes)
            names = (a, b) if a != b else (paths[0], paths[1])
            for scene, truth, name in zip(scenes, truths, names, strict=True):
                after = (viewers[-1].port if viewers else port) + 1
                viewers.append(LiveViewer(scene, host, free_port(host, after), truth, name))
            if not link(*viewers):
                typer.echo("note: the two share no two photos: their coordinates are taken to be the same")
            page = PairPage(host, port, names, (viewers[0].port, viewers[1].port))
        url = f"http://{'localhost' if host == '0.0.0.0' else host}:{port}/"
        typer.echo(f"{' | '.join(scene.name for scene in scenes)}: {url}  (Ctrl-C ends)")
        if browser and not open_browser(url):
            typer.echo("there is no browser here: open that address in one")
        threading.Event().wait()
    except KeyboardInterrupt:
        typer.echo("ended")
    finally:
        if page is not None:
            page.stop()
        for viewer in viewers:
            viewer.stop()


def _truth(path: Path, scene: ViewScene) -> Truth:
    from recon.live.truth import load_truth

    return load_truth(path, scene)

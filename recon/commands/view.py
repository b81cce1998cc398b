"""``recon view``: a run, a cloud or a mesh in the browser."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from recon.errors import UsageError

if TYPE_CHECKING:
    from recon.viewer.live.truth import Truth
    from recon.viewer.live.viewer import LiveViewer
    from recon.viewer.scene import ViewScene


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
    from recon.commands.looking import open_view_scene
    from recon.viewer.live.linked import link
    from recon.viewer.live.serving import PairPage, free_port, open_browser
    from recon.viewer.live.viewer import LiveViewer

    first = free_port(host, port)
    if first != port:
        typer.echo(f"port {port} is in use: {first} is taken")
    scenes = [open_view_scene(path, photos) for path in paths]
    for scene in scenes:
        for note in scene.notes:
            typer.echo(f"note: {note}")
    viewers: list[LiveViewer] = []
    page = None
    try:
        if len(scenes) == 1:
            viewers.append(LiveViewer(scenes[0], host, first, _truth(truth, scenes[0])))
        else:
            names = _two_names(paths, scenes[0].name, scenes[1].name)
            for scene, name in zip(scenes, names, strict=True):
                after = viewers[-1].port + 1 if viewers else first + 1
                known = _truth(truth, scene)
                viewers.append(LiveViewer(scene, host, free_port(host, after), known, name))
            if not link(*viewers):
                typer.echo("note: the two share no two photos: their coordinates are taken to be the same")
            page = PairPage(host, first, names, (viewers[0].port, viewers[1].port))
        url = f"http://{'localhost' if host == '0.0.0.0' else host}:{first}/"
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


def _truth(path: Path | None, scene: ViewScene) -> Truth | None:
    from recon.viewer.live.truth import load_truth

    return None if path is None else load_truth(path, scene)


def _two_names(paths: list[Path], a: str, b: str) -> tuple[str, str]:
    """Names that tell two runs apart."""
    return (a, b) if a != b else (str(paths[0]), str(paths[1]))

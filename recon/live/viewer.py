"""The live viewer of one scene: a server on this machine and what the browser's panel does."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import viser
from jaxtyping import Float64

from recon.core.mesh import PointCloud
from recon.errors import ReconError
from recon.live.camera import (
    Viewpoint,
    level_axes,
    photo_viewpoint,
    scene_size,
    start_viewpoint,
)
from recon.live.clipping import ClipBox, box_around
from recon.live.colors import ERROR, PHOTO, legend, modes_of, ranges_of
from recon.live.dense import ClientCloud, Style
from recon.live.layers import CameraLayer, MeshLayer, PhotoOverlay, SparseLayer
from recon.live.levels import Eye, build_blocks
from recon.live.marking import Marking
from recon.live.measuring import Measuring
from recon.live.panel import Panel
from recon.live.picking import PhotoShelf, Sighting, Surfaces, sheet
from recon.live.pointing import Marks, inspect, marks_in_words, pick, unit_of
from recon.live.serving import only_own_requests
from recon.live.truth import Truth
from recon.render.scene import ViewScene

# Seconds in which a browser's camera arrives where the viewer has put it.
_STAYS = 0.6

# Seconds after which a camera that is still elsewhere is where a person wants it; slow browsers report old places.
_ARRIVES = 20.0

# Seconds within which a click on a camera arrives once more as a click on the scene.
_SAME_CLICK = 0.3


# Steps of a mark in pixels of the photo.
_STEPS = {"accept": (0.0, 0.0), "←": (-0.5, 0.0), "→": (0.5, 0.0), "↑": (0.0, -0.5), "↓": (0.0, 0.5)}
_MOST_CROPS = 12


class _LocalServer(viser.ViserServer):
    """A server that opens no way out of this machine."""

    def request_share_url(self, verbose: bool = True) -> str | None:
        """Nothing is shared, whatever a browser asks."""
        del verbose
        return None


@dataclass
class _Client:
    """One browser, as the viewer knows it."""

    handle: viser.ClientHandle
    cloud: ClientCloud | None
    fov: float = 0.0
    overlay: PhotoOverlay | None = None
    told: Viewpoint | None = None
    placed_at: float = 0.0
    placed: Viewpoint | None = None
    arrived: bool = False
    camera_clicked_at: float = -np.inf


class LiveViewer:
    """Shows a scene to every browser that opens its address.

    Args:
        scene: what to show. truth: to colour by the error against it.
        host, port: where to listen; the port must be free.
        label: title of the panel.
    """

    def __init__(
        self, scene: ViewScene, host: str, port: int, truth: Truth | None = None, label: str | None = None
    ) -> None:
        self.scene, self.truth = scene, truth
        self.start = start_viewpoint(scene)
        self.axes = level_axes(self.start)
        self._lock = threading.RLock()
        self.clients: dict[int, _Client] = {}
        self.photo: int | None = None  # that is looked through
        self._followers: list[Callable[[Viewpoint], None]] = []
        self._photo_followers: list[Callable[[str | None], None]] = []
        self.linked_at = 0.0  # when another viewer last moved this one's cameras
        self.blocks = build_blocks(scene.dense) if scene.dense is not None and len(scene.dense) else None
        self.surfaces = Surfaces(scene)
        self.shelf = PhotoShelf(scene.photos)
        self.measuring = Measuring(scene)
        self.marking = Marking(scene)
        self.unit = unit_of(scene)
        self.whole = box_around(scene.points(), self.axes)
        with contextlib.redirect_stdout(io.StringIO()), only_own_requests(host):  # viser's own banner
            self.server = _LocalServer(host=host, port=port, verbose=False)
        self.server.scene.set_up_direction(scene.up)
        self._place_first()
        self.cameras = CameraLayer(self.server, scene, self._camera_clicked)
        self.sparse = (
            SparseLayer(self.server, scene) if scene.sparse is not None and len(scene.sparse.xyz) else None
        )
        dense = scene.dense if self.blocks is not None else None
        self.mesh = MeshLayer(self.server, scene.mesh, dense) if scene.mesh is not None else None
        self.modes = modes_of(dense or self._sparse_as_cloud(), truth is not None, self.mesh is not None)
        ranges = ranges_of(scene.points().astype(np.float64), scene.up, dense or self._sparse_as_cloud())
        self.style = Style(PHOTO, ranges, truth.errors if truth is not None else None)
        self.marks = Marks(self.server, scene_size(scene))
        self.panel = Panel(self, label or scene.name)
        self.server.scene.on_click()(self.scene_clicked)
        self.server.on_client_connect(self._connected)
        self.server.on_client_disconnect(self._gone)
        self.redraw()
        self._ended = False
        if scene.unread is not None:
            threading.Thread(target=self._read_on, name="recon-view-read", daemon=True).start()

    @property
    def port(self) -> int:
        """The port that the viewer listens on."""
        return int(self.server.get_port())

    def stop(self) -> None:
        """Let go of the port and all browsers."""
        self.cameras.end()
        self._ended = True
        for client in list(self.clients.values()):
            if client.cloud is not None:
                client.cloud.end()
        with contextlib.redirect_stdout(io.StringIO()):
            self.server.stop()

    # What is drawn

    def redraw(self) -> None:
        """Draw everything as the panel says."""
        with self._lock:
            show = self.panel.shown()
            outside = self.photo is None  # other photos stand in the way of the one that is looked through
            self.cameras.show(show.frusta and outside, show.photos and outside)
            if self.sparse is not None:
                self.sparse.draw(self.style, show.sparse)
            if self.mesh is not None:
                self.mesh.draw(self.style, show.mesh)
            self.style = replace(self.style, visible=show.dense)
            for client in self.clients.values():
                if client.cloud is not None:
                    client.cloud.restyle(self.style)

    def restyle(self, **changes: Any) -> None:
        """Change how points and faces are drawn, and draw them."""
        with self._lock:
            self.style = replace(self.style, **changes)
        self.redraw()

    def color_by(self, mode: str) -> None:
        """Let the colours tell something else."""
        if mode == ERROR and self.truth is not None:
            points = self.scene.points(20_000)
            largest = float(np.percentile(self.truth.errors(points), 95)) if len(points) else 1.0
            self.style = replace(self.style, ranges=replace(self.style.ranges, error=(0.0, largest or 1.0)))
        self.restyle(mode=mode)
        self.panel.show_legend(legend(mode, self.style.ranges.of(mode), self.unit if mode == ERROR else ""))

    def clip(self, low: Float64[np.ndarray, "3"] | None, high: Float64[np.ndarray, "3"] | None) -> None:
        """Show only what is between these parts (0…1) of the scene's extents; all without them."""
        if low is None or high is None:
            self.marks.box(None)
            self.restyle(clip=None)
            return
        extent = self.whole.high - self.whole.low
        box = ClipBox(self.axes, self.whole.low + low * extent, self.whole.low + high * extent)
        self.marks.box(box)
        self.restyle(clip=box)

    # Cameras

    def place(self, viewpoint: Viewpoint) -> None:
        """Move the cameras of all browsers."""
        self.linked_at = time.monotonic()
        for client in list(self.clients.values()):
            self._place(client, viewpoint)

    def reset_view(self) -> None:
        """Back to where the viewer started."""
        self.leave_photo()
        for client in list(self.clients.values()):
            self._place(client, self.start)
        for follower in self._followers:
            follower(self.start)

    def turn_up(self, axis: str) -> None:
        """Let an axis of the model ("+z", "-y", ...) point up, or what the scene says is up."""
        up = self.scene.up
        if axis[1:] in ("x", "y", "z"):
            up = np.eye(3)["xyz".index(axis[1])] * (1.0 if axis[0] == "+" else -1.0)
        # The world of the browser's scene stays as it is turned: its message and the cameras' have no certain order.
        self.start_at(replace(start_viewpoint(replace(self.scene, up=up)), up=up))
        self.style = replace(
            self.style, ranges=ranges_of(self.scene.points().astype(np.float64), up, self.scene.dense)
        )
        self.redraw()
        self.reset_view()

    def follow(self, moved: Callable[[Viewpoint], None], photo: Callable[[str | None], None]) -> None:
        """Tell somebody where a person looks from, and through which photo."""
        self._followers.append(moved)
        self._photo_followers.append(photo)

    def look_through(self, row: int, tell: bool = True) -> None:
        """Put the browsers' cameras in the place of a photo's, with the photo over the model."""
        photo = self.scene.photos[row]
        with self._lock:
            self.photo = row
            for client in list(self.clients.values()):
                self._drop_overlay(client)
                camera = client.handle.camera
                depth = self._depth_of(row)
                self._place(client, photo_viewpoint(photo.view, depth, float(camera.aspect)))
                try:
                    client.overlay = PhotoOverlay(client.handle, photo, 0.02 * depth)
                except ReconError as error:
                    client.handle.add_notification("The photo is missing", str(error), color="orange")
                    continue
                client.overlay.draw(self.panel.opacity)
        self.redraw()
        self.panel.show_photo(row)
        if tell:
            for follower in self._photo_followers:
                follower(photo.name)

    def leave_photo(self, tell: bool = True) -> None:
        """Take the photo away and show its camera again; the view stays where it is."""
        with self._lock:
            if self.photo is None:
                return
            self.photo = None
            for client in self.clients.values():
                self._drop_overlay(client)
                with client.handle.atomic():
                    client.fov = client.handle.camera.fov = self.start.fov
        self.redraw()
        self.panel.show_photo(None)
        if tell:
            for follower in self._photo_followers:
                follower(None)

    def fade(self, opacity: float) -> None:
        """Let the photo cover the model more or less."""
        with self._lock:
            for client in self.clients.values():
                if client.overlay is not None:
                    client.overlay.draw(opacity)

    def look_through_named(self, name: str | None) -> None:
        """Look through the photo of that name if there is one, or leave the photo; tells nobody."""
        if name is None:
            self.leave_photo(tell=False)
            return
        rows = [row for row, photo in enumerate(self.scene.photos) if photo.name == name]
        if rows:
            self.look_through(rows[0], tell=False)

    def start_at(self, viewpoint: Viewpoint) -> None:
        """Let browsers that come later begin here."""
        self.start = viewpoint
        self._place_first()

    def _place_first(self) -> None:
        camera = self.server.initial_camera
        camera.position, camera.look_at = self.start.position, self.start.look_at
        camera.up, camera.fov = self.start.up, self.start.fov
        size = scene_size(self.scene)
        camera.near, camera.far = 1e-3 * size, 100 * size

    def _place(self, client: _Client, viewpoint: Viewpoint) -> None:
        client.placed_at, client.placed, client.arrived = time.monotonic(), viewpoint, False
        camera = client.handle.camera
        distance = float(np.linalg.norm(viewpoint.look_at - viewpoint.position))
        with client.handle.atomic():
            client.fov = viewpoint.fov
            # viser sends only what differs from what a browser last told, which may be older than what it was sent:
            # a small detour lets everything be sent. The field of view comes last, as browsers answer it.
            for detour in (1e-3, 0.0):
                camera.up_direction = viewpoint.up + detour
                camera.position = viewpoint.position + detour * distance
                camera.look_at = viewpoint.look_at + detour * distance
                camera.fov = viewpoint.fov + detour
        self._look(client)

    def _drop_overlay(self, client: _Client) -> None:
        if client.overlay is not None:
            client.overlay.remove()
            client.overlay = None

    def _depth_of(self, row: int) -> float:
        """About how far what a photo shows is from it."""
        view = self.scene.photos[row].view
        points = self.scene.points(20_000).astype(np.float64)
        depth = points @ view.cam_from_world[2, :3] + view.cam_from_world[2, 3]
        ahead = depth[depth > 0]
        return float(np.median(ahead)) if len(ahead) else scene_size(self.scene)

    def _read_on(self) -> None:
        """Read the whole dense cloud where the scene has a sample of it, and draw it instead."""
        assert self.scene.unread is not None
        try:
            cloud, notes = self.scene.unread.read()
            blocks = build_blocks(cloud)
        except ReconError as error:
            self.panel.show_notes((*self.scene.notes, str(error)))
            return
        with self._lock:
            if self._ended:
                return
            known = set(self.scene.notes)
            self.scene = replace(
                self.scene,
                dense=cloud,
                unread=None,
                notes=(*self.scene.notes, *(note for note in notes if note not in known)),
            )
            self.blocks, self.surfaces = blocks, Surfaces(self.scene)
            for client in self.clients.values():
                client.cloud = self._cloud_of(client, client.cloud)
        self.panel.show_notes(self.scene.notes)

    # What browsers do

    def _connected(self, handle: viser.ClientHandle) -> None:
        with self._lock:
            client = _Client(handle, None, self.start.fov)
            client.cloud = self._cloud_of(client)
            self.clients[handle.client_id] = client
        handle.camera.max_orbit_distance = float("inf")
        handle.camera.min_orbit_distance = 1e-5 * scene_size(self.scene)
        handle.camera.on_update(lambda _: self._camera_moved(client))
        self._look(client)

    def _cloud_of(self, client: _Client, before: ClientCloud | None = None) -> ClientCloud | None:
        """The dense points of a browser."""
        if self.blocks is None:
            return None

        def ping() -> None:
            with client.handle.atomic():  # to a new field of view a browser answers with its camera
                camera = client.handle.camera
                camera.fov = client.fov * (1.0 + 4e-5 * (camera.fov <= client.fov))

        return ClientCloud(client.handle, self.blocks, self.style, self.panel.show_count, ping, before)

    def _gone(self, handle: viser.ClientHandle) -> None:
        with self._lock:
            client = self.clients.pop(handle.client_id, None)
        if client is not None and client.cloud is not None:
            client.cloud.end()

    def _look(self, client: _Client) -> None:
        if client.cloud is None:
            return
        camera = client.handle.camera
        toward = camera.look_at - camera.position
        axis = toward / max(float(np.linalg.norm(toward)), 1e-12)
        eye = Eye(camera.position, axis, float(camera.fov), int(camera.image_width), int(camera.image_height))
        client.cloud.look(eye)

    def _camera_moved(self, client: _Client) -> None:
        self._look(client)
        now = time.monotonic()
        camera = client.handle.camera
        shift = 0.0
        if client.placed is not None:
            away = float(np.linalg.norm(camera.position - client.placed.position))
            shift = away / max(float(np.linalg.norm(client.placed.look_at - client.placed.position)), 1e-12)
            client.arrived |= shift < 0.001 or now - client.placed_at > _ARRIVES
        if now - client.placed_at < _STAYS or (client.placed is not None and not client.arrived):
            return
        if client.overlay is not None and shift > 0.01:
            self.leave_photo()
        if now - self.linked_at < _STAYS or (client.placed is not None and _near(camera, client.placed)):
            return
        viewpoint = Viewpoint(camera.position, camera.look_at, camera.up_direction, client.fov)
        if client.told is not None and _same(client.told, viewpoint):
            return
        client.told = viewpoint
        for follower in self._followers:
            follower(viewpoint)

    def _camera_clicked(self, row: int, client_id: int) -> None:
        client = self.clients.get(client_id)
        if client is not None:
            client.camera_clicked_at = time.monotonic()
        threading.Thread(target=self.look_through, args=(row,), daemon=True).start()

    def scene_clicked(self, event: viser.SceneClickEvent) -> None:
        """Mark the point that a person clicked at, or look at it."""
        client = self.clients.get(event.client_id)
        if client is None or time.monotonic() - client.camera_clicked_at < _SAME_CLICK:
            return
        origin, direction = np.array(event.ray_origin), np.array(event.ray_direction)
        direction = direction / np.linalg.norm(direction)
        name = self.panel.marking
        if name and self.photo is not None:
            if self.marking.mark_ray(name, self.photo, direction):
                self.show_marks()
            return
        found = pick(
            self.surfaces,
            self._sparse_as_cloud(),
            client.cloud,
            self.panel.shown(),
            self.style.clip,
            origin,
            direction,
            float(client.handle.camera.fov),
        )
        if found is None:
            self.panel.show_point(None, "Nothing is there.", "")
        elif name:
            self.marking.point_at(name, found.point)
            self.show_marks()
        elif self.panel.measuring:
            at = self.measuring.take(self.surfaces, found.point, found.normal)
            self.panel.show_measure(self.marks.measure(at, self.measuring, self.unit))
        else:
            self.marks.point(found.point)
            self.panel.show_point(*inspect(self.scene, self.surfaces, self.shelf, found, self.measuring))

    # Control points

    def mark(self, act: str) -> None:
        """Do what a button of the control points says: "new", "next photo", "accept", "remove", an arrow, or "show"."""
        name = self.panel.marking
        if act == "new":
            self.panel.name_control(self.marking.next_name())
        elif name and act == "next photo":
            waiting = [one.photo for one in self.marking.of(name, self.surfaces) if not one.marked]
            later = [row for row in sorted(waiting) if self.photo is None or row > self.photo]
            if waiting:
                self.look_through((later or sorted(waiting))[0])
        elif name and self.photo is not None:
            if act == "remove":
                self.marking.remove(name, self.photo)
            elif act in _STEPS:
                if act == "accept" and self.marking.place(name, self.surfaces) is None:
                    return
                self._keep_proposal(name, self.photo)
                dx, dy = _STEPS[act]
                self.marking.nudge(name, self.photo, dx, dy)
        self.show_marks()

    def _keep_proposal(self, name: str, row: int) -> None:
        """Turn the proposal in a photo into a mark."""
        for one in self.marking.of(name, self.surfaces):
            if one.photo == row and not one.marked:
                self.marking.mark(name, row, one.xy)

    def show_marks(self) -> None:
        """Show where photos show the control point: pieces of them, pixels and errors; and its place in the scene."""
        name = self.panel.marking
        self.marks.point(self.marking.place(name, self.surfaces) if name else None, "/marks/control")
        if not name:
            return
        found = self.marking.of(name, self.surfaces)
        shown = [(one, self.shelf.crop(Sighting(one.photo, one.xy))) for one in found[:_MOST_CROPS]]
        crops = [crop for _, crop in shown if crop is not None]
        self.panel.show_control(sheet(crops) if crops else None, marks_in_words(self.scene, name, found))

    def _sparse_as_cloud(self) -> PointCloud | None:
        return self.sparse.cloud if self.sparse is not None else None


def _near(camera: viser.CameraHandle, place: Viewpoint) -> bool:
    """True where a browser's camera is as it was put: an echo, not a person who moves."""
    reach = 1e-3 * float(np.linalg.norm(place.look_at - place.position))
    return bool(
        np.linalg.norm(camera.position - place.position) < reach
        and np.linalg.norm(camera.look_at - place.look_at) < reach
        and np.linalg.norm(camera.up_direction - place.up) < 1e-3
    )


def _same(a: Viewpoint, b: Viewpoint) -> bool:
    pairs = ((a.position, b.position), (a.look_at, b.look_at), (a.up, b.up), (a.fov, b.fov))
    return all(np.array_equal(one, other) for one, other in pairs)

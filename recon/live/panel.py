"""The panel beside the scene: layers, colours, photos, points, measuring, clipping."""

from __future__ import annotations

import time
from typing import Any, Protocol

import numpy as np
import viser
from jaxtyping import Float64, UInt8

from recon.live.colors import PHOTO
from recon.live.levels import Blocks
from recon.live.pointing import Marks, Shown
from recon.live.text import plain, thousands
from recon.render.scene import ViewScene

_UPS = ("as it is", "+z", "-z", "+y", "-y", "+x", "-x")


class Viewer(Protocol):
    """The part of a viewer that the panel reads and steers."""

    server: viser.ViserServer
    scene: ViewScene
    blocks: Blocks | None
    modes: list[str]
    unit: str
    marks: Marks

    def redraw(self) -> None: ...
    def restyle(self, **changes: Any) -> None: ...
    def color_by(self, mode: str) -> None: ...
    def clip(self, low: Float64[np.ndarray, "3"] | None, high: Float64[np.ndarray, "3"] | None) -> None: ...
    def look_through(self, row: int) -> None: ...
    def fade(self, opacity: float) -> None: ...
    def reset_view(self) -> None: ...
    def turn_up(self, axis: str) -> None: ...
    def mark(self, act: str) -> None: ...


class Panel:
    """Controls, and what they do to a viewer."""

    def __init__(self, viewer: Viewer, label: str) -> None:
        self._viewer = viewer
        self._gui = gui = viewer.server.gui
        self.control_on: Any = None
        gui.configure_theme(
            dark_mode=True,
            show_logo=False,
            show_share_button=False,
            control_width="medium",
            brand_color=(23, 140, 130),
        )
        gui.set_panel_label(label)
        gui.main_panel.dock_right()
        self._layers()
        self._colors()
        self._points()
        if viewer.scene.photos and viewer.scene.marks is not None:
            self._control()
        if viewer.scene.photos:
            self._photos()
        self._clipping()
        self._view()
        self._notes = gui.add_folder("Notes")
        with self._notes:
            self.noted = gui.add_markdown("")
        self.show_notes(viewer.scene.notes)

    # What others read and write

    def shown(self) -> Shown:
        """The layers that are switched on."""
        on = {name: box is not None and bool(box.value) for name, box in self._boxes.items()}
        return Shown(**on)

    @property
    def opacity(self) -> float:
        """Of the photo that is looked through."""
        return float(self._fade.value)

    @property
    def measuring(self) -> bool:
        """True while clicks measure."""
        return bool(self._measuring.value)

    @property
    def marking(self) -> str:
        """The control point that clicks mark; empty while they do not."""
        on = self.control_on is not None and bool(self.control_on.value)
        return str(self._control_name.value).strip() if on else ""

    def name_control(self, name: str) -> None:
        """Let clicks mark another control point."""
        self._control_name.value = name

    def show_control(self, picture: UInt8[np.ndarray, "h w 3"] | None, text: str) -> None:
        """Say where photos show the control point."""
        self._control_picture.visible = picture is not None
        if picture is not None:
            self._control_picture.image = picture
        self.control_text.content = text

    def show_legend(self, html: str) -> None:
        """Say what the colours mean."""
        self._legend.content = html
        self._legend.visible = bool(html)

    def show_count(self, count: int) -> None:
        """Say how many dense points are drawn."""
        viewer = self._viewer
        total = viewer.scene.dense_count
        more = ", the others are being read" if viewer.scene.unread is not None else ""
        self._count.content = f"drawn now: {thousands(count)} of {thousands(total)} dense points{more}"

    def show_photo(self, row: int | None) -> None:
        """Say which photo is looked through."""
        names = [photo.name for photo in self._viewer.scene.photos]
        if row is not None:
            self._chosen.value = names[row]
        self._leave.disabled = row is None
        self._fade.disabled = row is None
        self._through.content = "" if row is None else f"Through **{plain(names[row])}**"

    def show_point(self, picture: UInt8[np.ndarray, "h w 3"] | None, text: str, table: str) -> None:
        """Say what was clicked."""
        self._picture.visible = picture is not None
        if picture is not None:
            self._picture.image = picture
        self._text.content = text
        self._table.content, self._table.visible = table, bool(table)

    def show_notes(self, notes: tuple[str, ...]) -> None:
        """Say what a person should know of the scene."""
        lines = [f"- {plain(note)}" for note in notes]
        offset = self._viewer.scene.offset
        if offset.any():
            place = ", ".join(f"{value:.10g}" for value in offset)
            lines.append(f"- drawn near the origin; ({place}) is added to the coordinates that are shown")
        self.noted.content = "\n".join(lines)
        self._notes.visible = bool(lines)

    def show_measure(self, text: str) -> None:
        """Say what was measured."""
        self._length.content = text

    # The folders

    def _layers(self) -> None:
        viewer, scene = self._viewer, self._viewer.scene
        photos = len(scene.photos)
        there = sum(photo.path is not None for photo in scene.photos)
        sparse = len(scene.sparse.xyz) if scene.sparse is not None else 0
        dense = scene.dense_count
        faces = len(scene.mesh.faces) if scene.mesh is not None else 0
        kind = "textured" if scene.mesh is not None and scene.mesh.textured else "no texture"
        parts = (
            ("frusta", "cameras", photos, True),
            ("photos", "photos", there, True),
            ("sparse", "sparse points", sparse, not dense and not faces),
            ("dense", "dense points", dense, not faces),
            ("mesh", "mesh", faces, True),
        )
        self._boxes: dict[str, Any] = {}
        with self._gui.add_folder("Layers"):
            for name, label, count, on in parts:
                self._boxes[name] = self._gui.add_checkbox(label, bool(on and count)) if count else None
                if count:
                    self._boxes[name].on_update(lambda _: viewer.redraw())
            numbers = (
                (photos, "cameras"),
                (there, "photos"),
                (sparse, "sparse points"),
                (dense, "dense points"),
                (faces, f"faces, {kind}"),
            )
            self._gui.add_markdown(", ".join(f"{thousands(n)} {what}" for n, what in numbers if n))
            self._count = self._gui.add_markdown("", visible=bool(dense))

    def _colors(self) -> None:
        viewer = self._viewer
        with self._gui.add_folder("Colour"):
            by = self._gui.add_dropdown("colour by", viewer.modes, initial_value=PHOTO)
            self._legend = self._gui.add_html("", visible=False)
            size = self._gui.add_slider("point size", 0.2, 4.0, 0.1, 1.0)
        by.on_update(lambda _: viewer.color_by(str(by.value)))
        size.on_update(lambda _: viewer.restyle(size=float(size.value)))

    def _photos(self) -> None:
        viewer = self._viewer
        names = [photo.name for photo in viewer.scene.photos]
        with self._gui.add_folder("Look through a photo"):
            self._chosen: Any = self._gui.add_dropdown("photo", names)
            steps = self._gui.add_button_group("", ("previous", "look", "next"))
            self._fade = self._gui.add_slider("photo opacity", 0.0, 1.0, 0.05, 0.5, disabled=True)
            self._leave = self._gui.add_button("leave the photo", disabled=True, color="gray")
            self._through = self._gui.add_markdown("Click a camera, or choose one.")

        def look(step: int) -> None:
            current = names.index(str(self._chosen.value))
            viewer.look_through((current + step) % len(names))

        def chosen(event: Any) -> None:
            if event.client is not None:  # else the viewer itself has set it
                look(0)

        self._chosen.on_update(chosen)
        steps.on_click(lambda event: look({"previous": -1, "look": 0, "next": 1}[str(event.target.value)]))
        self._fade.on_update(lambda _: viewer.fade(float(self._fade.value)))
        self._leave.on_click(lambda _: viewer.reset_view())

    def _points(self) -> None:
        viewer = self._viewer
        start = "Click two points. " + (
            "Lengths are in metres." if viewer.unit == "m" else "Lengths are in units of the model."
        )
        with self._gui.add_folder("Points"):
            self._measuring = self._gui.add_checkbox(
                "measure", False, hint="Clicks take the ends of a length instead of showing photos."
            )
            self._length = self._gui.add_markdown("", visible=False)
            clear = self._gui.add_button("clear the measurement", color="gray", visible=False)
            self._text = self._gui.add_markdown("Click a point to see the photos that show it.")
            self._picture = self._gui.add_image(np.zeros((2, 2, 3), np.uint8), visible=False)
            self._table = self._gui.add_markdown("", visible=False)

        def cleared(_: Any) -> None:
            viewer.marks.clear_measure()
            self.show_measure(start)

        def switched(_: Any) -> None:
            self._length.visible = clear.visible = self.measuring
            cleared(None)

        self._measuring.on_update(switched)
        clear.on_click(cleared)

    def _control(self) -> None:
        viewer = self._viewer
        with self._gui.add_folder("Control points", expand_by_default=False):
            self.control_on = self._gui.add_checkbox(
                "mark",
                False,
                hint="Clicks mark the point: in the photo that is looked through, or on the surface.",
            )
            self._control_name: Any = self._gui.add_text("name", "P1")
            steps = self._gui.add_button_group("", ("new", "next photo"))
            here = self._gui.add_button_group("", ("accept", "remove"))
            nudge = self._gui.add_button_group("", ("←", "→", "↑", "↓"))
            self.control_text = self._gui.add_markdown(
                "Look through a photo and click where it shows the point; the other photos are proposed."
            )
            self._control_picture = self._gui.add_image(np.zeros((2, 2, 3), np.uint8), visible=False)
        for group in (steps, here, nudge):
            group.on_click(lambda event: viewer.mark(str(event.target.value)))
        self._control_name.on_update(lambda _: viewer.mark("show"))
        self.control_on.on_update(lambda _: viewer.mark("show"))

    def _clipping(self) -> None:
        viewer = self._viewer
        with self._gui.add_folder("Clipping box", expand_by_default=False):
            on = self._gui.add_checkbox("clip", False)
            sliders = [
                self._gui.add_multi_slider(name, 0.0, 100.0, 1.0, (0.0, 100.0), min_range=1.0, disabled=True)
                for name in ("across", "along", "height")
            ]
        state = {"asked": 0.0}

        def changed(_: Any) -> None:
            asked = state["asked"] = time.monotonic()
            time.sleep(0.12)  # while a slider is dragged only its last place counts
            if state["asked"] == asked:
                apply()

        def apply() -> None:
            ends = np.array([slider.value for slider in sliders], np.float64) / 100
            viewer.clip(ends[:, 0], ends[:, 1]) if on.value else viewer.clip(None, None)

        def switched(_: Any) -> None:
            for slider in sliders:
                slider.disabled = not on.value
            apply()

        on.on_update(switched)
        for slider in sliders:
            slider.on_update(changed)

    def _view(self) -> None:
        viewer = self._viewer
        with self._gui.add_folder("View", expand_by_default=False):
            reset = self._gui.add_button("reset the view", color="gray")
            up = self._gui.add_dropdown("up", _UPS)
            detail = (
                self._gui.add_slider("million points", 0.5, 10.0, 0.5, 3.0)
                if viewer.blocks is not None
                else None
            )
        reset.on_click(lambda _: viewer.reset_view())
        up.on_update(lambda _: viewer.turn_up(str(up.value)))
        if detail is not None:
            detail.on_update(lambda _: viewer.restyle(budget=round(float(detail.value) * 1e6)))

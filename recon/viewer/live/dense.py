"""The dense cloud as each browser draws it: as many points as its view needs and its budget allows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import viser
from jaxtyping import Int64

from recon.viewer.live.clipping import ClipBox
from recon.viewer.live.colors import Ranges, cloud_colors
from recon.viewer.live.levels import Blocks, Eye, choose, precision_of

ROOT = "/dense"

_REST = 0.25
"""Seconds without movement after which details are fetched."""

_BATCH = 300_000
"""Points that are sent before it is looked again whether the camera has moved on."""


@dataclass(frozen=True)
class Style:
    """How the points are drawn.

    Attributes:
        mode: what the colours tell. ranges: ends of the colour maps. errors: distance from the truth.
        clip: what is shown, None for all. size: factor on the points' size. visible: whether they are drawn.
        budget: points while the camera rests. moving: points while it moves.
    """

    mode: str
    ranges: Ranges
    errors: Callable[[np.ndarray], np.ndarray] | None = None
    clip: ClipBox | None = None
    size: float = 1.0
    visible: bool = True
    budget: int = 3_000_000
    moving: int = 1_000_000


class ClientCloud:
    """The points that one browser shows.

    Each block has two nodes in the browser's scene: the share that is always there, and the rest of what the view
    needs, which goes while the camera moves. A thread of its own sends them, the nearest first.
    """

    def __init__(
        self, client: viser.ClientHandle, blocks: Blocks, style: Style, told: Callable[[int], None]
    ) -> None:
        self._client, self._blocks, self._style, self._told = client, blocks, style, told
        self._change = threading.Condition()
        self._eye: Eye | None = None
        self._moved_at = 0.0
        self._ended = False
        total = max(len(blocks.cloud), 1)
        share = 1.0 if total <= style.moving else 2.0 ** np.floor(np.log2(style.moving / total))
        self._share = float(share)
        self._coarse = blocks.shares(self._share)
        self._spacings = blocks.spacings
        self._coarse_nodes: dict[int, viser.PointCloudHandle] = {}
        self._fine_nodes: dict[int, viser.PointCloudHandle] = {}
        self._fine = np.zeros(len(blocks), np.int64)  # points of the block that the fine node reaches to
        self._thinned = False
        self._root: viser.FrameHandle | None = None
        self._thread = threading.Thread(target=self._run, name="recon-view-points", daemon=True)
        self._thread.start()

    @property
    def shown(self) -> Int64[np.ndarray, " b"]:
        """Points of each block that are drawn."""
        if not self._style.visible:
            return np.zeros(len(self._blocks), np.int64)
        return self._coarse if self._thinned else np.maximum(self._coarse, self._fine)

    def look(self, eye: Eye) -> None:
        """The camera has moved."""
        with self._change:
            self._eye, self._moved_at = eye, time.monotonic()
            self._change.notify()

    def restyle(self, style: Style) -> None:
        """Draw the points in another way."""
        with self._change:
            self._style = style
            self._change.notify()

    def end(self) -> None:
        """The browser is gone."""
        with self._change:
            self._ended = True
            self._change.notify()

    def _run(self) -> None:
        drawn: Style | None = None
        seen_eye: Eye | None = None
        while True:
            with self._change:
                while not self._ended and drawn is self._style and seen_eye is self._eye:
                    self._change.wait()
                if self._ended:
                    return
                style, eye, moved_at = self._style, self._eye, self._moved_at
            if drawn is not style:
                self._apply(style, drawn)
                drawn = style
            if eye is None or not style.visible:
                seen_eye = eye
                continue
            rest = moved_at + _REST - time.monotonic()
            if rest > 0 and seen_eye is not None:
                self._thin(style)
                with self._change:
                    self._change.wait(rest)
                continue
            if self._refine(style, eye):
                seen_eye = eye

    # Changes of style

    def _apply(self, style: Style, before: Style | None) -> None:
        if self._root is None:
            self._root = self._client.scene.add_frame(ROOT, show_axes=False, visible=style.visible)
        self._root.visible = style.visible
        if not style.visible:
            self._told(0)
            return
        same = (
            before is not None
            and replace(before, size=style.size, visible=True, budget=style.budget) == style
        )
        if same and self._coarse_nodes:
            assert before is not None
            if before.size != style.size:
                self._resize(style)
            if before.budget != style.budget and self._eye is not None:
                self._refine(style, self._eye)
            self._told(int(self.shown.sum()))
            return
        sent = 0
        for block in self._order():
            self._send(self._coarse_nodes, block, 0, int(self._coarse[block]), style)
            if self._fine[block]:
                self._send(self._fine_nodes, block, int(self._coarse[block]), int(self._fine[block]), style)
            sent += int(self._coarse[block])
            if sent > _BATCH:
                sent = 0
                if self._outdated(style):
                    return
        self._told(int(self.shown.sum()))

    def _order(self) -> list[int]:
        """Blocks, the nearest first."""
        if self._eye is None:
            return list(range(len(self._blocks)))
        distance = np.linalg.norm(self._blocks.centers - self._eye.center, axis=1)
        return [int(block) for block in np.argsort(distance, kind="stable")]

    def _outdated(self, style: Style) -> bool:
        return self._ended or self._style is not style

    # Changes of view

    def _thin(self, style: Style) -> None:
        if self._thinned or not self._fine_nodes:
            return
        self._thinned = True
        with self._client.atomic():
            for block, node in self._fine_nodes.items():
                node.visible = False
                if block in self._coarse_nodes:
                    self._coarse_nodes[block].point_size = self._size(block, int(self._coarse[block]), style)
        self._told(int(self.shown.sum()))

    def _refine(self, style: Style, eye: Eye) -> bool:
        """Show what the view needs; False when the camera moved on before all was sent."""
        wanted = np.maximum(choose(self._blocks, eye, style.budget, self._share), self._coarse)
        sent = 0
        for block in self._order():
            upto, first = int(wanted[block]), int(self._coarse[block])
            if upto > first and self._fine[block] != upto:
                sent += upto - first
                self._send(self._fine_nodes, block, first, upto, style)
                self._fine[block] = upto
            elif upto <= first:
                self._fine[block] = 0
                if block in self._fine_nodes:
                    self._fine_nodes.pop(block).remove()
            elif block in self._fine_nodes:
                self._fine_nodes[block].visible = True
            if block in self._coarse_nodes:
                self._coarse_nodes[block].point_size = self._size(block, upto, style)
            if sent > _BATCH:
                sent = 0
                self._client.flush()
                if self._ended or self._style is not style or self._eye is not eye:
                    self._thinned = False
                    return False
        self._thinned = False
        self._told(int(self.shown.sum()))
        return True

    def _resize(self, style: Style) -> None:
        for nodes in (self._coarse_nodes, self._fine_nodes):
            for block, node in nodes.items():
                node.point_size = self._size(block, int(self.shown[block]), style)

    def _size(self, block: int, shown: int, style: Style) -> float:
        """Points that are spread thinner are drawn larger."""
        thinner = np.sqrt(self._blocks.counts[block] / max(shown, 1))
        return float(1.2 * style.size * self._spacings[block] * min(float(thinner), 8.0))

    def _send(
        self, nodes: dict[int, viser.PointCloudHandle], block: int, first: int, last: int, style: Style
    ) -> None:
        part = self._blocks.part(block, first, last)
        if style.clip is not None:
            whole, touched = style.clip.boxes(
                self._blocks.low[block : block + 1], self._blocks.high[block : block + 1]
            )
            if not whole[0]:
                part = part.rows(style.clip.inside(part.xyz) if touched[0] else slice(0, 0))
        if not len(part):
            if block in nodes:
                nodes.pop(block).remove()
            return
        center = self._blocks.centers[block]
        extent = float((self._blocks.high[block] - self._blocks.low[block]).max()) / 2
        half = precision_of(extent, float(self._spacings[block])) == "float16"
        kind = "coarse" if nodes is self._coarse_nodes else "fine"
        nodes[block] = self._client.scene.add_point_cloud(
            f"{ROOT}/{kind}{block}",
            part.xyz - center,
            cloud_colors(part, style.mode, style.ranges, style.errors),
            point_size=self._size(block, last, style),
            point_shape="circle",
            point_shading="flat",
            precision="float16" if half else "float32",
            position=center.astype(np.float64),
        )

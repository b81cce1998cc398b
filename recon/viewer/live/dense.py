"""The dense cloud as each browser draws it: as many points as its view needs and its budget allows."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import viser
from jaxtyping import Int64

from recon.viewer.live.clipping import ClipBox
from recon.viewer.live.colors import Ranges, cloud_colors
from recon.viewer.live.levels import Blocks, Eye, choose, precision_of

ROOT = "/dense"

_REST = 0.25
"""Seconds without movement after which details are fetched."""

_ALWAYS, _MOVING = 150_000, 1_000_000
"""Points that are always there, and those that a browser that draws quickly keeps while the camera moves."""

_SLOW_BUDGET = 1_000_000
"""Points at rest of a browser that draws slowly, as without a graphics card: a frame must not take seconds."""

_SLOW, _QUICK = 0.12, 0.05
"""Seconds between two frames of a moving camera from which on a browser is slow, and up to which it is quick again."""

_BATCH = 300_000
"""Points that are sent before it is looked again whether the camera has moved on."""


@dataclass(frozen=True)
class Style:
    """How the points are drawn.

    Attributes:
        mode: what the colours tell. ranges: ends of the colour maps. errors: distance from the truth.
        clip: what is shown, None for all. size: factor on the points' size. visible: whether they are drawn.
        budget: points while the camera rests.
    """

    mode: str
    ranges: Ranges
    errors: Callable[[np.ndarray], np.ndarray] | None = None
    clip: ClipBox | None = None
    size: float = 1.0
    visible: bool = True
    budget: int = 3_000_000


class ClientCloud:
    """The points that one browser shows.

    Each block has up to three nodes in the browser's scene: points that are always there, those that are there while
    the camera moves, and those that the view needs at rest. A thread of its own sends them, the nearest first.
    """

    def __init__(
        self, client: viser.ClientHandle, blocks: Blocks, style: Style, told: Callable[[int], None]
    ) -> None:
        self._client, self._blocks, self._style, self._told = client, blocks, style, told
        self._spacings = blocks.spacings
        self._change = threading.Condition()
        self._eye: Eye | None = None
        self._moved_at = 0.0
        self._frames: deque[float] = deque(maxlen=8)
        self._slow = False
        self._ended = False
        self._shares = [_half_of_halves(budget, len(blocks.cloud)) for budget in (_ALWAYS, _MOVING)]
        always, moving = (blocks.shares(share) for share in self._shares)
        self._upto = [
            always,
            moving,
            moving.copy(),
        ]  # points of each block up to the end of each of its nodes
        self._nodes: tuple[dict[int, viser.PointCloudHandle], ...] = ({}, {}, {})
        self._level = 1  # nodes up to this one are drawn
        self._root: viser.FrameHandle | None = None
        self._thread = threading.Thread(target=self._run, name="recon-view-points", daemon=True)
        self._thread.start()

    @property
    def shown(self) -> Int64[np.ndarray, " b"]:
        """Points of each block that are drawn."""
        return self._upto[self._level] if self._style.visible else np.zeros(len(self._blocks), np.int64)

    def look(self, eye: Eye) -> None:
        """The camera has moved."""
        with self._change:
            now = time.monotonic()
            if now - self._moved_at < 8 * _SLOW:
                self._frames.append(now - self._moved_at)
            if len(self._frames) >= 5:
                typical = float(np.median(self._frames))
                self._slow = typical > (_QUICK if self._slow else _SLOW)
            self._eye, self._moved_at = eye, now
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
        seen: Eye | None = None
        while True:
            with self._change:
                while not self._ended and drawn is self._style and seen is self._eye:
                    self._change.wait()
                if self._ended:
                    return
                style, eye, moved_at = self._style, self._eye, self._moved_at
            if drawn is not style:
                self._apply(style, drawn)
                drawn = style
            if eye is None or not style.visible:
                seen = eye
                continue
            rest = moved_at + _REST - time.monotonic()
            if rest > 0 and seen is not None:
                self._show_level(0 if self._slow else 1, style)
                with self._change:
                    self._change.wait(rest)
                continue
            if self._refine(style, eye):
                seen = eye

    # Changes of style

    def _apply(self, style: Style, before: Style | None) -> None:
        if self._root is None:
            self._root = self._client.scene.add_frame(ROOT, show_axes=False, visible=style.visible)
        self._root.visible = style.visible
        if not style.visible:
            self._told(0)
            return
        as_before = before is not None and any(self._nodes) and _alike(before, style)
        if as_before:
            self._resize(style)
            if before is not None and before.budget != style.budget and self._eye is not None:
                self._refine(style, self._eye)
        else:
            for nodes in range(3):
                sent = 0
                for block in self._order():
                    sent += self._send(nodes, block, style)
                    if sent > _BATCH:
                        sent = 0
                        if self._ended or self._style is not style:
                            return
        self._told(int(self.shown.sum()))

    def _order(self) -> list[int]:
        """Blocks, the nearest first."""
        if self._eye is None:
            return list(range(len(self._blocks)))
        distance = np.linalg.norm(self._blocks.centers - self._eye.center, axis=1)
        return [int(block) for block in np.argsort(distance, kind="stable")]

    # Changes of view

    def _show_level(self, level: int, style: Style) -> None:
        """Draw fewer or more of the nodes that are there."""
        if level == self._level:
            return
        self._level = level
        with self._client.atomic():
            for number, nodes in enumerate(self._nodes):
                for node in nodes.values():
                    node.visible = number <= level
            self._resize(style)
        self._told(int(self.shown.sum()))

    def _refine(self, style: Style, eye: Eye) -> bool:
        """Show what the view needs; False when the camera moved on before all was sent."""
        budget = min(style.budget, _SLOW_BUDGET) if self._slow else style.budget
        wanted = np.maximum(choose(self._blocks, eye, budget, self._shares[1]), self._upto[1])
        stale = wanted != self._upto[2]
        self._show_level(2, style)
        sent = 0
        for block in [one for one in self._order() if stale[one]]:
            self._upto[2][block] = wanted[block]
            sent += self._send(2, block, style)
            if sent > _BATCH:
                sent = 0
                if self._ended or self._style is not style or self._eye is not eye:
                    return False
        self._resize(style)
        self._told(int(self.shown.sum()))
        return True

    def _resize(self, style: Style) -> None:
        for nodes in self._nodes:
            for block, node in nodes.items():
                node.point_size = self._size(block, style)

    def _size(self, block: int, style: Style) -> float:
        """Points that are spread thinner are drawn larger."""
        thinner = np.sqrt(self._blocks.counts[block] / max(int(self._upto[self._level][block]), 1))
        return float(1.2 * style.size * self._spacings[block] * min(float(thinner), 8.0))

    def _send(self, number: int, block: int, style: Style) -> int:
        """Send a node of a block; returns the number of its points."""
        first = 0 if number == 0 else int(self._upto[number - 1][block])
        last = int(self._upto[number][block])
        part = self._blocks.part(block, first, last)
        low, high = self._blocks.low[block], self._blocks.high[block]
        if style.clip is not None and len(part):
            whole, touched = style.clip.boxes(low[None], high[None])
            if not whole[0]:
                part = part.rows(style.clip.inside(part.xyz) if touched[0] else slice(0, 0))
        nodes = self._nodes[number]
        if not len(part):
            if block in nodes:
                nodes.pop(block).remove()
            return 0
        center = (low + high) / 2
        half = precision_of(float((high - low).max()) / 2, float(self._spacings[block])) == "float16"
        nodes[block] = self._client.scene.add_point_cloud(
            f"{ROOT}/{number}-{block}",
            part.xyz - center,
            cloud_colors(part, style.mode, style.ranges, style.errors),
            point_size=self._size(block, style),
            point_shape="square" if len(self._blocks.cloud) > _MOVING else "circle",
            point_shading="flat",
            precision="float16" if half else "float32",
            position=center.astype(np.float64),
            visible=number <= self._level,
        )
        return len(part)


def _half_of_halves(budget: int, total: int) -> float:
    """The largest of 1, 1/2, 1/4, ... of the points that the budget allows."""
    return 1.0 if total <= budget else float(2.0 ** np.floor(np.log2(budget / total)))


def _alike(a: Style, b: Style) -> bool:
    """Whether two styles put the same points in the same colours."""
    return (a.mode, a.ranges, a.errors, a.clip) == (b.mode, b.ranges, b.errors, b.clip)

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

from recon.live.clipping import ClipBox
from recon.live.colors import Ranges, cloud_colors
from recon.live.levels import Blocks, Eye, choose, precision_of

ROOT = "/dense"

# Seconds without movement after which details are fetched.
_REST = 0.25

# Points that are always there, and those that a browser that draws quickly keeps while the camera moves.
_ALWAYS, _MOVING = 80_000, 1_000_000

# Seconds between two frames of a moving camera from which on a browser is slow.
_SLOW = 0.12

# Seconds that a frame may take while the camera rests: a browser without a graphics card is sent fewer points.
_LONGEST_AT_REST = 1.5

# Seconds that a browser takes to answer whatever it draws.
_ANSWER = 0.05

# Points that are sent before the browser has to have drawn them, and it is looked whether the camera has moved on.
_BATCH = 300_000

# Seconds to wait for a browser to draw.
_PATIENCE = 20.0


@dataclass(frozen=True)
class Style:
    """Looks of the points.

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

    Args:
        told: how many points are drawn, whenever that changes.
        ping: lets the browser tell its camera when it has drawn what was sent; ``look`` is called then.
        before: a coarser cloud of the same points; it is drawn until this one is there, and ends then.
    """

    def __init__(
        self,
        client: viser.ClientHandle,
        blocks: Blocks,
        style: Style,
        told: Callable[[int], None],
        ping: Callable[[], None],
        before: ClientCloud | None = None,
    ) -> None:
        self._client, self._blocks, self._style, self._told = client, blocks, style, told
        self._before = before
        self._ping, self._answers = ping, 0
        self._generation: int = 0 if before is None else before._generation + 1
        self._root_name = f"{ROOT}/{self._generation}"
        self._spacings = blocks.spacings
        self._change = threading.Condition()
        self._eye: Eye | None = None if before is None else before._eye
        self._moved_at = 0.0
        self._frames: deque[float] = deque(maxlen=8)
        self._per_point: float = 0.0 if before is None else before._per_point  # seconds of a frame
        self._slow: bool = False if before is None else before._slow
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
        self._groups: list[viser.FrameHandle] = []  # one for the nodes of each level
        self._thread = threading.Thread(target=self._run, name="recon-view-points", daemon=True)
        self._thread.start()

    @property
    def blocks(self) -> Blocks:
        """The points."""
        return self._blocks

    @property
    def shown(self) -> Int64[np.ndarray, " b"]:
        """Points of each block that are drawn."""
        return self._upto[self._level] if self._style.visible else np.zeros(len(self._blocks), np.int64)

    def look(self, eye: Eye) -> None:
        """The browser has told its camera: it has moved, or a frame is drawn."""
        with self._change:
            self._answers += 1
            self._change.notify_all()
            if self._eye is not None and _same(self._eye, eye):
                return
            now = time.monotonic()
            if now - self._moved_at < 8 * _SLOW:
                self._frames.append(now - self._moved_at)
            if len(self._frames) >= 5:
                self._slow |= float(np.median(self._frames)) > _SLOW
            self._eye, self._moved_at = eye, now

    def restyle(self, style: Style) -> None:
        """Draw the points in another way."""
        with self._change:
            self._style = style
            self._change.notify_all()

    def end(self) -> None:
        """The browser is gone."""
        if self._before is not None:
            self._before.end()
        with self._change:
            self._ended = True
            self._change.notify_all()

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
                if not self._apply(style, drawn):
                    drawn = None
                    continue
                drawn = style
            if eye is None or not style.visible:
                seen = eye
                continue
            rest = moved_at + self._pause() - time.monotonic()
            if rest > 0 and seen is not None:
                self._show_level(0 if self._slow else 1, style)
                with self._change:
                    self._change.wait(rest)
                continue
            if self._refine(style, eye):
                seen = eye

    # Changes of style

    def _apply(self, style: Style, before: Style | None) -> bool:
        """Draw the points as a style says; False when it was changed before all was sent."""
        if self._root is None:
            add = self._client.scene.add_frame
            self._root = add(self._root_name, show_axes=False, visible=style.visible)
            self._groups = [add(f"{self._root_name}/{level}", show_axes=False) for level in range(3)]
        self._root.visible = style.visible
        if not style.visible:
            self._replace()
            self._told(0)
            return True
        as_before = before is not None and any(self._nodes) and _alike(before, style)
        if as_before:
            self._resize(style)
            if before is not None and before.budget != style.budget and self._eye is not None:
                self._refine(style, self._eye)
        else:
            for level in range(3):
                if level == 1 and self._slow:
                    self._upto[1:] = [self._upto[0], self._upto[0].copy()]
                sent = 0
                for block in self._order():
                    sent += self._send(level, block, style)
                    if sent > _BATCH:
                        sent = 0
                        self._drawn()
                        if self._ended or self._style is not style:
                            return False
                if level == 0:
                    self._drawn()  # what follows must not keep this from being seen
                    self._replace()
                if sent:
                    self._measure(int(self._upto[level].sum()))
        self._told(int(self.shown.sum()))
        return True

    def _drawn(self) -> float:
        """Wait until the browser has drawn what was sent; seconds that it took."""
        began = time.monotonic()
        before = self._answers
        self._ping()
        with self._change:
            self._change.wait_for(lambda: self._ended or self._answers > before, _PATIENCE)
        return time.monotonic() - began

    def _measure(self, points: int) -> None:
        """See how long the browser takes for a frame with so many points."""
        self._drawn()  # its first frame with new points takes longer
        frame = (self._drawn() + self._drawn()) / 2
        self._per_point = max(frame - _ANSWER, 0.0) / max(points, 1)
        self._slow = self._per_point * min(_MOVING, len(self._blocks.cloud)) > _SLOW
        self._frames.clear()

    def _replace(self) -> None:
        """Take the coarser cloud away, now that there is something in its place."""
        before, self._before = self._before, None
        if before is not None:
            before.end()
            before._thread.join()
            if before._root is not None:
                before._root.remove()

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
            for number, group in enumerate(self._groups):
                group.visible = number <= level
            self._resize(style)
        self._told(int(self.shown.sum()))

    def _refine(self, style: Style, eye: Eye) -> bool:
        """Show what the view needs; False when the camera moved on before all was sent."""
        budget = self._budget(style)
        least = self._shares[0 if self._upto[1].sum() == self._upto[0].sum() else 1]
        wanted = np.maximum(choose(self._blocks, eye, budget, least), self._upto[1])
        stale = wanted != self._upto[2]
        self._show_level(2, style)
        sent = 0
        for block in [one for one in self._order() if stale[one]]:
            self._upto[2][block] = wanted[block]
            sent += self._send(2, block, style)
            if sent > _BATCH:
                sent = 0
                self._drawn()
                if self._ended or self._style is not style or self._eye is not eye:
                    return False
        self._resize(style)
        self._told(int(self.shown.sum()))
        if stale.any() or budget < style.budget:
            self._measure(int(wanted.sum()))
        return self._budget(style) < 2 * budget  # a browser that was busy has time for more now

    def _pause(self) -> float:
        """Seconds without a word from the browser after which the camera rests: drawing all points is no rest."""
        return _REST + min(2 * self._per_point * float(self._upto[2].sum()), _LONGEST_AT_REST)

    def _budget(self, style: Style) -> int:
        """Points while the camera rests."""
        return int(min(style.budget, _LONGEST_AT_REST / max(self._per_point, 1e-12)))

    def _resize(self, style: Style) -> None:
        for nodes in self._nodes[: self._level + 1]:
            for block, node in nodes.items():
                size = self._size(block, style)
                if size != node.point_size:
                    node.point_size = size

    def _size(self, block: int, style: Style) -> float:
        """Points that are spread thinner are drawn larger."""
        thinner = np.sqrt(self._blocks.counts[block] / max(int(self._upto[self._level][block]), 1))
        return float(1.2 * style.size * self._spacings[block] * min(float(thinner), 12.0))

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
            f"{self._root_name}/{number}/{block}",
            part.xyz - center,
            cloud_colors(part, style.mode, style.ranges, style.errors),
            point_size=self._size(block, style),
            point_shape="square" if len(self._blocks.cloud) > _MOVING else "circle",
            point_shading="flat",
            precision="float16" if half else "float32",
            position=center.astype(np.float64),
        )
        return len(part)


def _half_of_halves(budget: int, total: int) -> float:
    """The largest of 1, 1/2, 1/4, ... of the points that the budget allows."""
    return 1.0 if total <= budget else float(2.0 ** np.floor(np.log2(budget / total)))


def _same(a: Eye, b: Eye) -> bool:
    """Compare two cameras; asked for it, a browser tells its field of view a little changed."""
    still = np.array_equal(a.center, b.center) and np.array_equal(a.axis, b.axis)
    # A browser that is slow draws smaller pictures of the same shape.
    shape = abs(a.width / max(a.height, 1) - b.width / max(b.height, 1)) < 0.01
    return still and shape and abs(a.fov - b.fov) < 1e-3 * a.fov


def _alike(a: Style, b: Style) -> bool:
    """True where two styles put the same points in the same colours."""
    return (a.mode, a.ranges, a.errors, a.clip) == (b.mode, b.ranges, b.errors, b.clip)

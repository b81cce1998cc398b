"""Which photos came and went since an earlier run, told by keys of their content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_MOST_CHANGED = 0.1
"""Share of the photos that may have come or gone since tracks and model were made from nothing."""


@dataclass(frozen=True)
class PhotoChanges:
    """Photos of an earlier run and of this one.

    Attributes:
        now: ids of the photos that stayed, by their ids before.
        new: ids of those that came.
        gone: ids before of those that went.
    """

    now: Mapping[int, int]
    new: tuple[int, ...]
    gone: tuple[int, ...]

    @property
    def count(self) -> int:
        """Photos that came or went."""
        return len(self.new) + len(self.gone)

    def few(self, earlier: int = 0) -> bool:
        """Whether something changed, but no more than a tenth of the photos that stayed.

        In small sets each photo matters to all others, and little is saved.

        Args:
            earlier: photos that came and went in runs before that went on from each other.
        """
        return self.count > 0 and self.count + earlier <= _MOST_CHANGED * len(self.now)


def photo_changes(before: Sequence[str], now: Sequence[str]) -> PhotoChanges | None:
    """Compare the photos of two runs, by the keys of each in the order of their ids.

    Returns:
        None where two photos of a run are the same, so that keys do not tell them apart.
    """
    if len(set(before)) < len(before) or len(set(now)) < len(now):
        return None
    ids = {key: number for number, key in enumerate(now)}
    stayed = {number: ids[key] for number, key in enumerate(before) if key in ids}
    new = tuple(sorted(set(ids.values()) - set(stayed.values())))
    return PhotoChanges(stayed, new, tuple(sorted(set(range(len(before))) - stayed.keys())))

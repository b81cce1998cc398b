"""Dataset cards: where a public scene comes from, under which licence, and what lies where."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from recon.errors import ReconError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_CARDS = Path(__file__).resolve().parents[2] / "datasets"
_TEXTS = ("name", "origin", "licence", "citation", "path", "ground_truth", "convention")


@dataclass(frozen=True)
class Card:
    """What is known of a data set.

    Attributes:
        name: of the scene.
        origin: where it was published.
        licence: terms, or what stands in their place.
        citation: the paper to cite.
        path: its folder under ``datasets/`` of the data root.
        ground_truth: what is known of it, and how well.
        convention: of its cameras; empty without.
        layout: role ("images", "cameras") to path inside the folder.
    """

    name: str
    origin: str
    licence: str
    citation: str
    path: str
    ground_truth: str
    convention: str
    layout: Mapping[str, str]

    def folder(self, root: Path | None = None) -> Path:
        """The scene's folder under the data root (``RECON_DATA`` if none is given).

        Raises:
            ReconError: there is no data root, or the scene is not in it.
        """
        if root is None:
            named = os.environ.get("RECON_DATA")
            if not named:
                raise ReconError("set RECON_DATA to the folder that holds datasets/")
            root = Path(named)
        folder = Path(root) / "datasets" / self.path
        if not folder.is_dir():
            raise ReconError(f"{folder}: {self.name} is not there; its origin is {self.origin}")
        return folder


def load_cards(folder: Path | None = None) -> dict[str, Card]:
    """Read all cards, by name.

    Args:
        folder: with one TOML file per data set; None for the project's own.

    Raises:
        UsageError: a card cannot be read, or lacks a key.
    """
    cards = {}
    for path in sorted(Path(folder or _CARDS).glob("*.toml")):
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"{path}: cannot be read: {error}") from error
        missing = [key for key in (*_TEXTS, "layout") if key not in document]
        if missing:
            raise UsageError(f"{path}: lacks {', '.join(missing)}")
        texts = {key: str(document[key]) for key in _TEXTS}
        layout = {str(role): str(where) for role, where in document["layout"].items()}
        cards[texts["name"]] = Card(**texts, layout=layout)
    return cards


def load_card(name: str, folder: Path | None = None) -> Card:
    """Read one card.

    Raises:
        UsageError: there is no such card.
    """
    cards = load_cards(folder)
    if name not in cards:
        raise UsageError(f"no card for {name!r}; there are: {', '.join(sorted(cards))}")
    return cards[name]

"""The plan of a comparison: the scene, the contenders, and the settings that all of them share."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recon.datasets.cards import Card, load_cards
from recon.datasets.ground_truth import GroundTruth, has_ground_truth, load_ground_truth
from recon.engine.recipe import available_recipes
from recon.errors import ReconError, UsageError
from recon.matching.registry import FAMILIES, available_matchers

_LABEL = re.compile(r"[\w.+-]+\Z")


@dataclass(frozen=True)
class Contender:
    """One way of reconstructing.

    Attributes:
        label: its name in tables and its folder.
        recipe: the recipe that it starts from.
        overrides: settings on top, each "section.key=value".
        matcher: the matcher's name, empty where the recipe decides.
    """

    label: str
    recipe: str
    overrides: tuple[str, ...] = ()
    matcher: str = ""


@dataclass(frozen=True)
class Scene:
    """Photos and what is known of them.

    Attributes:
        name: for titles.
        photos: the folder of photos.
        truth: what is known; None for photos alone.
        truth_place: the folder or file that the truth was read from.
        masks: folder of masks of the photos, None for none.
    """

    name: str
    photos: Path
    truth: GroundTruth | None = None
    truth_place: Path | None = None
    masks: Path | None = None


def contenders(
    names: Iterable[str], overrides: Iterable[str] = (), recipe: str = "siftflow"
) -> tuple[Contender, ...]:
    """The contenders that a user names.

    Args:
        names: each a registered matcher, which takes the place of the recipe's own, or a recipe (its name in
            ``pipelines/`` or its path); "LABEL=NAME" gives it another label.
        overrides: "section.key=value" for all, "LABEL:section.key=value" for one of them.
        recipe: what the matchers are put into.

    Raises:
        UsageError: an unknown or repeated name; the message lists close ones.
    """
    matchers, recipes = available_matchers(), available_recipes()
    texts = tuple(overrides)
    found: dict[str, Contender] = {}
    for text in names:
        text = text.strip()
        if not text:
            continue
        label, equals, name = text.partition("=")
        name = name if equals else text
        own: tuple[str, ...] = ()
        if name in matchers or name.partition(":")[0] in FAMILIES:
            base, own, matcher = recipe, (f"match.matcher={name}",), name
        elif name in recipes or name.endswith(".toml"):
            base, matcher = name, ""
        else:
            known = sorted({*matchers, *recipes})
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise UsageError(
                f"--matchers {text}: no matcher or recipe is called {name!r}{hint}; matchers: "
                f"{', '.join(matchers)}; recipes: {', '.join(recipes)}"
            )
        label = (
            label.strip() if equals else Path(name).stem if name.endswith(".toml") else name.replace(":", "-")
        )
        if not _LABEL.match(label):
            raise UsageError(f"--matchers {text}: a label has letters, digits and . + - _ only")
        if label in found:
            raise UsageError(f"--matchers: {label!r} is there twice; name one of them LABEL={name}")
        found[label] = Contender(label, base, own, matcher)
    if not found:
        raise UsageError("--matchers: name at least one, for example --matchers siftflow,dis")
    common, special = _sort_overrides(texts, found)
    return tuple(
        Contender(c.label, c.recipe, (*c.overrides, *common, *special[c.label]), c.matcher)
        for c in found.values()
    )


def _sort_overrides(
    texts: Sequence[str], labels: Iterable[str]
) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    known = list(labels)
    common: list[str] = []
    special: dict[str, list[str]] = {label: [] for label in known}
    for text in texts:
        label, colon, rest = text.partition("=")[0].partition(":")
        if not colon:
            common.append(text)
            continue
        if label not in special:
            raise UsageError(f"--set {text}: no contender is called {label!r}; there are: {', '.join(known)}")
        special[label].append(rest + text[text.index("=") :] if "=" in text else rest)
    return tuple(common), {label: tuple(own) for label, own in special.items()}


def find_scene(place: str | Path, truth: str | Path | None = None, masks: str | Path | None = None) -> Scene:
    """The scene that a user names.

    Args:
        place: a folder of photos, a folder (or ``cameras.json``) of a scene with ground truth, or the name of a data
            set that has a card.
        truth: where the truth of a plain folder of photos is.
        masks: folder of masks.

    Raises:
        UsageError: there is no such folder or data set. ReconError: its truth cannot be read.
    """
    folder = Path(place).expanduser()
    mask_folder = None if masks is None else Path(masks)
    known = None if truth is None else Path(truth).expanduser()
    resolved = folder.resolve()
    name = resolved.parent.name if resolved.name == "images" else resolved.name
    if not folder.exists():
        card, folder = _data_set(str(place))
        name = card.name
        if known is None and not has_ground_truth(folder) and "images" in card.layout:
            return Scene(name, folder / card.layout["images"], masks=mask_folder)
    if known is None and has_ground_truth(folder):
        known = folder
    if known is None:
        if not folder.is_dir():
            raise UsageError(f"{folder}: is a file; give the folder that holds the photos")
        return Scene(name, folder, masks=mask_folder)
    found = load_ground_truth(known)
    photos = folder if truth is not None else found.images
    if truth is not None and has_ground_truth(folder):
        photos = load_ground_truth(folder).images
    if not photos.is_dir():
        raise ReconError(f"{photos}: the scene {found.name} has no photos there")
    return Scene(name if folder.is_dir() else found.name, photos, found, known, mask_folder)


def _data_set(name: str) -> tuple[Card, Path]:
    cards = load_cards()
    if name not in cards:
        close = difflib.get_close_matches(name, list(cards), n=1, cutoff=0.5)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise UsageError(
            f"{name}: there is no such folder, and no data set of this name{hint}; data sets: "
            f"{', '.join(sorted(cards))}"
        )
    beside = Path(__file__).resolve().parents[3] / "shared"
    if not os.environ.get("RECON_DATA") and (beside / "datasets").is_dir():
        return cards[name], cards[name].folder(beside)
    return cards[name], cards[name].folder()

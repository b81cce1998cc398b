"""Dataset cards: where a public scene comes from, under which licence, how to get it, and what lies where."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recon.errors import ReconError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TEXTS = ("name", "origin", "licence", "citation", "path", "ground_truth", "convention")
_OPTIONAL = ("size", "obtain")
_OTHERS = ("layout", "scenes", "files")
_FILE_KEYS = ("url", "base", "names", "to", "bytes", "sha256", "unpack", "strip", "part")
_ARCHIVES = ("zip", "tar", "7z")


@dataclass(frozen=True)
class RemoteFile:
    """One file that can be downloaded.

    Attributes:
        url: where it is.
        to: path below the data set's folder: of the file, or of the folder that an archive is unpacked into.
        bytes: its size if it is known for certain.
        sha256: its checksum if it is known for certain.
        unpack: "zip", "tar" (also compressed), "7z", or empty.
        strip: leading folders of the archive's paths that are dropped.
        part: empty for what is always fetched, otherwise the name of a part that has to be asked for.
    """

    url: str
    to: str
    bytes: int | None = None
    sha256: str | None = None
    unpack: str = ""
    strip: int = 0
    part: str = ""


@dataclass(frozen=True)
class Card:
    """A data set: origin, terms, truth, and what can be fetched.

    Attributes:
        name: of the scene; ``NAME/SCENE`` for one scene of a card with scenes.
        origin: where it was published.
        licence: terms, or what stands in their place.
        citation: the paper to cite.
        path: its folder under ``datasets/`` of the data root.
        ground_truth: what is known of it, and how well.
        convention: of its cameras; empty without.
        layout: role ("images", "cameras") to path inside the folder.
        size: of what is fetched, in words.
        obtain: what a person has to do where a download is not possible.
        scenes: names that ``{scene}`` stands for; empty without.
        files: what can be downloaded.
    """

    name: str
    origin: str
    licence: str
    citation: str
    path: str
    ground_truth: str
    convention: str
    layout: Mapping[str, str]
    size: str = ""
    obtain: str = ""
    scenes: tuple[str, ...] = ()
    files: tuple[RemoteFile, ...] = field(default=())

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts that are fetched only when asked for."""
        return tuple(sorted({one.part for one in self.files if one.part}))

    @property
    def verified(self) -> str:
        """The share of what is fetched that can be verified, in words."""
        known = sum(one.sha256 is not None for one in self.files)
        if not self.files:
            return ""
        if known == len(self.files):
            return "all files have a checksum"
        if not known:
            return "no checksum is known: fetch cannot verify what comes"
        return f"{known} of {len(self.files)} files have a checksum; fetch cannot verify the others"

    def is_here(self, root: Path | None = None) -> bool:
        """Tell whether its folder holds anything but downloads that were cut off."""
        folder = self.target(root)
        return folder.is_dir() and any(
            path.is_file() and not path.name.startswith(".") and path.suffix not in (".part", ".tag")
            for path in folder.rglob("*")
        )

    def of_scene(self, scene: str) -> Card:
        """The card of one of its scenes: ``{scene}`` is filled in.

        Raises:
            UsageError: it has no such scene.
        """
        if scene not in self.scenes:
            raise UsageError(f"{self.name} has no scene {scene!r}; there are: {', '.join(self.scenes)}")

        def filled(text: str) -> str:
            return text.replace("{scene}", scene)

        return replace(
            self,
            name=f"{self.name}/{scene}",
            path=filled(self.path),
            obtain=filled(self.obtain),
            layout={role: filled(where) for role, where in self.layout.items()},
            scenes=(),
            files=tuple(replace(one, url=filled(one.url), to=filled(one.to)) for one in self.files),
        )

    def target(self, root: Path | None = None) -> Path:
        """Locate its folder, there or not, under the data root (``RECON_DATA`` if none is given).

        Raises:
            ReconError: there is no data root.
        """
        return (root if root is not None else data_root()) / "datasets" / self.path

    def folder(self, root: Path | None = None) -> Path:
        """The scene's folder under the data root (``RECON_DATA`` if none is given).

        Raises:
            ReconError: there is no data root, or the scene is not in it.
        """
        folder = self.target(root)
        if not self.is_here(root):
            raise ReconError(
                f"{folder}: {self.name} is not there; 'recon datasets fetch {self.name}' gets it or says how to, "
                f"and its origin is {self.origin}"
            )
        return folder


def data_root() -> Path:
    """The folder that holds ``datasets/``: ``RECON_DATA``.

    Raises:
        ReconError: it is not set.
    """
    named = os.environ.get("RECON_DATA")
    if not named:
        raise ReconError("set RECON_DATA to the folder that holds datasets/")
    return Path(named).expanduser()


def card_folders() -> list[Path]:
    """Folders of cards: the installed package's, or the checkout's ``datasets``."""
    import recon

    package = Path(recon.__file__).resolve().parent
    installed = package / "cards"
    return [installed if installed.is_dir() else package.parent / "datasets"]


def load_cards(folder: Path | None = None) -> dict[str, Card]:
    """Read all cards, by name.

    Args:
        folder: with one TOML file per data set; None for the project's own.

    Raises:
        UsageError: a card cannot be read, lacks a key, or has one that is not known.
    """
    folders = [Path(folder)] if folder is not None else card_folders()
    cards: dict[str, Card] = {}
    for place in folders:
        for path in sorted(place.glob("*.toml")):
            card = _read_card(path)
            cards.setdefault(card.name, card)
    return dict(sorted(cards.items(), key=lambda item: item[0].lower()))


def load_card(name: str, folder: Path | None = None) -> Card:
    """Read one card, or one scene of a card with scenes (``NAME/SCENE``).

    Raises:
        UsageError: there is no such card or scene.
    """
    cards = load_cards(folder)
    if name in cards:
        return cards[name]
    head, _, scene = name.partition("/")
    if scene and head in cards and cards[head].scenes:
        return cards[head].of_scene(scene)
    raise UsageError(f"no card for {name!r}; there are: {', '.join(cards)}")


def find_scene(name: str | Path, root: Path | None = None) -> Path:
    """The folder of a scene that is given by its path or by the name of its card.

    Raises:
        UsageError: it is neither a folder nor the name of a card.
        ReconError: there is a card, but the data are not there, or no data root is set.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    try:
        card = load_card(str(name))
    except UsageError as error:
        raise UsageError(f"{name}: no such folder; and {error}") from error
    if card.scenes:
        raise UsageError(f"{card.name} has scenes; name one, like {card.name}/{card.scenes[0]}")
    return card.folder(root)


def _read_card(path: Path) -> Card:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    missing = [key for key in (*_TEXTS, "layout") if key not in document]
    if missing:
        raise UsageError(f"{path}: lacks {', '.join(missing)}")
    unknown = sorted(set(document) - {*_TEXTS, *_OPTIONAL, *_OTHERS})
    if unknown:
        raise UsageError(f"{path}: does not know {', '.join(unknown)}")
    return Card(
        **{key: str(document[key]) for key in _TEXTS},
        layout={str(role): str(where) for role, where in document["layout"].items()},
        **{key: str(document.get(key, "")) for key in _OPTIONAL},
        scenes=tuple(str(scene) for scene in document.get("scenes", ())),
        files=tuple(one for entry in document.get("files", ()) for one in _files(path, entry)),
    )


def _files(path: Path, entry: Mapping[str, Any]) -> list[RemoteFile]:
    """One ``[[files]]`` table: a ``url``, or a ``base`` with many ``names`` below it."""
    unknown = sorted(set(entry) - set(_FILE_KEYS))
    if unknown:
        raise UsageError(f"{path}: files do not know {', '.join(unknown)}")
    if ("url" in entry) == ("base" in entry and "names" in entry):
        raise UsageError(f"{path}: files need a url, or base and names")
    unpack = str(entry.get("unpack", ""))
    if unpack and unpack not in _ARCHIVES:
        raise UsageError(f"{path}: unpack is one of {', '.join(_ARCHIVES)}, not {unpack!r}")
    names = [str(name) for name in entry.get("names", ())]
    sums = entry.get("sha256")
    checksums: Sequence[Any] = sums if isinstance(sums, list) else [sums] * (len(names) or 1)
    to = str(entry.get("to", ""))
    common: dict[str, Any] = {
        "unpack": unpack,
        "strip": int(entry.get("strip", 0)),
        "part": str(entry.get("part", "")),
    }
    if not names:
        url = str(entry["url"])
        where = to if unpack else to or url.rsplit("/", 1)[-1]
        size = int(entry["bytes"]) if "bytes" in entry else None
        return [RemoteFile(url, where, size, _sum(checksums[0]), **common)]
    if len(checksums) != len(names):
        raise UsageError(f"{path}: {len(names)} names and {len(checksums)} checksums")
    base = str(entry["base"])
    return [
        RemoteFile(base + name, f"{to}/{name}" if to else name, None, _sum(checksum), **common)
        for name, checksum in zip(names, checksums, strict=True)
    ]


def _sum(value: Any) -> str | None:
    return str(value).lower() if value else None

"""Downloads of data sets: resumed, verified where a checksum is known, unpacked, and never half in place."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from recon.datasets.cards import Card, RemoteFile
from recon.errors import ReconError, UsageError
from recon.io.download import Progress, discard, download, file_name
from recon.io.files import file_sha256, read_texts

_RECORD = ".fetched.json"


@dataclass(frozen=True)
class Fetched:
    """Outcome of a fetch.

    Attributes:
        folder: of the data set.
        downloaded: names of the files that were downloaded now.
        kept: names of the files that were there already.
        unverified: names of those files for which no checksum is known.
    """

    folder: Path
    downloaded: tuple[str, ...]
    kept: tuple[str, ...]
    unverified: tuple[str, ...]


def fetch(
    card: Card,
    root: Path,
    parts: Iterable[str] = (),
    progress: Progress | None = None,
    pause: float = 1.0,
    timeout: float = 30.0,
) -> Fetched:
    """Download a data set into its folder under a data root.

    What is there already is kept; a download that was cut off goes on where it stopped. A file is in its place
    only when it is whole, and verified where the card has a checksum.

    Args:
        card: of one scene.
        root: data root.
        parts: names of optional parts to fetch too (``card.parts``).
        progress: told how far each file is.
        pause: seconds before the first of up to four further tries; doubled each time.
        timeout: seconds without an answer after which a connection is given up.

    Raises:
        UsageError: the card has scenes and none was chosen, or has no such part.
        ReconError: there is no download; or it failed, and the message says what to put where by hand.
    """
    if card.scenes:
        raise UsageError(f"{card.name} has scenes; name one, like {card.name}/{card.scenes[0]}")
    unknown = sorted(set(parts) - set(card.parts))
    if unknown:
        there = ", ".join(card.parts) or "none"
        raise UsageError(f"{card.name} has no part {', '.join(unknown)}; there are: {there}")
    folder = card.target(root)
    if not card.files:
        raise ReconError(by_hand(card, root))
    wanted = [one for one in card.files if not one.part or one.part in set(parts)]
    record = read_texts(folder / _RECORD)
    downloaded, kept = [], []
    for one in wanted:
        name = one.url.rsplit("/", 1)[-1]
        if _is_there(one, folder, record):
            kept.append(name)
            continue
        try:
            _get(one, folder, progress, pause, timeout)
        except (OSError, http.client.HTTPException) as error:
            raise ReconError(_failed(card, root, one, error)) from error
        downloaded.append(name)
        record[one.url] = one.to
        _write_record(folder, record)
    unverified = tuple(one.url.rsplit("/", 1)[-1] for one in wanted if one.sha256 is None)
    return Fetched(folder, tuple(downloaded), tuple(kept), unverified)


def by_hand(card: Card, root: Path) -> str:
    """Say what to put where for a data set that cannot be downloaded here."""
    folder = card.target(root)
    lines = [f"{card.name}: put it into {folder}"]
    if card.obtain:
        lines.append(card.obtain)
    lines += _instructions([one for one in card.files if not one.part], folder)
    lines.append(f"origin: {card.origin}")
    lines.append(f"licence: {card.licence}")
    return "\n".join(lines)


def _instructions(files: Iterable[RemoteFile], folder: Path) -> list[str]:
    """A line per archive, and a line per folder of single files."""
    lines = []
    together: dict[tuple[str, Path], list[str]] = {}
    for one in files:
        if one.unpack:
            without = f" without the first {one.strip} folder{'s' * (one.strip > 1)}" if one.strip else ""
            lines.append(f"  {one.url}  unpacked{without} into  {folder / one.to if one.to else folder}")
        else:
            base, _, name = one.url.rpartition("/")
            together.setdefault((base, (folder / one.to).parent), []).append(name)
    for (base, into), names in together.items():
        which = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]} ({len(names)} files)"
        lines.append(f"  {base}/  {which}  into  {into}")
    return lines


def _failed(card: Card, root: Path, one: RemoteFile, error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    text = f"{one.url}: cannot be fetched ({reason}); the same command again goes on where this one stopped"
    return f"{text}\nwithout a network:\n{by_hand(card, root)}"


# ---- one file ------------------------------------------------------------------------------------


def _is_there(one: RemoteFile, folder: Path, record: dict[str, str]) -> bool:
    if one.unpack:
        return one.url in record
    path = folder / one.to
    if not path.is_file():
        return False
    if one.sha256 is not None:
        return file_sha256(path) == one.sha256
    return one.bytes is None or path.stat().st_size == one.bytes


def _get(one: RemoteFile, folder: Path, progress: Progress | None, pause: float, timeout: float) -> None:
    """Download, verify, and move or unpack into place."""
    place = folder / (one.to or ".")
    archive = folder / file_name(one.url) if one.unpack else place
    if not one.unpack:
        _inside(folder, one.to)
    archive.parent.mkdir(parents=True, exist_ok=True)
    part = archive.with_name(archive.name + ".part")
    download(one.url, part, progress, size=one.bytes, sha256=one.sha256, pause=pause, timeout=timeout)
    if one.unpack:
        unpack(part, one.unpack, place, one.strip)
    else:
        os.replace(part, place)
    discard(part)


# ---- archives ------------------------------------------------------------------------------------


def unpack(archive: Path, kind: str, into: Path, strip: int = 0) -> None:
    """Unpack an archive; its files come into place only when all of them are unpacked.

    Args:
        archive: the file.
        kind: "zip", "tar" or "7z"; the last needs one of the programs 7z, 7zz, 7za, 7zr or bsdtar.
        into: folder.
        strip: leading folders of the paths that are dropped.

    Raises:
        ReconError: the archive is damaged, points outside the folder, or no program can unpack it.
    """
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=into) as name:
        place = Path(name)
        try:
            if kind == "zip":
                with zipfile.ZipFile(archive) as opened:
                    for member in opened.namelist():
                        _inside(place, member)
                    opened.extractall(place)
            elif kind == "tar":
                with tarfile.open(archive) as opened_tar:
                    for entry in opened_tar.getmembers():
                        _inside(place, entry.name)
                        if not (entry.isfile() or entry.isdir()):
                            raise ReconError(
                                f"{archive}: holds {entry.name}, which is neither file nor folder"
                            )
                    # Owners and rights of the archive are not wanted; older Pythons do not know the filter.
                    safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
                    opened_tar.extractall(place, **safely)
            else:
                _unpack_7z(archive, place)
        except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
            raise ReconError(f"{archive}: is damaged ({error}); remove it and fetch again") from error
        for path in sorted(place.rglob("*")):
            relative = path.relative_to(place)
            if path.is_symlink():
                raise ReconError(f"{archive}: holds the link {relative}")
            if path.is_file() and len(relative.parts) > strip:
                target = into.joinpath(*relative.parts[strip:])
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)


def _unpack_7z(archive: Path, place: Path) -> None:
    for program in ("7z", "7zz", "7za", "7zr"):
        found = shutil.which(program)
        if found:
            command = [found, "x", "-y", f"-o{place}", str(archive)]
            break
    else:
        found = shutil.which("bsdtar")
        if not found:
            raise ReconError(
                f"{archive}: is a 7z archive; install 7-Zip (Debian: p7zip-full) or bsdtar (libarchive-tools) and "
                "give the same command again: the download is kept"
            )
        command = [found, "-xf", str(archive), "-C", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ReconError(f"{archive}: cannot be unpacked: {done.stderr.strip() or done.stdout.strip()}")


def _inside(folder: Path, name: str) -> None:
    """Refuse paths that lead out of a folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in (path.parts[0] if path.parts else ""):
        raise ReconError(f"{name}: leads out of {folder}")


# ---- what was fetched ----------------------------------------------------------------------------


def _write_record(folder: Path, record: dict[str, str]) -> None:
    part = folder / f"{_RECORD}.part"
    part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(part, folder / _RECORD)

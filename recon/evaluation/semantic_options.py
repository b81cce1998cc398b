"""Options of a benchmark of semantic correspondence."""

from __future__ import annotations

from dataclasses import dataclass

from recon.options import option

METHODS = ("dhpf", "hpf", "hpf+mutual", "nn", "nn+rhm", "sift-nn")

BACKBONES = "mobilenetv2, efficientnet-lite0, resnet50, resnet101 or dinov2-vits14"
WEIGHTS_HELP = "ImageNet weights of the backbone: a file or folder."
DOWNLOAD_HELP = "Fetch missing ImageNet weights, with checksum."
LIMIT_HELP = "Only that many pairs, evenly spread; 0: all."


@dataclass(frozen=True)
class SemanticOptions:
    """Options for matching and judging a benchmark's pairs."""

    method: str = option(
        "dhpf",
        "dhpf, hpf, hpf+mutual (with DHPF's mutual filter), nn (nearest neighbour), nn+rhm or sift-nn; or a dense "
        "matcher (matcher:NAME where a method has that name too, as matcher:dhpf).",
    )
    protocol: str = option(
        "common",
        "How images and points are brought to the network: common (one way for all), or authors (of dhpf and hpf, as "
        "their releases do).",
    )
    split: str = option("test", "trn, val or test.")
    backbone: str = option("", f"{BACKBONES}; empty: the checkpoint's.")
    checkpoint: str = option("", "Of DHPF: ours (.safetensors) or the authors'; empty: the shipped one.")
    weights: str = option("", WEIGHTS_HELP)
    layers: str = option("", "Of hpf, hpf+mutual, nn and nn+rhm: numbers of the layers, with commas.")
    download: bool = option(False, DOWNLOAD_HELP, flags=("--download",))
    alpha: tuple[float, ...] = option((0.05, 0.1, 0.15), "Shares of the reference length; may be repeated.")
    threshold: str = option(
        "",
        "PCK by image, box, or padded-box (DHPF's release on PF-WILLOW, looser); empty: as the benchmark defines it.",
    )
    limit: int = option(0, LIMIT_HELP, min=0)
    device: str = option("cpu", "cpu or cuda.")

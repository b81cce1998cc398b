"""DINOv2 ViT-S/14 with random weights in the official layout, against its formulas written out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from recon.errors import UsageError
from recon.hyperpixels.backbones import create_backbone
from recon.matching.hyperpixel_weights import load_backbone
from recon.matching.registry import create_matcher
from recon.matching.types import MatchImage, PairContext
from tests.support.matcher_contract import textured

BLOCK = {
    "norm1.weight": (384,), "norm1.bias": (384,), "attn.qkv.weight": (1152, 384), "attn.qkv.bias": (1152,),
    "attn.proj.weight": (384, 384), "attn.proj.bias": (384,), "ls1.gamma": (384,), "norm2.weight": (384,),
    "norm2.bias": (384,), "mlp.fc1.weight": (1536, 384), "mlp.fc1.bias": (1536,), "mlp.fc2.weight": (384, 1536),
    "mlp.fc2.bias": (384,), "ls2.gamma": (384,),
}  # fmt: skip


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Random weights under the names and with the shapes of the official file."""
    shapes = {
        "cls_token": (1, 1, 384),
        "pos_embed": (1, 1370, 384),
        "mask_token": (1, 384),
        "patch_embed.proj.weight": (384, 3, 14, 14),
        "patch_embed.proj.bias": (384,),
        "norm.weight": (384,),
        "norm.bias": (384,),
    }
    shapes |= {f"blocks.{i}.{name}": shape for i in range(12) for name, shape in BLOCK.items()}
    generator = torch.Generator().manual_seed(0)
    return {name: 0.06 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def file(state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("dino") / "dinov2_vits14_pretrain.pth"
    torch.save(state, path)
    return str(path)


def cubic(at: float) -> np.ndarray:
    """Weights of the four pixels round a position whose fraction is ``at`` (Keys, a = -0.75)."""
    out = []
    for distance in (1 + at, at, 1 - at, 2 - at):
        if distance <= 1:
            out.append(1.25 * distance**3 - 2.25 * distance**2 + 1)
        else:
            out.append(-0.75 * (distance**3 - 5 * distance**2 + 8 * distance - 4))
    return np.array(out)


def positions(table: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The 37 x 37 places resampled; sizes count a tenth of a patch more, as in the release."""
    grid = table.reshape(37, 37, 384)
    for axis, count in enumerate((rows, columns)):
        lines = []
        for i in range(count):
            at = (i + 0.5) * 37 / (count + 0.1) - 0.5
            low = math.floor(at)
            taps = np.clip(np.arange(low - 1, low + 3), 0, 36)
            lines.append(np.tensordot(cubic(at - low), np.take(grid, taps, axis), (0, axis)))
        grid = np.stack(lines, axis)
    return grid.reshape(-1, 384)


def by_hand(state: dict[str, torch.Tensor], image: np.ndarray, blocks: int) -> np.ndarray:
    """Tokens after so many blocks, of an image of whole patches."""
    w = {name: value.double().numpy() for name, value in state.items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(1, keepdims=True)
        return (
            centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-6) * w[f"{name}.weight"]
            + w[f"{name}.bias"]
        )

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    rows, columns = image.shape[1] // 14, image.shape[2] // 14
    cut = image.reshape(3, rows, 14, columns, 14).transpose(1, 3, 0, 2, 4).reshape(rows * columns, -1)
    tokens = cut @ w["patch_embed.proj.weight"].reshape(384, -1).T + w["patch_embed.proj.bias"]
    tokens += positions(w["pos_embed"][0, 1:], rows, columns)
    x = np.vstack([w["cls_token"][0] + w["pos_embed"][0, :1], tokens])
    for k in range(blocks):
        name = f"blocks.{k}"
        qkv = linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv")
        heads = []
        for head in range(6):
            q, key, v = (qkv[:, 384 * part + 64 * head : 384 * part + 64 * head + 64] for part in range(3))
            weights = np.exp(q @ key.T / 8)
            heads.append(weights / weights.sum(1, keepdims=True) @ v)
        x = x + w[f"{name}.ls1.gamma"] * linear(np.hstack(heads), f"{name}.attn.proj")
        wide = linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")
        wide = wide * (1 + np.vectorize(math.erf)(wide / math.sqrt(2))) / 2
        x = x + w[f"{name}.ls2.gamma"] * linear(wide, f"{name}.mlp.fc2")
    return x[1:].T.reshape(384, rows, columns)


def test_blocks_are_those_of_the_formulas(state: dict[str, torch.Tensor]) -> None:
    backbone = create_backbone("dinov2-vits14")
    backbone.load(state, "file")
    image = torch.randn(1, 3, 35, 49, generator=torch.Generator().manual_seed(1))
    found = backbone.features(image, {0, 11})
    assert set(found) == {0, 11}
    # Seven pixels of rim before the image, and what fills the last patch.
    whole = np.pad(image[0].double().numpy(), ((0, 0), (7, 0), (7, 0)), mode="edge")
    for number in (0, 11):
        expected = by_hand(state, whole, number + 1)
        np.testing.assert_allclose(found[number][0].numpy(), expected, rtol=1e-3, atol=1e-4)
        assert np.abs(expected).max() > 0.1


def test_every_weight_of_the_official_layout_counts(state: dict[str, torch.Tensor]) -> None:
    """Its own names and shapes; the token for masks and the norm behind the last block make no layer."""
    backbone = create_backbone("dinov2-vits14")
    own = {name.replace("blocks_.", "blocks."): value.shape for name, value in backbone.state_dict().items()}
    assert own == {
        name: value.shape
        for name, value in state.items()
        if name not in ("mask_token", "norm.weight", "norm.bias")
    }


def test_it_matches_behind_hpf_from_a_local_file(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matcher = create_matcher("hpf", backbone="dinov2-vits14", weights=file, layers="0,1")
    image = MatchImage(textured(96, 128))
    side = matcher.prepare(image)
    flow = matcher.match(side, side, PairContext()).a_to_b.flow
    assert np.median(np.linalg.norm(flow, axis=-1)) < 0.5
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("RECON_DATA", raising=False)
    with pytest.raises(UsageError, match=r"dinov2_vits14_pretrain\.pth"):
        load_backbone("dinov2-vits14")
    with pytest.raises(UsageError, match="checksum is not known"):
        load_backbone("dinov2-vits14", download=True)

"""Training from the outside: pairs that it learns from, runs that are stopped, and the search of layers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from recon.cli import main
from recon.datasets.semantic import SemanticPair, divide
from recon.errors import ReconError, UsageError
from recon.hyperpixels.backbones import create_backbone
from recon.hyperpixels.checkpoint import as_tensors, network_of
from recon.hyperpixels.safetensors import unpack
from recon.hyperpixels.training import Trainer, TrainingPair
from recon.training import pairs as training_pairs
from recon.training.dhpf import run_training
from recon.training.options import TrainingOptions
from recon.training.pairs import square_pair, training_data
from tests.support.hyper_networks import tiny_network


def photos(folder: Path) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(6):
        noise = cv2.GaussianBlur(rng.random((50, 60, 3)).astype(np.float32), (0, 0), 2)
        cv2.imwrite(str(folder / f"{k}.png"), 255 * (noise - noise.min()) / np.ptp(noise))
    return folder


def test_a_stopped_run_ends_like_an_undisturbed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = photos(tmp_path / "photos")
    monkeypatch.setattr(training_pairs, "SIDE", 48)
    same = TrainingOptions(supervision="flow", photos=(folder,), epochs=3, batch=2, seed=5)
    run_training(tmp_path / "whole", same, network=tiny_network())

    class Killed(BaseException):
        pass

    real = Trainer.step
    calls = []

    def dies(self: Trainer, pairs: list[TrainingPair]) -> object:
        calls.append(1)
        if len(calls) == 5:
            raise Killed
        return real(self, pairs)

    monkeypatch.setattr(Trainer, "step", dies)
    with pytest.raises(Killed):
        run_training(tmp_path / "part", same, network=tiny_network())
    monkeypatch.setattr(Trainer, "step", real)
    run_training(tmp_path / "part", same, network=tiny_network())

    def log(name: str) -> list[list[str]]:
        return [line.split(",")[:-1] for line in (tmp_path / name / "log.csv").read_text().splitlines()]

    assert log("whole") == log("part")
    assert len(log("whole")) == 1 + 3 * (3 + 1)  # a row per step and a validation per epoch
    for name in ("dhpf.safetensors", "last.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "part" / name).read_bytes()
    with pytest.raises(UsageError, match="other batch"):
        run_training(tmp_path / "part", replace(same, batch=3), network=tiny_network())


def test_nothing_to_train_on_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, message in (("empty", "holds no photos"), ("nowhere", "no folder of photos")):
        with pytest.raises(ReconError, match=message):
            run_training(
                tmp_path / "out",
                TrainingOptions(supervision="flow", photos=(tmp_path / folder,)),
                network=tiny_network(),
            )


def test_a_pair_of_spair_is_judged_by_its_box(tmp_path: Path) -> None:
    """Scaled to the square each way, as in the release; a benchmark that measures by image keeps the image's side."""
    for name, (width, height) in (("a", (120, 80)), ("b", (200, 100))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((height, width, 3), np.uint8))
    pair = SemanticPair(
        tmp_path / "a.png",
        tmp_path / "b.png",
        "cat",
        np.array([[10.0, 10.0]]),
        np.array([[20.0, 20.0]]),
        (0.0, 0.0, 50.0, 50.0),
        (10.0, 10.0, 60.0, 40.0),
    )
    assert square_pair(pair, False, True).length == pytest.approx(max(50 * 240 / 200, 30 * 240 / 100))
    assert square_pair(pair, True, False).length is None


@pytest.fixture(scope="module")
def willow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """WILLOW with one class: windows of one texture, so that points correspond exactly."""
    root = tmp_path_factory.mktemp("data") / "WILLOW-ObjectClass"
    (root / "Car" / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.random((160, 200, 3)).astype(np.float32), (0, 0), 3)
    whole = (255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)
    points = rng.uniform([60, 50], [120, 100], (10, 2))
    entries = []
    for k in range(10):
        x, y = rng.integers(0, 40, 2)
        cv2.imwrite(str(root / "Car" / "images" / f"{k}.png"), whole[y : y + 120, x : x + 160])
        entries.append({"name": f"{k}.png", "width": 160, "height": 120, "kps": (points - (x, y)).tolist()})
    (root / "Car" / "keypoints.json").write_text(json.dumps({"images": entries}))
    return root


def test_warps_show_training_images_alone(willow: Path) -> None:
    data = training_data(TrainingOptions("strong", "willow", willow, warps=True))
    keypoints = training_data(TrainingOptions("strong", "willow", willow, warps=False))
    names = divide(sorted(willow.glob("Car/images/*.png")), "trn")
    assert len(data) == len(keypoints) + len(names)
    warps = training_data(TrainingOptions("flow", "willow", willow, warps=True))
    assert len(warps) == len(names) == 5
    # The last pairs of the mixture are the warps.
    pair, alone = data.pair(len(keypoints) + 1, 2), warps.pair(1, 2)
    assert np.array_equal(pair.source, alone.source)
    assert "warps of the 5 training images" in data.described


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    state = create_backbone("mobilenetv2").state_dict()
    torch.save(
        {key.replace("features_.", "features."): value for key, value in state.items()}, tmp_path / "b.pt"
    )
    return tmp_path / "b.pt"


def test_training_and_layer_search_from_the_outside(
    willow: Path,
    backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(training_pairs, "SIDE", 64)
    common = ["--benchmark", "willow", "--root", str(willow), "--weights", str(backbone)]
    options = (
        "--warps --start layers --candidates 2,3,4,5 --objective region --optimiser adam --mu 0.5 --epochs 1"
    )
    assert main(["train", "dhpf", "--out", str(tmp_path / "t"), *common, *options.split()]) == 0
    network = network_of(
        *_read((tmp_path / "t" / "dhpf.safetensors").read_bytes()), "file", _loaded(backbone)
    )
    assert network.candidates == (2, 3, 4, 5)
    assert not network.gates.rectified
    rows = (tmp_path / "t" / "log.csv").read_text().splitlines()
    assert len(rows) == 1 + (20 + 5) // 8 + 1
    capsys.readouterr()
    search = "--candidates 1,3,5 --beam 2 --depth 2 --limit 2 --cell 16"
    assert main(["train", "hpf", *common, *search.split()]) == 0
    out = capsys.readouterr().out
    assert "1 layers: PCK@0.1" in out
    layers = out.strip().splitlines()[-1].removeprefix("layers=").split(",")
    assert set(layers) <= {"1", "3", "5"}


def _read(content: bytes):  # type: ignore[no-untyped-def]
    arrays, metadata = unpack(content)
    return as_tensors(arrays), metadata


def _loaded(path: Path):  # type: ignore[no-untyped-def]
    backbone = create_backbone("mobilenetv2")
    backbone.load(torch.load(path, weights_only=True), str(path))
    return backbone


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--objective best", "--objective is paper or region"),
        ("--optimiser newton", "--optimiser is sgd or adam"),
        ("--supervision flow --warps", "--warps needs --benchmark"),
        ("--supervision weak --benchmark willow --root x --warps", "have no classes"),
    ],
)
def test_wrong_options_are_said(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        arguments
        if "--benchmark" in arguments or "flow" in arguments
        else f"{arguments} --benchmark willow --root x"
    )
    assert main(["train", "dhpf", "--out", "x", *words.split()]) == 2
    assert message in capsys.readouterr().err

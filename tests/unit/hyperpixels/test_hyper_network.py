"""Backbones, gates, the network and its checkpoints, against direct computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recon.errors import ReconError, UsageError
from recon.hyperpixels.backbones import BACKBONES, create_backbone
from recon.hyperpixels.checkpoint import as_tensors, checkpoint_bytes, network_of
from recon.hyperpixels.gating import LayerGates, gumbel_noise, open_gates
from recon.hyperpixels.safetensors import pack, unpack
from tests.support.hyper_networks import Tiny, images, tiny_network


@pytest.mark.parametrize("name", ["mobilenetv2", "efficientnet-lite0", "resnet50", "dinov2-vits14"])
def test_every_layer_has_its_declared_shape(name: str) -> None:
    backbone = create_backbone(name)
    found = backbone.features(torch.zeros(1, 3, 70, 94))
    assert len(found) == len(backbone.layers)
    for number, layer in enumerate(backbone.layers):
        expected = (1, layer.channels, -(-70 // layer.stride), -(-94 // layer.stride))
        assert found[number].shape == expected, layer


def test_number_of_candidate_layers() -> None:
    assert {name: len(cls.layers) for name, cls in BACKBONES.items()} == {
        "mobilenetv2": 18,
        "efficientnet-lite0": 17,
        "resnet50": 17,
        "resnet101": 34,
        "dinov2-vits14": 12,
    }


def test_layers_are_taken_before_the_last_relu() -> None:
    torch.manual_seed(0)
    backbone = create_backbone("resnet50")
    found = backbone.features(images(size=(64, 64)))
    assert float(found[0].min()) >= 0  # the stem is taken after its pooling
    assert all(float(found[k].min()) < 0 for k in range(1, 17))


def test_resnet_is_what_its_formula_says() -> None:
    """The second bottleneck, computed with plain functions from the weights of the file."""
    torch.manual_seed(0)
    backbone = create_backbone("resnet50")
    state = backbone.state_dict()
    found = backbone.features(images(size=(48, 48)), {1, 2})
    x = torch.relu(found[1])

    def conv_bn(x: torch.Tensor, conv: str, bn: str, padding: int = 0) -> torch.Tensor:
        y = torch.nn.functional.conv2d(x, state[f"layer1.1.{conv}.weight"], padding=padding)
        p = {
            k: state[f"layer1.1.{bn}.{k}"][:, None, None]
            for k in ("weight", "bias", "running_mean", "running_var")
        }
        return (y - p["running_mean"]) / torch.sqrt(p["running_var"] + 1e-5) * p["weight"] + p["bias"]

    y = torch.relu(conv_bn(x, "conv1", "bn1"))
    y = torch.relu(conv_bn(y, "conv2", "bn2", 1))
    y = conv_bn(y, "conv3", "bn3") + x
    torch.testing.assert_close(found[2], y, rtol=1e-4, atol=1e-4)


def test_strides_place_cells_at_multiples_of_the_stride() -> None:
    """Moving the image by a stride moves a layer by one cell."""
    torch.manual_seed(0)
    backbone = create_backbone("mobilenetv2")
    whole = images(size=(128, 160))
    for number in (1, 3, 6):
        stride = backbone.layers[number].stride
        a = backbone.features(whole[..., : 160 - stride], {number})[number]
        b = backbone.features(whole[..., stride:], {number})[number]
        reach = 3 * (32 // stride)
        torch.testing.assert_close(
            a[..., 1 + reach : -reach], b[..., reach : -1 - reach], rtol=1e-3, atol=1e-4
        )


def test_mobilenet_reads_both_ways_of_numbering() -> None:
    torch.manual_seed(0)
    source = create_backbone("mobilenetv2")
    state = {k.replace("features_.", "features."): v for k, v in source.state_dict().items()}
    grouped = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[1] != "0":
            number, first = int(parts[3]), parts[1] == "1"
            last = 3 if first else 6
            parts[3:4] = (
                [str(number - last + (1 if first else 2))]
                if number >= last
                else [str(number // 3), str(number % 3)]
            )
        grouped[".".join(parts)] = value
    assert "features.2.conv.0.0.weight" in grouped
    assert "features.2.conv.2.weight" in grouped
    image = images(size=(40, 40))
    expected = source.features(image)
    for layout in (state, grouped):
        torch.manual_seed(5)
        read = create_backbone("mobilenetv2")
        read.load({**layout, "classifier.1.weight": torch.zeros(2, 2)}, "file")
        found = read.features(image)
        assert all(torch.equal(found[k], expected[k]) for k in expected)


def test_weights_of_another_backbone_say_which_keys_differ() -> None:
    with pytest.raises(
        ReconError, match=r"file\.pth: not the weights of resnet50: .*conv1\.weight.*features"
    ):
        create_backbone("resnet50").load(create_backbone("mobilenetv2").state_dict(), "file.pth")
    with pytest.raises(UsageError, match="mobilenetv2"):
        create_backbone("vgg")


def test_the_backbone_stops_after_the_last_layer() -> None:
    network = tiny_network(candidates=(0, 1))
    assert max(network.prepare(images()).maps) == 1
    calls: list[int] = []
    for number, conv in enumerate(network.backbone.made):
        conv.register_forward_hook(lambda *_, n=number: calls.append(n))
    network.prepare(images())
    assert calls == [0, 1]


def test_layers_that_are_not_selected_are_not_transformed() -> None:
    network = tiny_network()
    calls: list[int] = []
    for number, transform in enumerate(network.gates.reduction_ffns):
        transform.register_forward_hook(lambda *_, n=number: calls.append(n))
    with torch.no_grad():
        a, b, c = (network.prepare(images(seed=s)) for s in range(3))
        network.correlate(a, b, (1,))
        network.correlate(a, c, (1, 2))
    # Features of one image serve all its pairs.
    assert sorted(calls) == [1, 1, 1, 2, 2]


def test_gate_probability_is_the_softmax_of_gumbel_max() -> None:
    """Gumbel-max draws from the softmax: frequencies agree with it."""
    logits = torch.tensor([[0.3, 1.0]]).repeat(20000, 1)
    noise = gumbel_noise((20000, 2), torch.Generator().manual_seed(0))
    share = open_gates(logits, noise).mean()
    assert abs(float(share) - float(torch.softmax(logits[0], 0)[1])) < 0.01


def test_open_gates_are_hard_forward_and_soft_backward() -> None:
    logits = torch.tensor([[0.2, 0.9], [1.0, -1.0], [0.5, 0.5]], requires_grad=True)
    hard = open_gates(logits)
    assert hard.tolist() == [1, 0, 0]
    hard.sum().backward()
    found = logits.grad.clone()
    logits.grad = None
    open_gates(logits, hard=False).sum().backward()
    torch.testing.assert_close(found, logits.grad)


def test_gradient_of_the_gates_is_that_of_the_relaxed_objective() -> None:
    """Automatic gradients of the relaxed objective against finite differences in double precision."""
    network = tiny_network().double()
    a, b = images(2).double(), images(2, seed=1).double()
    noise = gumbel_noise((2, 3, 2), torch.Generator().manual_seed(4)).double()
    weight = torch.randn(2, 80, 80, generator=torch.Generator().manual_seed(2)).double()

    def objective() -> torch.Tensor:
        out = network(a, b, noise, hard=False, hough=False)
        return (out.correlation * weight).sum() + (out.selection.mean(0) - 0.5).square().sum()

    network.zero_grad()
    objective().backward()
    rng = np.random.default_rng(0)
    for parameter in (
        network.gates.gumbel_ffns[0][3].weight,
        network.gates.gumbel_ffns[2][0].weight,
        network.gates.reduction_ffns[1][0].weight,
    ):
        flat = parameter.data.view(-1)
        for index in rng.choice(len(flat), 4, replace=False):
            keep = float(flat[index])
            values = []
            for step in (1e-6, -1e-6):
                flat[index] = keep + step
                with torch.no_grad():
                    values.append(float(objective()))
            flat[index] = keep
            expected = (values[0] - values[1]) / 2e-6
            assert float(parameter.grad.view(-1)[index]) == pytest.approx(expected, rel=2e-4, abs=1e-7)


def test_hard_gates_weight_whole_layers() -> None:
    """With gates that choose, training's correlation is inference's on the chosen layers."""
    network = tiny_network()
    a, b = images(), images(seed=1)
    with torch.no_grad():
        out = network(a, b)
        fa, fb = network.prepare(a), network.prepare(b)
        chosen = network.select(fa, fb)
        assert out.selection[0].nonzero()[:, 0].tolist() == list(chosen) or chosen == (0,)
        from recon.hyperpixels.hough import hough_matching

        plain = network.correlate(fa, fb).full()[0]
        torch.testing.assert_close(
            out.correlation[0], plain * hough_matching(plain, fa.grid, fb.grid), rtol=1e-4, atol=1e-6
        )


def test_without_a_selection_the_first_layer_stands_in() -> None:
    network = tiny_network()
    with torch.no_grad():
        for gate in network.gates.gumbel_ffns:
            gate[1].bias.fill_(1.0)
            gate[3].weight[0], gate[3].weight[1] = 1.0, -1.0
        a, b = network.prepare(images()), network.prepare(images(seed=1))
        assert network.select(a, b) == (0,)
        out = network(images(), images(seed=1), hough=False)
        torch.testing.assert_close(out.correlation, network.correlate(a, b, (0,)).full())


def test_candidates_must_exist() -> None:
    with pytest.raises(UsageError, match="0 to 2"):
        tiny_network(candidates=(1, 3))


def authors_layout(channels: list[int]) -> dict[str, torch.Tensor]:
    """A checkpoint as the release saves it: gates and transforms, named by layer."""
    torch.manual_seed(0)
    return dict(LayerGates(channels, [c // 8 for c in channels]).state_dict())


def test_checkpoints_of_the_authors_are_known_by_their_layers() -> None:
    channels = [layer.channels for layer in BACKBONES["resnet50"].layers]
    state = authors_layout(channels)
    assert state["reduction_ffns.16.0.weight"].shape == (256, 2048, 1, 1)
    assert state["gumbel_ffns.3.3.weight"].shape == (2, 32, 1, 1)
    backbone = create_backbone("resnet50")
    network = network_of(state, {}, "best_model.pt", backbone)
    assert network.stretch
    for key, value in network.gates.state_dict().items():
        assert torch.equal(value, state[key])
    with pytest.raises(ReconError, match="resnet50, not for mobilenetv2"):
        network_of(state, {}, "best_model.pt", create_backbone("mobilenetv2"))
    short = {k: v for k, v in state.items() if not k.startswith("gumbel_ffns.4.")}
    with pytest.raises(ReconError, match=r"missing, for example gumbel_ffns\.4\.0\.weight"):
        network_of(short, {}, "best_model.pt", backbone)
    with pytest.raises(ReconError, match="of 16 layers"):
        network_of({k: v for k, v in state.items() if ".16." not in k}, {}, "x", backbone)
    with pytest.raises(ReconError, match="not a checkpoint of DHPF"):
        network_of(backbone.state_dict(), {}, "x", backbone)


def test_our_checkpoints_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "tiny", Tiny)
    network = tiny_network(candidates=(0, 2))
    content = checkpoint_bytes(network, {"trained_on": "nothing"}, with_backbone=True)
    arrays, metadata = unpack(content)
    assert metadata["trained_on"] == "nothing"
    again = network_of(as_tensors(arrays), metadata, "x.safetensors")
    assert again.candidates == (0, 2)
    assert not again.stretch
    for key, value in network.gates.state_dict().items():
        assert torch.equal(again.gates.state_dict()[key], value)
    a, b = images(), images(seed=1)
    with torch.no_grad():
        # The backbone is kept in half precision.
        torch.testing.assert_close(network(a, b).correlation, again(a, b).correlation, rtol=0.05, atol=1e-2)


def test_safetensors_round_trip_and_damage() -> None:
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array(7, np.int64),
        "c": np.ones((2, 0, 3), np.float16),
    }
    content = pack(arrays, {"k": "v"})
    found, metadata = unpack(content)
    assert metadata == {"k": "v"}
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    # The layout is the published one: length, JSON, data in order.
    size = int.from_bytes(content[:8], "little")
    assert content[8 : 8 + size].startswith(b'{"__metadata__"')
    assert content[8 + size : 8 + size + 24] == arrays["a"].tobytes()
    for damaged in (b"", content[:20], content[:-1], b"\xff" * 64):
        with pytest.raises(ValueError, match=r"cut short|JSON|header"):
            unpack(damaged)

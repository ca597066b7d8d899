"""The benchmark's plain network is the reference, and the benchmark runs."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import benchmark_peers
import peers
import pytest
import torch
from benchmark_peers import gflop_of
from PIL import Image

from fcnseg.models import create_model, summarise


def test_the_plain_network_has_the_logits_of_ours() -> None:
    ours = create_model("fcn8s_vgg16", num_classes=peers.CLASSES, padding="caffe", width=0.05).eval()
    plain = peers.PlainFCN8s(0.05).eval()
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    names = [name for name in plain.state_dict() if not name.startswith("up")]
    trunk = [value for name, value in ours.state_dict().items() if name.startswith("backbone.")]
    head = [ours.state_dict()[name] for name in names if not name.startswith("blocks.")]
    state = dict(zip(names, [*trunk, *head], strict=True))
    kernels = {name: value for name, value in plain.state_dict().items() if name.startswith("up")}
    for name, value in kernels.items():
        size = value.shape[-1]
        ramp = 1 - (torch.arange(size) - (size - 1) / 2).abs() / (size // 2)
        state[name] = torch.eye(len(value))[:, :, None, None] * ramp[:, None] * ramp
    plain.load_state_dict(state)
    images = torch.randn(2, 3, 50, 70)
    with torch.inference_mode():
        expected = plain(images)
        torch.testing.assert_close(ours(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.skipif(len(peers.NETWORKS) < 5, reason="segmentation_models_pytorch is not installed")
def test_networks_for_sides_of_32_take_any() -> None:
    network = peers.NETWORKS["smp FPN, VGG-16"](1.0, 5).eval()
    with torch.inference_mode():
        images = torch.randn(1, 3, 64, 96)
        assert torch.equal(network(images), network.network(images))
        assert network(images[..., :50, :70]).shape == (1, 5, 50, 70)


@pytest.mark.parametrize(("what", "times"), [("forward", 1), ("step", 3)])
def test_operations_are_those_of_the_networks_own_count(what: str, times: int) -> None:
    """Which goes layer by layer, and has the upsamplings as well, which torch does not count."""
    row = {"network": "fcn8s_vgg16, padding=same", "classes": 7, "size": "64x96", "batch": 3, "what": what}
    model = create_model("fcn8s_vgg16", num_classes=7, width=0.1)
    assert gflop_of(row, 0.1) == pytest.approx(times * 3 * 2 * summarise(model, (64, 96)).multiply_adds / 1e9, rel=0.01)


@pytest.mark.slow
def test_it_prints_a_table_writes_every_round_and_draws(carry_out: Callable, tmp_path: Path) -> None:
    files = ["--json", str(tmp_path / "times.json"), "--plot", str(tmp_path / "growth.png")]
    cases = ["--sizes", "32x48", "64x48", "--classes", "3", "5", "--precisions", "fp32", "bf16", "--rounds", "1"]
    networks = ["--networks", "fcn8s_vgg16, padding=same", "--width", "0.05"]
    code, shown, errors = carry_out(benchmark_peers, *cases, *networks, *files)
    assert code == 0, errors
    rows = json.loads((tmp_path / "times.json").read_text())
    assert len(rows) == 2 * 2 * 2 * 2 * 2
    assert all(row["seconds"] > 0 and row["gflop"] > 0 for row in rows)
    assert {row["ratio"] for row in rows if row["network"] == peers.PLAIN} == {1}
    assert shown.count("| forward | 32x48 | 1 | 3 | fp32 |") == 2
    with Image.open(tmp_path / "growth.png") as picture:
        assert min(picture.size) > 500


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_memory_is_that_of_a_process_of_its_own(carry_out: Callable, tmp_path: Path) -> None:
    cases = ["--sizes", "32x48", "128x192", "--what", "step", "--rounds", "1", "--width", "0.05", "--memory"]
    written = ["--networks", "fcn8s_vgg16, padding=same", "--json", tmp_path / "t.json"]
    code, _, errors = carry_out(benchmark_peers, *cases, *written)
    assert code == 0, errors
    small, large = ([row["memory"] for row in json.loads((tmp_path / "t.json").read_text())][i] for i in (1, 3))
    assert 0 < small < large


def test_a_plot_of_nothing_that_varies_is_refused_before_anything_is_measured(
    carry_out: Callable, tmp_path: Path
) -> None:
    code, _, errors = carry_out(benchmark_peers, "--plot", tmp_path / "growth.png")
    assert code == 2
    assert errors.endswith("expected several of --sizes, --batches or --classes\n")

"""The benchmark's plain network is the reference, and the benchmark runs."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import torch

from fcnseg.models import create_model

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark_peers.py"


def test_the_plain_network_has_the_logits_of_ours() -> None:
    script = runpy.run_path(str(SCRIPT))
    ours = create_model("fcn8s_vgg16", num_classes=script["CLASSES"], padding="caffe", width=0.05).eval()
    plain = script["PlainFCN8s"](0.05).eval()
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


def test_it_prints_a_table_and_writes_every_round(tmp_path: Path) -> None:
    options = ["--sizes", "32x48", "--rounds", "1", "--width", "0.05", "--json", str(tmp_path / "times.json")]
    done = subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True, check=True)
    rows = json.loads((tmp_path / "times.json").read_text())
    assert len(rows) == 8
    assert all(row["seconds"] > 0 for row in rows)
    assert done.stdout.count("| forward | 32x48 |") == 4

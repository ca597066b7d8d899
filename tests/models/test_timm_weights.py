"""ImageNet weights of timm's trunks: from the Hub's cache in its own layout, written by the test, without a network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

timm = pytest.importorskip("timm")

LOAD = """
import torch, timm, fcnseg
from safetensors.torch import load_file
model = fcnseg.create_model("fcn8s_resnet18", num_classes=3, weights="imagenet").eval()
reference = timm.create_model("resnet18", features_only=True).eval()
state = load_file({weights!r})
reference.load_state_dict({{k: v for k, v in state.items() if not k.startswith("fc.")}})
x = torch.randn(1, 3, 64, 65)
with torch.inference_mode():
    expected, found = reference(x)[-1], model.backbone(x)["stride32"]
assert expected.std() > 0
torch.testing.assert_close(found, expected)
print(model.spec.mean)
"""


def run(script: str, home: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)


def test_trunk_gives_what_timms_gives(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = timm.create_model("resnet18")
    repository = tmp_path / "hub" / f"models--{network.pretrained_cfg['hf_hub_id'].replace('/', '--')}"
    snapshot = repository / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    weights = snapshot / "model.safetensors"
    save_file(network.state_dict(), weights)

    done = run(LOAD.format(weights=str(weights)), tmp_path)
    assert done.returncode == 0, done.stderr
    report, mean = done.stdout.strip().rsplit("\n", 1)
    assert report.startswith("timm's resnet18 (timm): ")
    assert "0 dropped" in report
    assert mean == str(tuple(255 * v for v in network.pretrained_cfg["mean"]))


def test_without_network_and_cache_it_is_one_line(tmp_path: Path) -> None:
    script = """
import fcnseg
from fcnseg.errors import InputError
try:
    fcnseg.create_model("fcn8s_resnet18", num_classes=3, weights="imagenet")
except InputError as error:
    print(error)
"""
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.strip().splitlines()
    assert line.startswith("weights=imagenet: timm's weights of resnet18 could not be had (")

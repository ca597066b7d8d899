"""A short run of the script that changes files at random, and what it had found, one by one."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch
import yaml
from fuzz_seeds import seeds

from fcnseg.data.datasets.described import Described
from fcnseg.errors import InputError
from fcnseg.labels import STREET11, LabelSpace
from fcnseg.models import create_model, from_pretrained
from fcnseg.models.description import describe_weights
from tests.data.refusals import complaint

SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz_readers.py"


def test_every_changed_file_is_read_or_refused() -> None:
    command = [sys.executable, SCRIPT, "--files", "3000", "--start", "500000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("0 ended otherwise")
    lines = done.stdout.splitlines()[:-1]
    assert len(lines) >= 25
    assert all(int(line.split()[-2]) > 0 for line in lines if "safetensors" not in line), "changes must do harm"


def test_what_is_wrong_in_a_description_is_named(tmp_path: Path) -> None:
    seed = next(seed for seed in seeds(tmp_path) if seed.kind == "dataset.yaml")
    path = tmp_path / "dataset.yaml"

    def refused(**changes: object) -> str:
        path.write_text(yaml.safe_dump({**seed.plain, **changes}))
        return complaint(lambda: Described(path)[0]).removeprefix(f"{path}: ")

    statistics = "images: expected mean and std, 3 numbers each, std and clip above 0"
    for images in ({}, {"mean": [0] * 3}, {"mean": [0] * 3, "std": [0] * 3}, {"mean": "abc", "std": [1] * 3}):
        assert refused(images=images) == statistics
    assert refused(reading={"chanels": 3}).startswith("reading: no such key 'chanels'; expected one of channels,")
    assert refused(reading={"channels": "3"}) == "reading.channels is of type str"
    assert refused(label_space={"classes": []}).startswith("no label space; expected name, classes, palette")
    space = STREET11.to_dict()
    assert refused(label_space={**space, "ids": 5}) == "ids of the label space is no list"
    assert refused(label_space={**space, "classes": [1] * 11}) == "names of the label space are no texts"
    assert "id of type list; expected whole numbers" in refused(label_space={**space, "ids": [[] for _ in range(11)]})
    bomb = "a: &a [x, x, x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)
    )
    path.write_text(yaml.safe_dump(seed.plain) + bomb)
    assert "refers to a part of itself" in complaint(lambda: Described(path))


def test_a_spec_and_weights_cannot_ask_for_more_memory_than_their_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="num_classes=10000000: expected 1 to 255"):
        create_model("fcn32s_alexnet", num_classes=10_000_000)
    model = create_model("fcn32s_alexnet", num_classes=2, width=0.02)
    with torch.device("meta"):
        wide = create_model("fcn32s_alexnet", num_classes=2, width=16)
    state = {f"model.{name}": torch.zeros(1).expand(value.shape) for name, value in wide.state_dict().items()}
    spec = {**model.spec.to_dict(), "width": 16}
    torch.save({"hyper_parameters": {"spec": spec}, "state_dict": state}, tmp_path / "last.ckpt")
    assert (tmp_path / "last.ckpt").stat().st_size < 100_000
    assert "has fewer values than its shape says" in complaint(lambda: from_pretrained(tmp_path / "last.ckpt"))
    torch.save({"conv1_1.weight": torch.zeros(3), "score_fr.weight": torch.zeros(())}, tmp_path / "net.pth")
    assert "hold no kernels of four axes" in complaint(lambda: describe_weights(tmp_path / "net.pth"))


def test_a_picture_for_which_memory_does_not_suffice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.png"
    deflater = zlib.compressobj(9)
    pixels = b"".join(deflater.compress(bytes(10**7)) for _ in range(17)) + deflater.compress(b"\0") + deflater.flush()
    head = struct.pack(">IIBBBBB", 17 * 10**7, 1, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", pixels), (b"IEND", b"")]
    body = [len(d).to_bytes(4, "big") + k + d + zlib.crc32(k + d).to_bytes(4, "big") for k, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(body))
    code = f"""
import resource
from pathlib import Path
from fcnseg.data.files.images import read_image
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + 2 * 10**8
resource.setrlimit(resource.RLIMIT_AS, (size, size))
read_image({str(path)!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"InputError: {path}: cannot be read as an image" in done.stderr


def test_label_spaces_come_back_from_plain_values() -> None:
    assert LabelSpace.from_dict(STREET11.to_dict(), "a file") == STREET11

"""Files of torch.save that ask for more than they hold are refused before torch reads them; all others are read."""

import os
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz_bombs import BOMBS, archive, content_of, legacy, tensor
from torch import nn

from fcnseg.errors import InputError
from fcnseg.models import from_pretrained
from fcnseg.models.description import describe_weights
from fcnseg.models.pickle_steps import STEPS
from fcnseg.models.pickles import PICKLE, look_through, read_torch


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_torch(path)
    return str(error.value)


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_in_either_format(name: str, tmp_path: Path) -> None:
    said, steps = BOMBS[name]
    for content in (archive(content_of(steps)), legacy(steps)):
        assert said in refused(tmp_path / "last.ckpt", content)


def test_archives_that_take_more_than_their_size_are_refused(tmp_path: Path) -> None:
    path, sound = tmp_path / "last.ckpt", content_of(tensor())
    path.write_bytes(archive(sound))
    assert read_torch(path)["provenance"].tolist() == [0.0]
    unpacked = "its archive takes more bytes unpacked than the file has"
    assert unpacked in refused(path, archive(sound, True, (("data/1", bytes(10**8)),)))
    assert unpacked in refused(path, archive(content_of(b"]" * 10**6), True))
    assert "two files in its archive have one name" in refused(path, archive(sound, beside=(("DATA.PKL", sound),)))
    assert f"in more than {PICKLE} bytes" in refused(path, archive(sound + bytes(PICKLE)))
    ends = "its archive does not end as torch.save's do"
    assert ends in refused(path, b"PK\3\4" + archive(sound))
    assert ends in refused(path, archive(sound)[:-2] + b"\5\0" + b"words")


def test_bombs_take_little_time_and_memory(tmp_path: Path) -> None:
    """The largest of them in a process that may take 1 GB more than it has."""
    (tmp_path / "steps.ckpt").write_bytes(archive(content_of(b"](" + b"}" * (STEPS - 100) + b"e")))
    (tmp_path / "packed.pth").write_bytes(archive(content_of(b"](" + b"}" * 10**8 + b"e"), True))
    code = """
import resource, sys
from pathlib import Path
import fcnseg
from fcnseg.errors import InputError
from fcnseg.models.description import describe_weights
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 10**9, used + 10**9))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
for path in sys.argv[1:]:
    try:
        describe_weights(path) if path.endswith("pth") else fcnseg.from_pretrained(path)
    except InputError as error:
        print(error)
"""
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 2, done.stderr


def everything() -> dict[str, Any]:
    """What checkpoints hold: Lightning's with an optimiser's state, and other programs'."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 10)
    return {
        "state_dict": net.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [{k: v for k, v in scheduler.state_dict().items() if not callable(v)}],
        "parameter": net[0].weight,
        "best_mean_iu": np.float64(0.5),
        "kinds": [torch.float32, torch.Size([1, 2]), torch.device("cpu"), {"a", "b"}, b"abc", 1 + 2j, None, True],
        "halves": [torch.ones(2, dtype=torch.bfloat16), torch.ones(3, 4).t()[1:], torch.tensor(3)],
        "numbers": {1: 2**40, 2: -1.5, "long": list(range(3000))},
        "twice": [optimizer.param_groups[0]["betas"]] * 3,
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return type(one) is type(other) and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_what_checkpoints_hold_is_read(zipped: bool, tmp_path: Path) -> None:
    content = everything()
    torch.save(content, tmp_path / "last.ckpt", _use_new_zipfile_serialization=zipped)
    found = read_torch(tmp_path / "last.ckpt")
    assert same(content, found)
    assert isinstance(found["state_dict"], OrderedDict)


def test_a_checkpoint_is_looked_through_in_no_time(tmp_path: Path) -> None:
    """Of 1000 tensors with an optimiser's two for each; the bytes of their values are not read."""
    content = {str(i): [torch.ones(10), torch.ones(10), torch.ones(10)] for i in range(1000)}
    torch.save(content, tmp_path / "last.ckpt")
    read_torch(tmp_path / "last.ckpt")
    began = time.process_time()
    look_through(tmp_path / "last.ckpt")
    ours, began = time.process_time() - began, time.process_time()
    torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert ours < 5 * (time.process_time() - began) + 0.1


@pytest.mark.parametrize(
    "name", ["last.ckpt", "net.pth", "net.caffemodel", "model/model.safetensors", "model/config.json"]
)
def test_what_is_no_plain_file_is_not_waited_for(name: str, tmp_path: Path) -> None:
    """A named pipe, which nobody writes to."""
    from_pretrained("demo").save_pretrained(tmp_path / "model")
    path = tmp_path / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(InputError, match=f"{path}: n(o|either)"):
        from_pretrained(path)
    with pytest.raises(InputError, match=f"{path.name}"):
        describe_weights(path)

"""Checkpoints that each process writes its share of: for any number, never half, and nothing in them is executed."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from fcnseg.errors import InputError
from fcnseg.models import from_pretrained
from fcnseg.models.loading import load_checkpoint
from fcnseg.models.sharded import HEAD, is_sharded, read_checkpoint
from fcnseg.runs.folder import checkpoint_to_resume
from fcnseg.training.checkpoints import AtomicCheckpointIO, is_whole
from tests.data.refusals import complaint
from tests.training.shares import (
    equal,
    killed_at,
    read_and_save,
    save,
    save_beside,
    save_number,
    save_with,
    together,
    trained,
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a checkpoint of two processes, which no test changes."""
    folder = tmp_path_factory.mktemp("shares")
    assert together(2, save, folder, "two.ckpt") == [0, 0]
    return folder


@pytest.fixture(scope="module")
def plain() -> dict:
    """The same checkpoint, without any processes or folders, as torch has it."""
    model, optimizer = trained(2)
    return {"state_dict": model.state_dict(), "optimizer_states": [optimizer.state_dict()], "global_step": 2}


def number(path: Path) -> float:
    return read_checkpoint(path)["state_dict"]["weight"].unique().item()


def test_together_the_shares_are_the_checkpoint_of_one_process(saved: Path, plain: dict) -> None:
    found = read_checkpoint(saved / "two.ckpt")
    assert equal(found, plain)
    model, optimizer = trained(1)
    model.load_state_dict(found["state_dict"])
    optimizer.load_state_dict(found["optimizer_states"][0])
    assert equal(optimizer.state_dict(), plain["optimizer_states"][0])
    shards = [path.stat().st_size for path in (saved / "two.ckpt").glob("shard-*")]
    assert len(shards) == 2
    assert max(shards) < 0.55 * sum(shards), "each writes half of it"


def test_written_beside_training_it_is_what_was_there(tmp_path: Path, plain: dict) -> None:
    assert together(2, save_beside, tmp_path, "last.ckpt") == [0, 0]
    assert equal(read_checkpoint(tmp_path / "last.ckpt"), plain)
    assert equal(read_checkpoint(tmp_path / "previous.ckpt"), plain)


@pytest.mark.parametrize("count", [1, 3])
def test_other_numbers_of_processes_read_it(saved: Path, plain: dict, count: int) -> None:
    """Shares of others, and one plain file of torch's, whose optimiser knows its parameters by numbers."""
    torch.save(plain, saved / "plain.ckpt")
    assert together(count, read_and_save, saved, ("two.ckpt", "plain.ckpt"), f"by_{count}") == [0] * count
    for name in ("two.ckpt", "plain.ckpt"):
        assert equal(read_checkpoint(saved / f"by_{count}" / name), plain)


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("nan", "InputError: .*last.ckpt: not written, since .* is not finite"),
        ("disk", "InputError: .*last.ckpt: File too large"),
    ],
)
def test_what_goes_wrong_in_one_process_ends_all_and_leaves_the_checkpoint(
    tmp_path: Path, broken: str, told: str
) -> None:
    save_number(tmp_path / "last.ckpt", 1)
    assert together(2, save_with, tmp_path, "last.ckpt", broken) == [0, 0]
    first, second = ((tmp_path / f"told_{rank}").read_text() for rank in (0, 1))
    assert first == second
    assert re.match(told, first), first
    assert number(tmp_path / "last.ckpt") == 1


@pytest.mark.parametrize(
    "point",
    [
        "sharding.write_pieces",
        "sharding.write",
        "checkpoints.exchange",
        "checkpoints.remove",
        "checkpoints.write_through",
    ],
)
def test_a_save_that_is_killed_leaves_a_whole_checkpoint(tmp_path: Path, point: str) -> None:
    last = tmp_path / "checkpoints" / "last.ckpt"
    for each in (1, 2):
        save_number(last, each)
    assert together(1, killed_at, tmp_path, "checkpoints/last.ckpt", *point.split(".")) == [9]
    assert checkpoint_to_resume(tmp_path) == last
    assert number(last) == (9 if "checkpoints" in point and not point.endswith("exchange") else 2)
    save_number(last, 10)
    assert number(last) == 10
    assert number(last.with_name("previous.ckpt")) in (2, 9)
    assert {path.name for path in last.parent.iterdir()} == {"last.ckpt", "previous.ckpt"}, "nothing is left over"


def test_a_damaged_last_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    last = tmp_path / "checkpoints" / "last.ckpt"
    for each in (1, 2):
        save_number(last, each)
    shard = next(last.glob("shard-*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert not is_whole(last)
    chosen = checkpoint_to_resume(tmp_path)
    assert chosen is not None
    assert number(chosen) == 1
    save_number(last, 3)
    assert (number(last), number(chosen)) == (3, 1), "a damaged one takes no sound one's place"


def test_a_file_takes_the_place_of_a_folder_and_a_folder_that_of_a_file(tmp_path: Path) -> None:
    last, best, files = tmp_path / "last.ckpt", tmp_path / "best.ckpt", AtomicCheckpointIO()
    for path in (last, best):
        save_number(path, 1)
        files.save_checkpoint({"state_dict": {"weight": torch.full((2,), 2.0)}}, path)
        assert path.is_file()
        assert number(path) == 2
    assert number(tmp_path / "previous.ckpt") == 1
    for path in (last, best):
        save_number(path, 3)
        assert is_sharded(path)
        assert number(path) == 3
    assert number(tmp_path / "previous.ckpt") == 2


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def hostile_head(folder: Path) -> None:
    torch.save({"shards": {}, "state_dict": Hostile()}, folder / HEAD)


def shard_elsewhere(folder: Path) -> None:
    head = torch.load(folder / HEAD, weights_only=True)
    torch.save(head | {"shards": {"../../secret.safetensors": 8}}, folder / HEAD)


def shard_missing(folder: Path) -> None:
    (folder / "shard-00002.safetensors").unlink()


def shard_left_out(folder: Path) -> None:
    """Half of the rows, without a sign in the shards that are there."""
    head = torch.load(folder / HEAD, weights_only=True)
    head["shards"].pop("shard-00001.safetensors")
    torch.save(head, folder / HEAD)
    (folder / "shard-00001.safetensors").unlink()


def shard_of_another(folder: Path) -> None:
    shutil.copy(folder / "shard-00001.safetensors", folder / "shard-00003.safetensors")


def boundless_header(folder: Path) -> None:
    path = folder / "shard-00001.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + path.read_bytes()[8:])


def place_without_end(folder: Path) -> None:
    """A piece that lies far out in its tensor."""
    path = folder / "shard-00002.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    places = json.loads(header["__metadata__"]["DCP_SHARDING_INFO"])
    places[next(iter(places))]["saved_offsets"][0] = 10**15
    header["__metadata__"]["DCP_SHARDING_INFO"] = json.dumps(places)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    head = torch.load(folder / HEAD, weights_only=True)
    head["shards"][path.name] = path.stat().st_size
    torch.save(head, folder / HEAD)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (hostile_head, "head.ckpt: no head of a sharded checkpoint, or damaged"),
        (shard_elsewhere, "head.ckpt: no head of a sharded checkpoint; expected names and sizes"),
        (shard_missing, "shard-00002.safetensors: no such file; the checkpoint is not complete"),
        (shard_left_out, "is not complete; expected pieces that follow one another"),
        (shard_of_another, "shard-00003.safetensors: is no file of this checkpoint; expected 2 shards"),
        (boundless_header, "shard-00001.safetensors: no shard of a checkpoint, or damaged; expected"),
        (place_without_end, "is not complete; expected pieces that follow one another"),
    ],
)
def test_what_is_damaged_or_hostile_is_refused(saved: Path, tmp_path: Path, damage, told: str, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "last.ckpt"
    shutil.copytree(saved / "two.ckpt", folder)
    damage(folder)
    assert told in complaint(lambda: read_checkpoint(folder))
    assert told in complaint(lambda: load_checkpoint(folder))
    assert not is_whole(folder)
    assert not (tmp_path / "executed").exists()


def test_torch_s_own_folders_whose_pickles_execute_code_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / ".metadata").write_bytes(b"cos\nmkdir\n(Vexecuted\ntR.")
    with pytest.raises(InputError, match=r"config.json: no such file"):
        from_pretrained(tmp_path)

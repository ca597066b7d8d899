"""Packs in an object store: a server that speaks S3 is started here, and read over HTTP as any other."""

import json
import pickle
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import fsspec
import numpy as np
import pytest
import requests
import s3fs
import torch
from moto.server import ThreadedMotoServer

from fcnseg.data import CamVid, CityScenes
from fcnseg.data.storage import portions
from fcnseg.data.storage.packed import Packed, packed_nodes
from fcnseg.data.storage.packing import pack
from tests.commands.processes import SETTINGS
from tests.data.refusals import complaint

SHARD = 37_103  # bytes of one that holds three scenes
THREE = 3.5 * SHARD / 1e9
"""Gigabytes in which three shards have room."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server, which holds a bucket `packs`, and its credentials in the environment."""
    running = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    url = f"http://127.0.0.1:{running.get_host_and_port()[1]}"
    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            environment.delenv(name, raising=False)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "ours")
        environment.setenv("AWS_ENDPOINT_URL", url)
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        boto3.client("s3").create_bucket(Bucket="packs")
        yield url
    running.stop()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of 20 scenes in seven shards, of which the last holds two."""
    folder = tmp_path_factory.mktemp("local") / "pack"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portions, "SHARD_BYTES", 40_000)
        pack({}, CityScenes(20, 0, "real", (48, 64)), folder)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    s3fs.S3FileSystem.clear_instance_cache()
    return tmp_path / "cache/fcnseg/packed"


def upload(folder: Path, name: str) -> str:
    """Copy a pack into the bucket; gives its address."""
    client = boto3.client("s3")
    for path in folder.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), "packs", f"{name}/{path.relative_to(folder)}")
    return f"s3://packs/{name}"


def in_memory(folder: Path, name: str) -> str:
    """Copy a pack into another kind of store."""
    fsspec.filesystem("memory").put(str(folder), f"/{name}", recursive=True)
    return f"memory://{name}"


def same(ours: tuple, theirs: tuple) -> bool:
    pairs = list(zip(ours, theirs, strict=True))
    return all(np.array_equal(a, b) and getattr(a, "dtype", None) == getattr(b, "dtype", None) for a, b in pairs)


def shards(cache: Path) -> list[Path]:
    return sorted(cache.glob("*/*.bin"))


# What is read


@pytest.mark.parametrize("copy", [upload, in_memory])
def test_samples_are_those_of_the_local_pack_in_any_order(
    server: str, local: Path, cache: Path, copy: Callable
) -> None:
    ours, theirs = Packed(copy(local, "order") + "/val/"), Packed(local / "val")
    assert ours.folder.endswith("/order/val")
    assert (len(ours), ours.label_space, ours.source) == (20, theirs.label_space, theirs.source)
    assert not shards(cache), "shards are fetched before they are asked for"
    assert same(ours[4], theirs[4])
    assert [path.name for path in shards(cache)] == ["chunk-1-0.bin"]
    for index in np.random.default_rng(0).integers(0, 20, 60):
        assert same(ours[index], theirs[index])
        assert np.array_equal(ours.mask(index), theirs[index][1])
    assert [path.read_bytes() for path in shards(cache)] == [
        path.read_bytes() for path in sorted((local / "val").glob("*.bin"))
    ]
    assert same(pickle.loads(pickle.dumps(ours))[19], theirs[19])


class Raw(torch.utils.data.Dataset):
    """Samples as tensors, and whether they were in their place in other processes too."""

    def __init__(self, packed: Packed) -> None:
        self.packed = packed

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, str]:
        image, mask, name = self.packed[index]
        return torch.from_numpy(np.array(image)), torch.from_numpy(np.array(mask)), name


@pytest.mark.parametrize("limit", [50.0, 1.5 * SHARD / 1e9])
def test_several_processes_share_what_is_fetched(server: str, local: Path, cache: Path, limit: float) -> None:
    """Also when the cache holds one of seven shards, so that they evict what others have fetched."""
    ours, theirs = Packed(upload(local, "shared") + "/val", cache_limit=limit), Packed(local / "val")
    assert same(ours[0], theirs[0])  # the parent has opened a shard and a connection before its workers start
    order = np.random.default_rng(1).permutation(np.repeat(np.arange(20), 5)).tolist()
    loader = torch.utils.data.DataLoader(Raw(ours), sampler=order, batch_size=1, num_workers=2)
    for index, (image, mask, name) in zip(order, loader, strict=True):
        assert same((image[0].numpy(), mask[0].numpy(), name[0]), theirs[index])
    assert len(shards(cache)) == 7 if limit == 50 else len(shards(cache)) <= 1 + 3


def test_the_cache_keeps_to_its_limit_and_gives_up_the_oldest(local: Path, cache: Path) -> None:
    url = in_memory(local, "limit")
    ours, other = (Packed(f"{url}/val", cache_limit=THREE) for _ in range(2))
    for index in (0, 3, 6, 0, 9):
        ours[index]
        assert sum(path.stat().st_size for path in shards(cache)) <= THREE * 1e9
    assert [path.name for path in shards(cache)] == ["chunk-0-0.bin", "chunk-2-0.bin", "chunk-3-0.bin"]
    other[0]  # holds the shard, though it is the oldest soon
    for index in (12, 15, 18, 9):
        ours[index]
    assert "chunk-0-0.bin" in [path.name for path in shards(cache)]
    assert complaint(lambda: Packed(f"{url}/val", cache.parent / "else", SHARD / 2e9)[0]) == (
        f"data.cache_limit={SHARD / 2e9:g} GB: a shard of 3.71e-05 GB has no room in {cache.parent}/else/packed"
    )


def test_a_second_run_fetches_nothing(server: str, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = upload(local, "second")
    assert [Packed(f"{url}/val")[index][2] for index in range(20)]
    for key in ("chunk-0-0.bin", "chunk-3-0.bin"):
        boto3.client("s3").put_object(Bucket="packs", Key=f"second/val/{key}", Body=bytes(SHARD))
    again = Packed(f"{url}/val")
    assert same(again[0], Packed(local / "val")[0])
    assert same(again[9], Packed(local / "val")[9])


def test_another_pack_of_the_same_address_is_not_read_from_the_cache(local: Path, camvid: Path, tmp_path: Path) -> None:
    url = in_memory(local, "again")
    assert Packed(f"{url}/val")[0]
    pack({}, CamVid(camvid, "val"), tmp_path / "other")
    fsspec.filesystem("memory").rm("/again", recursive=True)
    in_memory(tmp_path / "other", "again")
    assert same(Packed(f"{url}/val")[0], CamVid(camvid, "val")[0])


@pytest.mark.slow
def test_training_and_evaluation_read_from_a_store(
    server: str, fcnseg: Callable, camvid: Path, tmp_path: Path, cache: Path
) -> None:
    pack({"camvid": CamVid(camvid)}, CamVid(camvid, "val"), tmp_path / "packed")
    url = upload(tmp_path / "packed", "camvid")
    settings = ("train", "data=camvid", *SETTINGS, f"data.packed={url}", "hydra.run.dir=run")
    assert fcnseg(*settings, "data.num_workers=2", "trainer.max_steps=2") == 0
    assert len(shards(cache)) == 2
    for packed, scores in (("packed", "here"), (url, "there")):
        evaluate = ("evaluate", "checkpoint=run/checkpoints/last.ckpt", "data=camvid", f"data.packed={packed}")
        assert fcnseg(*evaluate, f"hydra.run.dir={scores}") == 0
    here, there = (json.loads(Path(f"{scores}/metrics.json").read_text()) for scores in ("here", "there"))
    assert here["mean_iou"] == there["mean_iou"]


def test_nothing_else_is_connected_to(server: str, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[str] = set()
    connect, look_up = socket.socket.connect, socket.getaddrinfo
    monkeypatch.setattr(
        socket.socket, "connect", lambda self, to: asked.add(f"http://{to[0]}:{to[1]}") or connect(self, to)
    )
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **more: asked.add(f"look up {host}") or look_up(host, *rest, **more)
    )
    url = upload(local, "alone")
    assert Packed(f"{url}/val")[7]
    assert asked - {"look up 127.0.0.1"} == {server}


# What is refused


@pytest.mark.parametrize(
    ("address", "environment", "message"),
    [
        (
            "s3://nowhere/pack",
            {},
            "s3://nowhere/pack: no dataset.json (The specified bucket does not exist); "
            "expected a folder written by fcnseg data pack",
        ),
        (
            "s3://packs/nothing",
            {},
            "s3://packs/nothing: no dataset.json; expected a folder written by fcnseg data pack",
        ),
        (
            "s3://packs/pack",
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
            "s3://packs/pack: cannot be read (Unable to locate credentials); "
            "see AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...",
        ),
        (
            "s3://packs/pack",
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
            's3://packs/pack: cannot be read (Could not connect to the endpoint URL: "http://127.0.0.1:9/packs/pack/'
            'dataset.json"); see AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...',
        ),
        ("s9://packs/pack", {}, "s9://packs/pack: cannot be read (Protocol not known: s9)"),
        (
            "gs://packs/pack",
            {},
            "gs://packs/pack: Please install gcsfs to access Google Storage; S3 comes with pip install 'fcnseg[s3]'",
        ),
    ],
)
def test_what_cannot_be_reached_is_one_line(
    server: str,
    fcnseg: Callable,
    monkeypatch: pytest.MonkeyPatch,
    capsys,
    address: str,
    environment: dict,
    message: str,
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    for name, value in environment.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    assert fcnseg("train", "data=camvid", *SETTINGS, f"data.packed={address}", "hydra.run.dir=run") == 2
    assert capsys.readouterr().err.splitlines() == [f"fcnseg: {message}"]


def test_credentials_that_the_server_refuses(server: str, local: Path) -> None:
    url = upload(local, "refused")
    requests.post(f"{server}/moto-api/reset-auth", data="0", timeout=10)
    try:
        assert complaint(lambda: packed_nodes(url)) == (
            f"{url}: cannot be read (Forbidden); see AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ..."
        )
    finally:
        requests.post(f"{server}/moto-api/reset-auth", data="inf", timeout=10)


def test_missing_and_cut_shards_are_refused_at_once(server: str, local: Path) -> None:
    url = upload(local, "cut")
    client = boto3.client("s3")
    client.put_object(Bucket="packs", Key="cut/val/chunk-3-0.bin", Body=bytes(100))
    shard = f"{url}/val/chunk-3-0.bin"
    assert complaint(lambda: Packed(f"{url}/val")) == (
        f"{shard}: 100 bytes; expected {SHARD} bytes; pack the data again"
    )
    client.delete_object(Bucket="packs", Key="cut/val/chunk-3-0.bin")
    assert complaint(lambda: Packed(f"{url}/val")) == (f"{shard}: missing; expected {SHARD} bytes; pack the data again")


def test_shards_that_go_missing_later_are_named(server: str, local: Path) -> None:
    dataset = Packed(upload(local, "later") + "/val")
    client = boto3.client("s3")
    client.delete_object(Bucket="packs", Key="later/val/chunk-3-0.bin")
    assert complaint(lambda: dataset[9]) == f"{dataset.folder}/chunk-3-0.bin: missing; expected {SHARD} bytes"
    client.put_object(Bucket="packs", Key="later/val/chunk-3-0.bin", Body=bytes(100))
    assert complaint(lambda: dataset[9]) == f"{dataset.folder}/chunk-3-0.bin: 100 bytes; expected {SHARD} bytes"


def test_a_damaged_shard_is_noticed_and_a_damaged_copy_fetched_anew(server: str, local: Path, cache: Path) -> None:
    url = upload(local, "damaged")
    dataset = Packed(f"{url}/val")
    shard = bytearray((local / "val/chunk-1-0.bin").read_bytes())
    shard[5000] ^= 1
    boto3.client("s3").put_object(Bucket="packs", Key="damaged/val/chunk-1-0.bin", Body=bytes(shard))
    expected = f"{url}/val: sample 3 is damaged (its bytes have changed); pack the data again"
    assert complaint(lambda: dataset[3]) == expected
    assert same(dataset[4], Packed(local / "val")[4]), "the shard's other samples are not damaged"

    upload(local, "damaged")
    (copy,) = shards(cache)
    assert copy.read_bytes() == bytes(shard)
    for content in (bytes(shard), b"cut"):
        copy.write_bytes(content)
        assert same(Packed(f"{url}/val")[3], Packed(local / "val")[3])


def test_an_index_that_would_unpickle_is_refused_before_anything_is_fetched(
    server: str, local: Path, cache: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(local, tmp_path / "pack")) / "val"
    text = (folder / "index.json").read_text().replace('"str", "int"]', '"pickle", "int"]')
    (folder / "index.json").write_text(text)
    manifest = json.loads((folder / "dataset.json").read_text())
    manifest["files"]["index.json"] = len(text)
    (folder / "dataset.json").write_text(json.dumps(manifest))
    url = upload(folder.parent, "pickled")
    assert complaint(lambda: Packed(f"{url}/val")).startswith(f"{url}/val/index.json: data_format is ")
    assert not cache.exists()


def test_nothing_is_packed_to_a_store(server: str, fcnseg: Callable, tmp_path: Path, capsys) -> None:
    assert fcnseg("data", "pack", "output=s3://packs/new") == 2
    assert capsys.readouterr().err.splitlines() == [
        "fcnseg: output=s3://packs/new: expected a folder on a disk; copy it to the object store afterwards"
    ]
    assert not (tmp_path / "s3:").exists()

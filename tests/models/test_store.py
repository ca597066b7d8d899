"""The model store: what is saved comes back bit for bit, wherever it was, and any other file ends in one line."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import fcnseg
from fcnseg.data import CityScenes
from fcnseg.errors import InputError
from fcnseg.inference import Predictor
from fcnseg.labels import STREET11, VOC21, LabelSpace
from fcnseg.models import FCN, create_model
from fcnseg.models.caffemodel import NetParameter
from fcnseg.models.card import model_card
from fcnseg.models.loading import from_pretrained
from fcnseg.models.sources import DEMO
from fcnseg.models.upsampling import bilinear_kernel

PROVENANCE = {
    "training_data": {"train": {"real": "367 images", "synthetic": "2000 images"}, "ratio": [6, 4]},
    "metrics": {
        "mean_iou": 0.4375,
        "mean_accuracy": None,
        "step": 1200,
        "classes": {"sky": {"iou": 0.9375, "accuracy": 0.96875, "pixels": 12}, "pole": {"iou": None}},
    },
    "weights_source": "vgg16.caffemodel",
}


def trained(name: str = "fcn8s_vgg16_bn", **options: Any) -> FCN:
    """No score, bias or running mean is what a new model has, so that a lost tensor shows."""
    torch.manual_seed(0)
    arguments = {"num_classes": 11, "width": 0.05, "input_size": (32, 48), "label_space": STREET11.to_dict()}
    model = create_model(name, **(arguments | options)).eval()
    for key, values in model.state_dict().items():
        if key.endswith(("bias", "running_mean")) or key.startswith("score_"):
            nn.init.normal_(values)
    model.provenance = json.loads(json.dumps(PROVENANCE))
    return model


@pytest.fixture(scope="module")
def model() -> FCN:
    return trained()


@pytest.fixture
def folder(model: FCN, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def logits(model: FCN) -> torch.Tensor:
    channels = model.spec.in_channels
    images = torch.arange(channels * 45 * 50, dtype=torch.float32).reshape(1, channels, 45, 50) % 251
    with torch.inference_mode():
        return model(model.normalise(images))


def assert_equal(found: FCN, expected: FCN) -> None:
    assert found.spec == expected.spec
    assert not found.training
    assert logits(expected).std() > 0
    torch.testing.assert_close(logits(found), logits(expected), rtol=0, atol=0)


def edit(file: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def assert_refused(source: Path | str, *parts: str) -> None:
    with pytest.raises(InputError) as error:
        from_pretrained(source)
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fcn8s_vgg16_bn", {}),
        ("fcn32s_alexnet", {"input_size": None, "label_space": None, "num_classes": 2, "mean": (0.1, 1 / 3, 3.0)}),
        ("fcn16s_caffenet", {"padding": "caffe", "channel_order": "bgr", "width": 0.1}),
        ("fcn8s_vgg16", {"in_channels": 4, "dropout": 0.0}),
    ],
)
def test_round_trip_gives_equal_logits(tmp_path: Path, name: str, options: dict) -> None:
    model = trained(name, **options)
    model.save_pretrained(tmp_path)
    assert_equal(from_pretrained(tmp_path), model)


def test_every_way_to_a_folder_leads_to_the_same_model(model: FCN, folder: Path) -> None:
    for loaded in (
        fcnseg.from_pretrained(str(folder)),
        from_pretrained(folder / "model.safetensors"),
        fcnseg.Predictor.from_pretrained(folder, device="cpu").model,
    ):
        assert_equal(loaded, model)
        assert loaded.provenance == PROVENANCE


def test_a_model_in_another_memory_layout_or_precision_is_stored_in_float32(model: FCN, tmp_path: Path) -> None:
    trained().to(memory_format=torch.channels_last).save_pretrained(tmp_path / "last")
    assert_equal(from_pretrained(tmp_path / "last"), model)
    rounded = trained().to(torch.bfloat16)
    rounded.save_pretrained(tmp_path / "bf16")
    rounded.to(torch.float32).prepare(rounded.spec)  # mean and std were rounded too, and come from the spec
    assert_equal(from_pretrained(tmp_path / "bf16"), rounded)


def test_float16_halves_the_file_and_loads_as_float32(model: FCN, folder: Path, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "half", dtype="float16")
    half, whole = ((f / "model.safetensors").stat().st_size for f in (tmp_path / "half", folder))
    assert half == pytest.approx(whole / 2, rel=0.15)  # names and shapes take some
    loaded = from_pretrained(tmp_path / "half")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    expected = logits(model)
    torch.testing.assert_close(logits(loaded), expected, rtol=0, atol=float(2e-3 * expected.std()))
    assert not torch.equal(logits(loaded), expected)


def test_the_file_holds_what_its_readers_expect(model: FCN, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["library"] == "fcnseg"
    assert config["architecture"] == json.loads(json.dumps(model.spec.to_dict()))
    assert {key: config[key] for key in PROVENANCE} == PROVENANCE
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(model.state_dict())


def test_training_data_and_metrics_may_be_given(model: FCN, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, training_data={"set": "A"}, metrics={})
    expected = PROVENANCE | {"training_data": {"set": "A"}, "metrics": {}}
    assert from_pretrained(tmp_path).provenance == expected
    assert model.provenance == PROVENANCE


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), names=st.lists(NAMES, min_size=1, max_size=5, unique=True), space=NAMES)
def test_every_label_space_comes_back(tmp_path_factory: Any, data: st.DataObject, names: list, space: str) -> None:
    byte = st.integers(0, 255)
    palette = data.draw(st.lists(st.tuples(byte, byte, byte), min_size=len(names), max_size=len(names)))
    ids = data.draw(st.lists(st.integers(0, 254), min_size=len(names), max_size=len(names), unique=True))
    labels = LabelSpace(space, tuple(names), tuple(palette), tuple(ids))
    numbers = st.floats(1e-6, 1e6)
    mean, std = (data.draw(st.tuples(numbers, numbers, numbers)) for _ in range(2))
    model = create_model(
        "fcn32s_alexnet", num_classes=len(names), width=0.02, mean=mean, std=std, label_space=labels.to_dict()
    )
    folder = tmp_path_factory.mktemp("spaces")
    model.save_pretrained(folder)
    loaded = from_pretrained(folder)
    assert loaded.spec == model.spec
    assert LabelSpace(**loaded.spec.label_space) == labels
    rows = [line for line in (folder / "README.md").read_text(encoding="utf-8").split("\n") if line.startswith("| ")]
    assert len([row for row in rows if "`#" in row and row[2].isdigit()]) >= len(names)


# Other files


def layers(model: FCN) -> dict[str, torch.Tensor]:
    """A model's tensors under the names that Caffe and pytorch-fcn have for them."""
    return {name.removeprefix("backbone."): values for name, values in model.state_dict().items()}


def pytorch_fcn(model: FCN, path: Path) -> Path:
    names = {"upscore2": 4, "upscore_pool4": 4, "upscore8": 16}
    classes = model.spec.num_classes
    upsampling = {
        f"{name}.weight": torch.eye(classes)[:, :, None, None] * bilinear_kernel(size) for name, size in names.items()
    }
    torch.save(layers(model) | upsampling, path)
    return path


def caffe(model: FCN, path: Path) -> Path:
    net = NetParameter()
    for name, values in layers(model).items():
        if name.endswith(".weight"):
            layer = net.layer.add(name=name.removesuffix(".weight").encode())
        blob = layer.blobs.add(data=[values.numpy().astype("<f4").tobytes()])
        blob.shape.dim.extend(values.shape)
    path.write_bytes(net.SerializeToString())
    return path


@pytest.mark.parametrize(("write", "file"), [(pytorch_fcn, "fcn8s.pth"), (caffe, "fcn8s-heavy-pascal.caffemodel")])
def test_networks_of_other_programs(tmp_path: Path, write: Any, file: str) -> None:
    bgr = {"mean": (104.00699, 116.66876, 122.67892), "std": (1, 1, 1), "channel_order": "bgr"}
    model = trained(
        "fcn8s_vgg16",
        num_classes=21,
        width=0.125,
        padding="caffe",
        label_space=VOC21.to_dict(),
        input_size=None,
        **bgr,
    )
    again = from_pretrained(write(model, tmp_path / file))
    assert_equal(again, model)
    assert again.provenance == {"weights_source": file}
    again.save_pretrained(tmp_path / "ours")
    assert_equal(from_pretrained(tmp_path / "ours"), model)


@pytest.mark.parametrize("file", ["a.pth", "b.caffemodel", "c.ckpt", "d.txt", "README.md"])
def test_a_file_of_something_else(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_text("words\n")
    assert_refused(tmp_path / file, str(tmp_path / file))


# What does not load


@pytest.mark.parametrize("fraction", [0.0, 0.0005, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_truncated_file(folder: Path, name: str, fraction: float) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(fraction * len(data))])
    assert_refused(folder, str(folder / name), "or damaged")


@pytest.mark.parametrize(
    "data", [b"a text file\n", bytes(range(256)) * 9, b"[" * 100_000, b"\xff\xfe{", b"1" * 9999], ids=range(5)
)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_foreign_file(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)
    assert_refused(folder, str(folder / name), "or damaged")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert_refused(folder, str(folder / name), "no such file")
    (folder / name).mkdir()
    assert_refused(folder, str(folder / name))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"library": "transformers"}, "not of an fcnseg model"),
        ({"library": None}, "not of an fcnseg model"),
        ({"architecture": None}, "architecture is missing"),
        ({"fcnseg_version": None}, "fcnseg_version is missing"),
        ({"architecture": "fcn8s"}, "architecture is a str; expected a dict"),
        ({"metrics": [1]}, "metrics is a list; expected a dict"),
        ({"colour": 3}, "'colour' is unknown here"),
    ],
)
def test_config_of_something_else(folder: Path, changes: dict, expected: str) -> None:
    edit(folder / "config.json", **changes)
    assert_refused(folder, str(folder / "config.json"), expected)


def test_config_that_is_no_record(folder: Path) -> None:
    (folder / "config.json").write_text("[1, 2]")
    assert_refused(folder, str(folder / "config.json"), "not of an fcnseg model")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "fcn4s_vgg16"}, "unknown model 'fcn4s_vgg16'"),
        ({"name": 3}, "describes no model"),
        ({"name": None}, "name is missing"),
        ({"num_classes": None}, "num_classes is missing"),
        ({"num_classes": 2.5}, "describes no model"),
        ({"num_classes": 3}, "its label space has 11 classes"),
        ({"width": float("inf")}, "describes no model"),
        ({"label_space": {"classes": 3}}, "describes no model"),
        ({"label_space": STREET11.to_dict() | {"palette": [[0, 0, 300]] * 11}}, "colour (0, 0, 300)"),
    ],
)
def test_architecture_that_describes_no_model(folder: Path, changes: dict, expected: str) -> None:
    architecture = json.loads((folder / "config.json").read_text())["architecture"] | changes
    edit(folder / "config.json", architecture={k: v for k, v in architecture.items() if v is not None})
    assert_refused(folder, str(folder / "config.json"), expected)


def test_architecture_of_a_newer_version(folder: Path) -> None:
    architecture = json.loads((folder / "config.json").read_text())["architecture"] | {"attention": True}
    edit(folder / "config.json", architecture=architecture, fcnseg_version="9.1")
    assert_refused(folder, f"'attention' is unknown here (this is fcnseg {fcnseg.__version__}, the file by fcnseg 9.1)")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("fc7.weight", None, "fc7.weight missing"),
        ("fc9.weight", torch.ones(1), "fc9.weight unknown"),
        ("fc7.bias", torch.ones(3), "size mismatch for fc7.bias: (3,), expected ("),
        ("fc7.bias", torch.tensor(float("nan")), "fc7.bias has values that are not finite"),
        ("fc7.bias", torch.tensor(-torch.inf), "fc7.bias has values that are not finite"),
        ("fc7.bias", torch.tensor(1), "fc7.bias is torch.int64, expected torch.float32"),
    ],
)
def test_weights_that_do_not_fit(folder: Path, key: str, value: torch.Tensor | None, expected: str) -> None:
    path = folder / "model.safetensors"
    state = safetensors.torch.load_file(path)
    if value is not None and value.ndim == 0:
        value = value.expand(state[key].shape).contiguous()
    state = {k: v for k, v in (state | {key: value}).items() if v is not None}
    path.write_bytes(safetensors.torch.save(state))
    assert_refused(folder, str(path), expected)


@pytest.mark.parametrize("source", ["nowhere", "a/b/c", "runs/last.ckpt", "/nowhere/at/all", "x.caffemodel", "a b/c"])
def test_what_is_neither_a_path_nor_a_name_is_refused_at_once(tmp_path: Path, source: str, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(source, f"{source}: no such file or folder, and no name on the Hub")


# What is not saved


def test_values_that_have_no_place_in_the_files_are_refused(model: FCN, tmp_path: Path) -> None:
    for options in ({"metrics": {"mean_iou": float("nan")}}, {"training_data": {"data": tmp_path}}):
        with pytest.raises(InputError, match=r"config\.json: expected plain JSON values"):
            model.save_pretrained(tmp_path / "m", **options)
    with pytest.raises(InputError, match="dtype='int8': expected one of float32, float16"):
        model.save_pretrained(tmp_path / "m", dtype="int8")
    diverged = trained()
    diverged.fc7.bias.data[0] = 1e5
    diverged.save_pretrained(tmp_path / "fine")
    with pytest.raises(InputError, match=r"fc7\.bias: has values that are not finite as float16"):
        diverged.save_pretrained(tmp_path / "m", dtype="float16")
    assert not (tmp_path / "m").exists()


FULL_DISK = """
import resource, signal, sys
import fcnseg
model = fcnseg.create_model("fcn32s_alexnet", num_classes=3, width=0.02)  # 146 kB
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for about in (120_000, 1):
    for folder in sys.argv[1:]:
        try:
            model.save_pretrained(folder, training_data={"about": "x" * about})
        except OSError as error:
            print(error.filename)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits a file's size through POSIX resource limits")
def test_a_disk_that_fills_up_leaves_the_old_model_whole(model: FCN, folder: Path) -> None:
    """A limit on the size of files stands for the full disk: the write ends half-way with an OSError."""
    new = folder.parent / "new"
    command = [sys.executable, "-c", FULL_DISK, str(folder), str(new)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(f / n) for n in ("config.json", "model.safetensors") for f in (folder, new)]
    assert_equal(from_pretrained(folder), model)
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert list(new.iterdir()) == []


KILLED = """
import os, sys
import fcnseg

model = fcnseg.create_model("fcn32s_alexnet", num_classes=3, width=0.02)
replace = os.replace

def replace_or_die(source, target):
    global left
    if left == 0:
        os._exit(9)
    left -= 1
    replace(source, target)

os.replace = replace_or_die
for left, folder in enumerate(sys.argv[1:]):
    if os.fork() == 0:
        model.save_pretrained(folder)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks of a process")
def test_a_save_that_is_killed_never_looks_whole(model: FCN, tmp_path: Path) -> None:
    """Before the first, second and third file appears: never new weights under an old description, nor the reverse."""
    folders = [tmp_path / str(i) for i in range(4)]
    for folder in folders:
        model.save_pretrained(folder)
    done = subprocess.run([sys.executable, "-c", KILLED, *map(str, folders)], capture_output=True, text=True)
    assert done.stdout.split() == ["9", "9", "9", "0"], done.stderr
    for folder in folders[:3]:
        assert_refused(folder, str(folder / "config.json"), "no such file")
    assert from_pretrained(folders[3]).spec.name == "fcn32s_alexnet"


# The model card


def front_matter(card: str) -> tuple[dict, str]:
    _, matter, text = card.split("---\n", 2)
    return yaml.safe_load(matter), text


def test_the_card_tells_what_the_config_holds(model: FCN, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, license="cc-by-4.0")
    matter, text = front_matter((tmp_path / "README.md").read_text())
    assert matter["library_name"] == "fcnseg"
    assert matter["pipeline_tag"] == "image-segmentation"
    assert matter["license"] == "cc-by-4.0"
    assert "| 0 | sky | `#808080` | 0.938 | 0.969 |" in text
    assert "| 1 | building | `#800000` | - | - |" in text
    assert "| mean iou | 0.438 |" in text
    assert "| step | 1200 |" in text
    assert "  - real: 367 images\n" in text
    assert "- ratio: 6, 4\n" in text
    assert "32 x 48 (height x width)" in text
    assert "come from vgg16.caffemodel" in text


def test_a_card_without_facts_leaves_their_parts_out(tmp_path: Path) -> None:
    create_model("fcn32s_alexnet", num_classes=2, width=0.05, channel_order="bgr").save_pretrained(tmp_path)
    matter, text = front_matter((tmp_path / "README.md").read_text())
    assert "license" not in matter
    assert "2 classes without names" in text
    assert "blue, green, red" in text
    assert "## Scores" not in text
    assert "## Training data" not in text


def test_special_characters_stay_themselves() -> None:
    """Every character that means something in Markdown has a backslash before it, and no name breaks its row."""
    odd = "a|b*c_d`e<f>[g](h)\\ \n x"
    space = LabelSpace(odd, (odd, "ü"), ((1, 2, 3), (4, 5, 6)))
    model = create_model("fcn32s_alexnet", num_classes=2, width=0.05, label_space=space.to_dict())
    _, text = front_matter(model_card(model._config(training_data={odd: odd}), "mit: [x]\n---"))
    shown = "a\\|b\\*c\\_d\\`e\\<f\\>\\[g\\](h)\\\\ x"
    assert f"| 0 | {shown} | `#010203` |\n| 1 | ü | `#040506` |" in text
    assert f"- {shown}: {shown}\n" in text


def test_the_card_s_python_example_runs(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (60, 40)).save("photo.jpg")
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    exec(code.replace('"MODEL"', repr(str(folder))), {})
    assert Image.open("overlay.png").size == (60, 40)


# The Hub


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's protocol as a push and a download use; everything lies in `files`, in one commit."""

    files: dict[str, bytes] = {}  # noqa: RUF012
    commit = "c0ffee" * 6 + "cafe"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            self.answer({"url": f"http://{self.headers['Host']}/user/name"})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self.answer({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"http://{self.headers['Host']}/user/name/commit/{self.commit}"
            self.answer({"commitUrl": url, "commitOid": self.commit, "success": True})
        else:
            self.answer({})

    def do_GET(self) -> None:
        repository, name = self.path.split("?")[0].removeprefix("/api/models/").strip("/").split("/")[:2]
        file = self.path.split("/")[-1] if "/resolve/" in self.path else None
        if (repository, name) not in (("user", "name"), ("user", "empty"), ("user", "other")):
            self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif "nowhere" in self.path:
            self.answer({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        elif file is None:
            self.answer({"id": f"{repository}/{name}", "sha": self.commit, "siblings": []})
        elif name == "other" and file == "config.json":
            self.answer(b'{"library": "other"}', 200, {"ETag": '"1"', "X-Repo-Commit": self.commit})
        elif name != "name":
            self.answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        else:
            self.answer(self.files[file], 200, {"ETag": f'"{file}-1"', "X-Repo-Commit": self.commit})

    do_HEAD = do_GET  # noqa: N815

    def answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.files.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def elsewhere(code: str, cwd: Path, **environment: str) -> str:
    """What code prints in a process of its own; huggingface_hub reads its environment once, at import."""
    settings = {"HF_HOME": str(cwd / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": "hf_test", **environment}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | settings
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


PUSH = """
import sys
from fcnseg.models.sources import DEMO
from fcnseg import from_pretrained
model = from_pretrained("model")
model.push_to_hub("user/name", license="mit")
from_pretrained("user/name").save_pretrained("pulled")
for source, revision in [("user/name", "nowhere"), ("user/none", None), ("user/empty", None), ("user/other", None)]:
    try:
        from_pretrained(source, revision=revision)
    except ValueError as error:
        print(error)
"""

PULL = """
from fcnseg.models.sources import DEMO
from fcnseg import from_pretrained
from_pretrained("user/name").save_pretrained("from_cache")
try:
    from_pretrained("user/none")
except ValueError as error:
    print(error)
"""


def test_push_to_the_hub_and_pull_from_it_and_then_from_the_cache(
    model: FCN, folder: Path, tmp_path: Path, hub: str
) -> None:
    lines = elsewhere(PUSH, tmp_path, HF_ENDPOINT=hub).splitlines()
    assert lines[:3] == [
        "user/name: no such file or folder, and the model on the Hub has no revision nowhere",
        "user/none: no such file or folder, and the Hub has no such model, or it is private",
        "user/empty: no such file or folder, and the model on the Hub is none of fcnseg's: "
        "expected config.json and model.safetensors in it",
    ]
    assert "not of an fcnseg model" in lines[3], "seen before anything else is downloaded"
    assert sorted(Hub.files) == ["README.md", "config.json", "model.safetensors"]
    assert front_matter(Hub.files["README.md"].decode())[0]["license"] == "mit"
    assert_equal(from_pretrained(tmp_path / "pulled"), model)
    # An address at which nothing listens is a Hub that cannot be reached.
    for environment in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        printed = elsewhere(PULL, tmp_path, **environment).strip()
        assert printed == "user/none: no such file or folder, and the Hub could not be reached, nor is it in the cache"
        assert_equal(from_pretrained(tmp_path / "from_cache"), model)


def test_a_cache_in_the_hubs_own_layout_is_read(model: FCN, folder: Path, tmp_path: Path) -> None:
    commit, store = "0123456789abcdef" * 2 + "01234567", tmp_path / "models--user--name"
    snapshot = store / "snapshots" / commit
    for path in (store / "refs", store / "blobs", snapshot):
        path.mkdir(parents=True)
    (store / "refs" / "main").write_text(commit)
    for file in folder.iterdir():
        (store / "blobs" / f"{file.name}-etag").write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}-etag")
    for options in ({}, {"revision": "main"}, {"revision": commit}):
        loaded = from_pretrained("user/name", cache_dir=tmp_path, local_files_only=True, **options)
        assert_equal(loaded, model)
    edit(snapshot / "config.json", library="other")
    with pytest.raises(InputError, match=r"models--user--name.*config\.json: not of an fcnseg model"):
        from_pretrained("user/name", cache_dir=tmp_path, local_files_only=True)


def test_a_path_that_exists_comes_before_the_hub(model: FCN, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("user/name")
    assert_equal(from_pretrained("user/name"), model)


def test_the_demo_model_comes_with_the_package() -> None:
    model = from_pretrained("demo")
    assert LabelSpace(**model.spec.label_space) == STREET11
    assert model.provenance["metrics"]["mean_iou"] > 0.6
    assert (DEMO / "model.safetensors").stat().st_size <= 5_000_000


def test_the_demo_weights_start_a_model_too(capsys: pytest.CaptureFixture[str]) -> None:
    demo = from_pretrained("demo")
    model = create_model("fcn8s_vgg16_bn", num_classes=11, weights="demo").eval()
    assert model.spec == replace(demo.spec, dropout=model.spec.dropout)
    image = torch.randn(1, 3, 40, 50)
    with torch.inference_mode():
        assert torch.equal(model(image), demo(image))
    other = create_model("fcn8s_vgg16_bn", num_classes=3, in_channels=1, weights="demo")
    assert (other.spec.width, other.spec.label_space) == (demo.spec.width, None)
    assert "starts at zero again" in capsys.readouterr().out


def test_the_demo_model_scores_what_its_card_says() -> None:
    """On the first scenes of those that it was scored on; the card's value is of a hundred."""
    predictor, scenes = Predictor.from_pretrained("demo"), CityScenes(8, seed=1, look="real", size=(180, 240))
    right = [(predictor(image).mask == mask)[mask < 11].mean() for image, mask, _ in (scenes[i] for i in range(8))]
    expected = predictor.model.provenance["metrics"]["pixel_accuracy"]
    assert sum(right) / len(right) == pytest.approx(expected, abs=0.05)

"""The benchmark's rows, against arithmetic; that it survives a lack of memory; and what its files say."""

import csv
import getpass
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fcnseg.errors import InputError
from fcnseg.inference.benchmark import Settings, benchmark
from fcnseg.inference.timing import FORMS
from fcnseg.models import FCN, create_model, summarise

SMALL = [(24, 32)]
ABSURD = 10**12
"""A batch whose bytes no address space holds, so that allocating them fails at once."""


def tiny(name: str = "fcn8s_vgg16", **options: object) -> FCN:
    return create_model(name, num_classes=5, width=0.05, **options)  # type: ignore[arg-type]


def test_there_is_a_row_for_every_combination_in_order():
    settings = Settings(
        size=[(24, 32), (33, 17)], batch=[1, 2], precision=["32-true", "bf16-mixed"], form=["plain", "channels_last"],
        what=["forward", "step"], rounds=2, memory=False,
    )  # fmt: skip
    models = {"one": tiny(), "two": tiny("fcn32s_alexnet")}
    calls: list[None] = []
    rows = benchmark(models, settings, advance=lambda: calls.append(None)).rows
    assert len(calls) == settings.calls * len(models)
    places = [(r.case.what, r.case.size, r.case.batch, r.model, r.case.form, r.case.precision) for r in rows]
    assert len(set(places)) == len(places) == 2 * 2 * 2 * 2 * 2 * 2
    assert places[:3] == [
        ("forward", (24, 32), 1, "one", "plain", "32-true"),
        ("forward", (24, 32), 1, "one", "plain", "bf16-mixed"),
        ("forward", (24, 32), 1, "one", "channels_last", "32-true"),
    ]
    assert {len(row.seconds) for row in rows} == {2}
    assert {row.memory for row in rows} == {None}


def test_every_form_is_measured():
    settings = Settings(size=SMALL, precision=["bf16-mixed"], form=list(FORMS), rounds=1, memory=False)
    rows = benchmark({"model": tiny()}, settings).rows
    assert [(row.case.form, len(row.seconds)) for row in rows] == [(form, 1) for form in FORMS]


def test_numbers_follow_from_the_seconds_and_the_multiply_adds():
    model = tiny(padding="caffe")
    settings = Settings(size=SMALL, batch=[3], what=["forward", "step"], rounds=3)
    forward, step = benchmark({"model": model}, settings).rows
    for row, times in ((forward, 1), (step, 3)):
        seconds = sorted(row.seconds)
        assert (row.least, row.median) == (seconds[0], seconds[1])
        assert row.p90 == pytest.approx(seconds[1] + 0.8 * (seconds[2] - seconds[1]))
        assert row.images_per_second == pytest.approx(3 / seconds[1])
        gflop = times * 2 * 3 * summarise(model, (24, 32)).multiply_adds / 1e9
        assert row.gflop == pytest.approx(gflop)
        assert row.gflop_per_second == pytest.approx(gflop / seconds[1])
        assert row.padding == "caffe"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory is left out")
def test_memory_grows_with_what_is_kept():
    """Weights, images and masks at least; more for several images, and for the backward's activations."""
    model = tiny()
    settings = Settings(size=[(96, 128)], batch=[1, 8], what=["forward", "step"], rounds=1)
    memory = {(r.case.what, r.case.batch): r.memory or 0 for r in benchmark({"model": model}, settings).rows}
    weights = sum(p.nbytes for p in model.parameters())
    assert memory["forward", 1] > weights + 96 * 128 * (3 * 4 + 8)
    assert memory["forward", 8] > 2 * memory["forward", 1]
    assert memory["step", 8] > 2 * memory["forward", 8]


def test_a_model_and_torch_are_left_as_they_were():
    model = tiny().train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    threads = torch.get_num_threads()
    settings = Settings(size=SMALL, form=["channels_last"], what=["step"], rounds=1, threads=threads + 1, memory=False)
    measured = benchmark({"model": model}, settings)
    assert measured.machine["threads"] == threads + 1
    assert torch.get_num_threads() == threads
    assert model.training
    assert all(p.grad is None and p.is_contiguous() for p in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("memory", [True, False])
def test_what_has_no_memory_says_so_and_the_others_go_on(memory):
    settings = Settings(size=SMALL, batch=[ABSURD, 1], rounds=1, memory=memory)
    models = {"one": tiny(), "two": tiny("fcn32s_alexnet")}
    rows = benchmark(models, settings).rows
    assert [row.problem for row in rows] == ["out of memory"] * 2 + [""] * 2
    assert [len(row.seconds) for row in rows] == [0, 0, 1, 1]
    failed = rows[0].to_dict()
    assert failed["problem"] == "out of memory"
    assert [failed[key] for key in ("median_s", "images_per_s", "gflop_per_s", "memory_bytes")] == [None] * 4


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_memory_that_ends_within_the_network_is_survived():
    """Images fit, and their features do not: there is address space for a little more than the images."""
    script = """
import resource
from pathlib import Path
import torch
from fcnseg.inference.benchmark import Settings, benchmark
from fcnseg.inference.timing import Case, random_batch
from fcnseg.models import create_model
models = {"model": create_model("fcn8s_vgg16", num_classes=5, width=0.05)}
settings = Settings(size=[(1000, 1500), (24, 32)], batch=[4], rounds=1, what=["forward", "step"], memory=False)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 160_000_000,) * 2)
random_batch(Case("plain", "32-true", "forward", (1000, 1500), 4), 3, 5, torch.device("cpu"))
print([row.problem for row in benchmark(models, settings, device="cpu").rows])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(["out of memory", "", "out of memory", ""])


def test_files_say_what_the_rows_do(tmp_path: Path):
    settings = Settings(size=SMALL, batch=[1, ABSURD], rounds=2)
    measured = benchmark({"model": tiny()}, settings)
    measured.write(tmp_path / "new")
    content = json.loads((tmp_path / "new/benchmark.json").read_text())
    assert content == measured.to_dict()
    assert [row["rounds_s"] for row in content["rows"]] == [list(row.seconds) for row in measured.rows]
    with (tmp_path / "new/benchmark.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    texts = [{k: "" if v is None else str(v) for k, v in row.to_dict().items()} for row in measured.rows]
    assert rows == texts


def test_the_machine_is_described_without_names_of_hosts_users_and_folders():
    machine = benchmark({"model": tiny()}, Settings(size=SMALL, rounds=1, memory=False), device="cpu").machine
    assert machine["torch"] == torch.__version__
    assert machine["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert machine.keys() >= {"date", "device", "device_name", "threads"}
    texts = [str(value) for value in machine.values()]
    assert not {socket.gethostname(), getpass.getuser()} & set(texts)
    assert not any(str(Path(text).anchor) for text in texts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": [(0, 32)]}, r"size=\[0, 32\]: expected a height and a width"),
        ({"size": [(32,)]}, r"size=\[32\]: expected a height and a width"),
        ({"size": [(32, 3.5)]}, r"size=\[32, 3.5\]: expected a height and a width"),
        ({"size": []}, r"size=\[\]: expected one value at least"),
        ({"batch": [0]}, "batch=0: expected a whole number from 1 on"),
        ({"batch": [True]}, "batch=True: expected a whole number from 1 on"),
        ({"rounds": 0}, "rounds=0: expected a whole number from 1 on"),
        ({"threads": -1}, "threads=-1: expected a whole number from 1 on"),
        (
            {"form": ["folded"]},
            "form=folded: expected one of plain, channels_last, checkpointed, compiled_training, optimised, compiled",
        ),
        ({"form": ["plain", "compiled"], "what": ["step"]}, "form=compiled: is for inference alone"),
        ({"precision": ["fp32"]}, "precision=fp32: expected one of 32-true, bf16-mixed, 16-mixed"),
        ({"what": ["backward"]}, "what=backward: expected one of forward, step"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Settings(**options)


def test_no_models_are_refused():
    with pytest.raises(InputError, match="expected one model at least"):
        benchmark({}, Settings())

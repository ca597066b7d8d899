"""The GPU report without a GPU: every part in a dry run, and what becomes of parts that fail, hang or come too late."""

import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpu_report
import pytest
import torch
from gpu_report import ORACLE, PARTS, Runner
from gpu_settings import TINY, Settings
from gpu_training import wait_for_all
from gpu_writing import HEADINGS, Result, markdown, shown, write
from torch.utils.flop_counter import FlopCounterMode

from fcnseg.models import create_model, summarise

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_report.py"


DRY_RUN = ("--device", "cpu", "--dry-run", "--output")


def parts(output: Path) -> dict[str, Any]:
    return json.loads((output / "report.json").read_text())["parts"]


def measured(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in part["rows"] if "skipped" not in row]


@pytest.mark.slow
def test_a_whole_dry_run(tmp_path: Path) -> None:
    """One for all that is asked of it: it takes minutes, and a fixture would be made by each process of the tests."""
    output = tmp_path / "report"
    done = subprocess.run([sys.executable, SCRIPT, *DRY_RUN, output], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    every_part_is_carried_out(output)
    what_a_processor_cannot_do_is_left_out_with_the_reason(output)
    a_processor_agrees_with_itself(output)
    rates_belong_to_their_times(output)
    the_tables_have_the_numbers_of_the_json_file(output)


def every_part_is_carried_out(report: Path) -> None:
    found = parts(report)
    assert list(found) == list(PARTS)
    for name, part in found.items():
        assert (part["error"], part["skipped"], part["failed"]) == (None, None, False), name
        assert measured(part), name
        numbers = [value for row in part["rows"] for value in row.values() if isinstance(value, int | float)]
        assert all(math.isfinite(number) for number in numbers), name
        assert all(row["ok"] for row in part["rows"] if row.get("ok") is not None), name
    assert sorted(path.name for path in report.iterdir()) == ["report.json", "report.md"]


def what_a_processor_cannot_do_is_left_out_with_the_reason(report: Path) -> None:
    reasons = {row["skipped"] for part in parts(report).values() for row in part["rows"] if "skipped" in row}
    assert reasons == {"TF32 needs a GPU", "fp16 needs a GPU", "16-mixed needs a GPU"}


def a_processor_agrees_with_itself(report: Path) -> None:
    found = parts(report)
    scores = {(row["network"], row["precision"]): row["relative"] for row in measured(found["scores"])}
    assert len(scores) == 10
    for (_, precision), relative in scores.items():
        assert 0 < relative < (1e-5 if precision == "float32" else 0.1)
    agreement = {row["precision"]: row["agreement"] for row in measured(found["masks"])}
    assert agreement["float32"] == 1
    assert 0.98 < agreement["bf16"] <= 1
    for row in measured(found["training"]):
        assert row["first_loss"] == pytest.approx(math.log(11), rel=1e-3), "all scores of a new network are zeros"
        assert row["last_loss"] < row["first_loss"]
    for row in measured(found["resuming"]):
        assert (row["steps"], row["resumed_steps"], row["max_difference"], row["equal"]) == (6, 3, 0, True)
    assert [row["strategy"] for row in measured(found["processes"])] == ["ddp", "fsdp"]
    for row in measured(found["processes"]):
        assert 0 < row["of_weights"] < row["of_way"] < 1e-4


def rates_belong_to_their_times(report: Path) -> None:
    found = parts(report)
    for row in measured(found["ceiling"]):
        assert row["tflops"] == pytest.approx(2 * row["size"] ** 3 / row["milliseconds"] / 1e9)
    rates = {row["precision"]: row["tflops"] for row in measured(found["ceiling"])}
    for row in measured(found["throughput"]) + measured(found["compiled"]):
        assert row["images_per_second"] == pytest.approx(row["batch"] / row["milliseconds"] * 1000)
        if "reusing" in row["what"]:
            assert row["tflops"] is row["share"] is None
            continue
        assert row["share"] == pytest.approx(row["tflops"] / rates[row["precision"]])
        assert 0 < row["share"] < 50, "of products so small that they are no ceiling"
        counted = flop(row["padding"], row["batch"]) * (3 if row["what"] == "training step" else 1)
        assert row["tflops"] * row["milliseconds"] * 1e9 == pytest.approx(counted)
    assert len(measured(found["peers"])) >= 8
    for row in measured(found["loading"]):
        assert row["share"] == pytest.approx(row["wait_ms"] / row["step_ms"])
        assert 0 < row["share"] < 1


def flop(padding: str, batch: int) -> float:
    """Operations of a forward: convolutions and products as torch counts them, upsamplings by their rows."""
    with torch.device("meta"), torch.no_grad():
        model = create_model("fcn8s_vgg16", num_classes=21, padding=padding, width=TINY.full_width).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(batch, 3, *TINY.image))
    rows = summarise(model, TINY.image).rows
    upsampling = sum(row.multiply_adds for row in rows if row.layer.name.startswith("upscore"))
    return counter.get_total_flops() + 2 * batch * upsampling


def the_tables_have_the_numbers_of_the_json_file(report: Path) -> None:
    sections = (report / "report.md").read_text().split("\n## ")[1:]
    assert len(sections) == len(PARTS)
    for section, (name, part) in zip(sections, parts(report).items(), strict=True):
        assert section.splitlines()[0] == name
        head, rule, *lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
        rows = measured(part)
        assert len(rule[0].split("---")) == len(head) + 1
        keys = list(dict.fromkeys(key for row in rows for key in row))
        assert head == [HEADINGS.get(key, key) for key in keys]
        assert lines == [[shown(row.get(key)) for key in keys] for row in rows]


@pytest.mark.slow
def test_parts_that_fail_are_told_and_the_others_go_on(carry_out: Callable, tmp_path: Path) -> None:
    damaged = shutil.copytree(ORACLE, tmp_path / "oracle")
    (damaged / "8s.npz").write_bytes(b"PK\3\4 and no more")
    (damaged / "alexnet.npz").unlink()
    shutil.copy(damaged / "16s.npz", damaged / "32s.npz")  # another network's scores
    output = tmp_path / "report"
    code, shown, errors = carry_out(gpu_report, *DRY_RUN, output, "--parts", "ceiling", "scores", "--oracle", damaged)
    assert code == 1, errors[-3000:]
    found = parts(output)
    assert list(found) == ["scores", "ceiling"]
    assert (found["scores"]["failed"], found["ceiling"]["failed"]) == (True, False)
    assert measured(found["ceiling"])
    wrong = {row["network"]: row.get("error") for row in found["scores"]["rows"] if row.get("precision") == "float32"}
    assert wrong["8s"].startswith("BadZipFile: ")
    assert wrong["alexnet"] == f"FileNotFoundError: [Errno 2] No such file or directory: '{damaged / 'alexnet.npz'}'"
    assert [wrong[name] for name in ("16s", "8s-atonce", "32s")] == [None] * 3
    text = (output / "report.md").read_text()
    assert "## scores FAILED" in text
    assert "\n## ceiling\n" in text
    for network in ("8s", "alexnet"):
        assert f"- FAILED {network}, float32: {wrong[network]}\n" in text
    assert "- FAILED 32s, float32, ok no: not as expected\n" in text
    assert "scores      FAILED" in shown


@pytest.mark.slow
def test_nothing_begins_after_the_budget(carry_out: Callable, tmp_path: Path) -> None:
    code, _, errors = carry_out(gpu_report, *DRY_RUN, tmp_path, "--budget", 0, "--parts", "ceiling", "peers")
    assert code == 0, errors[-3000:]
    for part in parts(tmp_path).values():
        assert part["rows"] == []
        assert part["skipped"].endswith("s were spent, of a budget of 0 s")
    assert (tmp_path / "report.md").read_text().count("Skipped: ") == 2


@pytest.mark.slow
def test_a_part_that_hangs_is_ended() -> None:
    rows: list[dict[str, Any]] = []
    settings = Settings("cpu", TINY, ORACLE)
    began = time.monotonic()
    assert Runner("cpu")("throughput", settings, 0.0, rows.append) == "ended after 0 s, in which it was not done"
    assert rows == []
    assert time.monotonic() - began < 60


def test_it_wants_a_gpu_or_a_dry_run(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--output", tmp_path, "--device", "cpu"], capture_output=True)
    assert done.returncode == 2
    assert b"--device cpu: takes hours; expected --dry-run beside it" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, on which it would take minutes")
def test_without_a_gpu_it_says_how_to_try_it(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--output", tmp_path / "gpu"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "torch sees no GPU; expected one, or --device cpu --dry-run to try the script" in done.stderr
    assert not (tmp_path / "gpu").exists()


def test_a_process_that_fails_ends_the_other(tmp_path: Path) -> None:
    running = {}
    for name, code in (("waits", "import time; time.sleep(60)"), ("fails", "import sys; sys.exit('no GPU for me')")):
        with open(tmp_path / name, "w") as errors:
            running[errors.name] = subprocess.Popen([sys.executable, "-c", code], stderr=errors)
    with pytest.raises(RuntimeError, match="no GPU for me"):
        wait_for_all(running, seconds=30)
    assert all(process.poll() for process in running.values())


def test_processes_that_wait_for_one_another_are_ended(tmp_path: Path) -> None:
    with open(tmp_path / "waits", "w") as errors:
        running = {errors.name: subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stderr=errors)}
    with pytest.raises(RuntimeError, match="ended after 0 s, not done"):
        wait_for_all(running, seconds=0.3)
    assert all(process.poll() for process in running.values())


def test_a_loss_that_is_no_number_is_seen_in_both_files(tmp_path: Path) -> None:
    rows = [{"training": "16-mixed", "last_loss": math.nan, "ok": False}]
    results = {"training": Result("Losses.", 1.0, rows), "peers": Result("Peers.", error="not done yet")}
    write(tmp_path, {"date": "today"}, results)
    (row,) = parts(tmp_path)["training"]["rows"]
    assert row == {"training": "16-mixed", "last_loss": "nan", "ok": False}
    text = markdown({"date": "today"}, results)
    assert "| 16-mixed | nan | no |" in text
    assert "- FAILED not done yet" in text
    assert (tmp_path / "report.md").read_text() == text

"""The benchmark of loading: every way to read is measured, on either kind of frames."""

import re
import sys
from pathlib import Path

import benchmark_loading
import pytest

from fcnseg.data.citygen.synthia_layout import write_synthia

WAYS = ("plain, on PIL images", "plain, on tensors", "read alone, plain", "read alone, fcnseg")
STORED = ("fcnseg, files", "fcnseg, packed", "fcnseg, cache=disk", "fcnseg, cache=ram")


@pytest.mark.parametrize("source", ["root", "frames"])
def test_every_way_to_read_is_measured(
    camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    if source == "frames":
        write_synthia(tmp_path, 5, size=(30, 40))
    folder = camvid if source == "root" else tmp_path
    quick = ["--sizes", "24x32", "--workers", "0", "--rounds", "1", "--samples", "10"]
    monkeypatch.setattr(sys, "argv", ["benchmark_loading.py", f"--{source}", str(folder), *quick])
    benchmark_loading.main()
    printed = capsys.readouterr().out
    rates = {name.strip(): float(rate) for name, rate in re.findall(r"^  (.{21}) +([\d.]+)  \(", printed, re.M)}
    assert tuple(rates) == (*WAYS, *STORED)
    assert min(rates.values()) > 0

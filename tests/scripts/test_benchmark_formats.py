"""The comparison of packed shards and the file of cache=disk runs, and both hold the same bytes."""

import sys
from pathlib import Path

import benchmark_formats
import pytest


def test_both_formats_are_measured(camvid: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark_formats.py", "--root", str(camvid), "--rounds", "1"])
    monkeypatch.setattr(benchmark_formats, "available_cores", lambda: 2)
    benchmark_formats.main()
    rows = [line.rsplit(maxsplit=5) for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[0].strip() for row in rows] == ["packed, 1 process", "packed, 2 processes", "cache=disk"]
    assert {row[3] for row in rows} == {"0.1"}  # MB
    assert all(float(row[1]) > 0 and float(row[4]) > 0 for row in rows)

"""A host that trains with another one is lost: the other one ends within the bound that is set, or goes on alone."""

import json
import os
import shutil
import subprocess

import pytest
from cut_hosts import GO_ON, WAYS, Outcome, lose

WITHIN = 5.0


def permitted() -> bool:
    """Whether namespaces can be made here."""
    if os.name != "posix" or shutil.which("ip") is None or os.geteuid() != 0:
        return False
    made = subprocess.run(["ip", "netns", "add", "fcnsegtry"], check=False, capture_output=True)
    subprocess.run(["ip", "netns", "del", "fcnsegtry"], check=False, capture_output=True)
    return made.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not permitted(), reason="network namespaces want ip of iproute2 and the rights of root")
@pytest.mark.parametrize("way", WAYS)
def test_no_host_waits_for_one_that_is_lost(tmp_path, way):
    elastic = way == "a host is gone for good"
    outcome = lose(way, tmp_path, WITHIN, "c10d" if elastic else "static", steps=60)
    first, second = outcome.codes
    assert first is not None, outcome.shown[0]
    assert second is not None, outcome.shown[1]
    if way in GO_ON:
        assert first == 0, outcome.shown[0]
        assert json.loads((tmp_path / "run" / "metrics.json").read_text())
        return
    assert first == 1, outcome.shown[0]
    assert said(outcome, "rank 1 on "), outcome.shown
    assert said(outcome, "go on with the same settings and resume=run/checkpoints/last.ckpt"), outcome.shown


def said(outcome: Outcome, words: str) -> bool:
    return any(line.startswith("fcnseg: ") and words in line for text in outcome.shown for line in text.splitlines())

"""Work that several processes share: in order, and nothing left behind when one fails, is killed or is not wanted."""

import multiprocessing
import os
import signal
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from fcnseg.errors import InputError
from fcnseg.inference.device import devices_of
from fcnseg.inference.processes import on_devices
from tests.inference.tasks import fail, tell_and_wait

TWO = ["cpu", "cpu"]


def test_an_error_of_one_ends_all_and_is_what_it_was() -> None:
    began = time.monotonic()
    with pytest.raises(OSError, match="No space left") as raised:
        list(on_devices(TWO, fail, [0, 1]))
    assert (raised.value.errno, raised.value.filename) == (28, "masks/b.png")
    assert "in fail" in raised.value.__notes__[0], "it tells where it was raised"
    assert not multiprocessing.active_children()
    assert time.monotonic() - began < 60


def test_what_is_found_comes_in_order_and_one_that_is_killed_ends_all_in_one_line(tmp_path: Path) -> None:
    heard: list[int] = []
    with closing(on_devices(TWO, partial(tell_and_wait, tmp_path), [5, 6, 7, 8], heard.append)) as found:
        assert [next(found), next(found)] == [5, 6]
        assert heard == [1, 0], "the second process was faster"
        second = next(each for each in multiprocessing.active_children() if each.name == "fcnseg-1")
        os.kill(second.pid or 0, signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(InputError, match=rf"process {second.pid}, which computed on cpu, was killed by SIGKILL"):
            next(found)
    assert not multiprocessing.active_children()
    assert time.monotonic() - began < 20


def test_which_devices_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices_of("cpu", 1) == devices_of("cpu", "all") == ["cpu"]
    assert devices_of("cpu", 3) == ["cpu"] * 3
    for wrong in (0, "some", True, 1.5):
        with pytest.raises(InputError, match=f"devices={wrong}: expected all, or a number from 1 on"):
            devices_of("cpu", wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="devices=2: there are 1 of device=meta"):
        devices_of("meta", 2)
    with pytest.raises(InputError, match="devices=all: device=meta:1 is a single one; expected device=meta or auto"):
        devices_of("meta:1", "all")

"""The simulator of trainings on many GPUs: what must hold of any prediction, and its command as printed."""

import json
import math
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from simulate_scaling import (
    EXAMPLE,
    Cluster,
    Network,
    all_reduce,
    buckets,
    check,
    network_of,
    ring,
    ring_bytes,
    sharded,
    step,
    tree,
)

SCRIPT = Path(__file__).parents[2] / "scripts" / "simulate_scaling.py"
LINK = Cluster(8, 300e9, 100e9, 3e-6, 10e-6)
NETWORK = Network(((4_000_000, 10), (40_000_000, 70), (400_000_000, 20)), normalisations=3)


def seconds(devices: int, link: Cluster = LINK, **options: float) -> float:
    return step(NETWORK, link, devices, 0.05, 0.0, 25e6, **options).seconds


def test_one_device_has_nothing_to_average() -> None:
    assert all_reduce(1e9, 1, LINK) == ring_bytes(1e9, 1) == 0
    assert seconds(1) == 0.05
    assert step(NETWORK, LINK, 1, 0.05, 0.2, 25e6).seconds == 0.2, "it waits for images alone"


@pytest.mark.parametrize("devices", [2, 8, 64, 1024])
def test_a_ring_sends_the_published_bytes_at_the_pace_of_its_slowest_link(devices: int) -> None:
    """Chunks of 1 / n in n - 1 steps of adding and as many of handing round, counted one by one."""
    assert ring_bytes(1e9, devices) == pytest.approx(sum(1e9 / devices for _ in range(2 * (devices - 1))))
    free = Cluster(8, LINK.within, LINK.between, 0, 0)
    pace = LINK.within if devices <= 8 else LINK.between
    assert ring(1e9, devices, free) == pytest.approx(ring_bytes(1e9, devices) / pace)
    between = 2 * (max(1, devices // 8) - 1)
    hops = (2 * (devices - 1) - between) * 3e-6 + between * 10e-6
    assert ring(0, devices, LINK) == pytest.approx(hops)


def test_trees_win_where_messages_are_small_and_many_share_them() -> None:
    assert tree(1e3, 1024, LINK) < ring(1e3, 1024, LINK)
    assert ring(1e9, 16, LINK) < tree(1e9, 16, LINK)


def test_a_step_is_no_slower_on_faster_links_and_no_faster_than_computing() -> None:
    for devices in (2, 16, 1024):
        times = [seconds(devices, Cluster(8, 3 * speed, speed, 3e-6, 10e-6)) for speed in (1e9, 1e10, 1e11, 1e12)]
        assert times == sorted(times, reverse=True)
        assert times[0] > times[-1] > 0.05
        assert seconds(devices, compress=0.5) <= seconds(devices)
        apart = Cluster(8, 300e9, 100e9, 3e-6, 10e-6, overlap=False)
        assert seconds(devices, apart) > seconds(devices), "beside computing less of it is waited for"


def test_buckets_hold_everything_in_the_order_of_the_backward_pass() -> None:
    found = buckets(NETWORK, 25e6)
    assert [size for _, size in found] == [400_000_000, 40_000_000, 4_000_000]
    assert [share for share, _ in found] == pytest.approx([0.2, 0.9, 1.0])
    assert buckets(NETWORK, math.inf) == [(0.2, 400_000_000), (1.0, 44_000_000)], "the first one is small"


def test_sharded_parameters_send_half_as_much_again() -> None:
    slow = Cluster(8, 1e9, 1e9, 0, 0)
    plain = step(Network(NETWORK.layers), slow, 8, 0.0, 0.0, 25e6)
    assert sharded(Network(NETWORK.layers), slow, 8, 0.0, 0.0).averaging == pytest.approx(
        1.5 * plain.averaging, rel=0.01
    )


def test_networks_are_those_of_the_package() -> None:
    """134.3 M parameters as README has them, of 11 classes; 19 have a few more scores."""
    whole, narrow = network_of("fcn8s_vgg16", (512, 1024)), network_of("fcn8s_vgg16", (512, 1024), fc_channels=512)
    assert whole.bytes / 4e6 == pytest.approx(134.3, abs=0.1)
    assert narrow.bytes < whole.bytes / 4
    assert whole.normalisations == 0
    assert network_of("fcn8s_vgg16_bn", (64, 64)).normalisations == 13


def test_a_measurement_is_predicted_from_its_parts(tmp_path: Path) -> None:
    """Links of 1 GB/s and 100 us a hop, and steps that take what follows from them."""
    sums = {4: 200e-6, 4_000_000: 200e-6 + 4e-3}
    found = {
        "model": "fcn8s_vgg16, width 0.25", "size": [180, 240], "processes": 2, "averaging": sums, "apart": 0.5,
        "together": 0.55,
    }  # fmt: skip
    path = tmp_path / "measured.json"
    path.write_text(json.dumps(found))
    network = network_of("fcn8s_vgg16", (180, 240), 0.25)
    link, after, beside = check(path)
    assert link.startswith("1.00 GB/s and 100 us a hop")
    expected = 500 + network.bytes / 1e6 + 0.2 * len(buckets(network, 25e6)) + 2 * 0.2041
    assert after.startswith(f"averaging after computing: {expected:.0f} ms a step predicted, 550 measured")
    assert beside.startswith("averaging beside computing: 50")


def test_the_command_prints_what_it_says() -> None:
    words = shlex.split(EXAMPLE.removeprefix("example: python scripts/simulate_scaling.py"))
    done = subprocess.run([sys.executable, SCRIPT, *words], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("Predicted, not measured")
    table = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row[0] for row in table[1:5]] == ["1", "8", "64", "1,024"]
    assert table[1][2] == "0 MB"
    assert float(table[4][4].split()[0].replace(",", "")) > 500 * float(table[1][4].split()[0])

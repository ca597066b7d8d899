"""What several tests share: tiny datasets in their true layout, and the command line in this process."""

import os
import signal
import sys

# One thread per process: the networks here are small, and several processes share two cores. Before torch is loaded,
# which reads it once; sums over several threads have other roundings, and some tests compare bits across processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# As the command has it, before torch is loaded: its C++ tells of lost connections at length.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from hypothesis import settings
from PIL import Image

from fcnseg.data import CityScenes
from fcnseg.user_cache import user_cache

settings.register_profile("fcnseg", deadline=None)  # a machine may be busy
settings.load_profile("fcnseg")

SHARED = Path(__file__).parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that no process is left with a notebook when all others are done."""
    items.sort(key=lambda item: (item.get_closest_marker("slow") is None, "notebook" not in item.nodeid))


@pytest.fixture(autouse=True, scope="session")
def own_user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that is kept on this host is read or left behind, but for compiled kernels, which take minutes."""
    with pytest.MonkeyPatch.context() as patch:
        kernels = os.environ.get("TORCHINDUCTOR_CACHE_DIR", str(user_cache() / "kernels"))
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", kernels)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("user_cache")))
        yield


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """Street scenes written in CamVid's layout: 8 to train on, 4 to validate on, at 64x48."""
    root = tmp_path / "camvid"
    for split, seed, count in (("train", 0, 8), ("val", 1, 4)):
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for image, mask, name in (CityScenes(count, seed, "real", (48, 64))[i] for i in range(count)):
            Image.fromarray(image).save(root / split / f"{name}.png")
            Image.fromarray(np.where(mask == 255, 11, mask).astype(np.uint8)).save(
                root / f"{split}annot" / f"{name}.png"
            )
    return root


@pytest.fixture
def fcnseg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Run an `fcnseg` command in this process and in an empty folder; returns the exit code."""
    from fcnseg.commands.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["fcnseg", *map(str, arguments)])
        GlobalHydra.instance().clear()
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return run


@pytest.fixture(autouse=True)
def spare_captured_output() -> None:
    """absl, which OpenVINO and TensorBoard bring, closes the stream of its log when Hydra sets up logging anew.

    It spares the process's own streams; pytest's it takes for files.
    """
    if "absl.logging" in sys.modules:
        sys.modules["absl.logging"].get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.fixture(autouse=True)
def heed_interrupts() -> Iterator[None]:
    """Processes that tests start react to SIGINT, also where a background shell, which ignores it, runs the tests."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)

"""Lists of paths: the same paths, in memory that forked workers share."""

import gc
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from fcnseg.data.files import path_list as module
from fcnseg.data.files.path_list import PathList


def test_paths_come_back_as_they_were() -> None:
    paths = [Path("a.png"), Path("/data/größe/b c.tif"), Path(), Path("日本/e.jpg"), Path("x/\udcff.png")]
    listed = PathList(paths)
    assert len(listed) == 5
    assert list(listed) == paths
    assert [listed[i] for i in range(-5, 0)] == paths
    assert PathList(["a//b", "", "c"]).text(0) == "a//b"
    assert list(PathList([])) == []
    for index in (5, -6):
        with pytest.raises(IndexError, match=f"path {index} of 5"):
            listed[index]


def growth(names: Sequence[object], results: "multiprocessing.Queue[float]") -> None:
    """Send by how many MB of its own this process grows as it reads every name."""
    gc.disable()  # its marks in shared objects are not what is measured
    process = psutil.Process()
    before = process.memory_full_info().uss
    total = 0
    for index in range(len(names)):
        total += len(str(names[index]))
    results.put((process.memory_full_info().uss - before) / 1e6)


def grown(names: Sequence[object], workers: int = 2) -> list[float]:
    """The growth of each of several forked workers that read all names."""
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[float] = context.Queue()
    processes = [context.Process(target=growth, args=(names, results)) for _ in range(workers)]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    return found


class Texts:
    """A path list read as text, for which the time of a million `Path` objects is not spent."""

    def __init__(self, paths: PathList) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> str:
        return self.paths.text(index)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="memory of one process alone is Linux's to tell")
def test_a_million_names_are_shared_by_the_workers_that_read_them() -> None:
    """A list of strings is there for comparison: readers write to its reference counts."""
    count = 1_000_000
    listed = PathList(f"/data/images/{i:09d}/frame_{i % 7}.png" for i in range(count))
    assert listed.text(123_456) == "/data/images/000123456/frame_4.png"
    assert max(grown(Texts(listed))) < 4
    strings = [f"/data/images/{i:09d}/frame_{i % 7}.png" for i in range(count)]
    assert min(grown(strings, workers=1)) > 40


def test_a_list_names_each_folder_once_and_goes_through_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RUN", 2)
    texts = ["a/1.png", "a/2.png", "a/3.png", "b/c/1.png", "a/4.png", "5.png", "/6.png"]
    listed = PathList(texts)
    assert list(listed.runs()) == [
        ("a/", ["1.png", "2.png"]), ("a/", ["3.png"]), ("b/c/", ["1.png"]), ("a/", ["4.png"]), ("", ["5.png"]),
        ("/", ["6.png"]),
    ]  # fmt: skip
    again = PathList.of_runs(listed.runs())
    assert list(again.texts()) == list(listed.texts()) == texts
    assert list(again.content()) == list(listed.content()) != list(PathList(texts[:-1]).content())


def test_paths_become_absolute_folder_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    listed = PathList(["a/1.png", "2.png", "/b/3.png", "c/../a/4.png"]).absolute()
    assert list(listed.texts()) == [f"{tmp_path}/a/1.png", f"{tmp_path}/2.png", "/b/3.png", f"{tmp_path}/a/4.png"]

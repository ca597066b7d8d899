"""The arrows between rooms and files, which import-linter keeps by the contracts in pyproject.toml."""

import shutil
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
MOST_LINES = 400


def lint_imports(folder: Path) -> subprocess.CompletedProcess:
    """Check the package in `folder` by the contracts beside it."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_all_contracts_are_kept_and_no_arrow_is_ignored() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout
    assert "ignore_imports" not in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("models/spec.py", "def late(): from fcnseg.models.loading import from_pretrained", "Files of models"),
        ("data/files/images.py", "import fcnseg.data.datasets.pairs", "Rooms and files of data"),
        ("data/datasets/camvid.py", "import fcnseg.data.datasets.other", "No circle"),
        ("inference/overlay.py", "import fcnseg.runs.folder", "Rooms import from those below them"),
        ("models/fcn.py", "import pytorch_lightning", "Networks know nothing of Lightning"),
        ("geometry.py", "import torch", "Geometry is plain Python"),
    ],
)
def test_a_new_arrow_that_points_up_is_found(tmp_path: Path, file: str, line: str, contract: str) -> None:
    """Wherever it stands, inside of a function as well."""
    shutil.copytree(ROOT / "fcnseg", tmp_path / "fcnseg", ignore=shutil.ignore_patterns("__pycache__", "weights"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "fcnseg/data/datasets/other.py").write_text("import fcnseg.data.datasets.camvid\n")
    with (tmp_path / "fcnseg" / file).open("a") as source:
        source.write(f"\n{line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1, done.stdout
    (broken,) = (
        line for line in done.stdout.splitlines() if line.startswith(contract) and line.endswith(("KEPT", "BROKEN"))
    )
    assert broken.endswith("BROKEN")


def test_no_file_stands_in_a_circle() -> None:
    """Nor with the package that it lies in, which import-linter's contracts pass over."""
    graph = grimp.build_graph("fcnseg", cache_dir=None)
    arrows = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert sum(map(len, arrows.values())) > 300
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_file_is_longer_than_a_newcomer_can_hold() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / "fcnseg").rglob("*.py")}
    assert len(lengths) > 90
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > MOST_LINES} == {}

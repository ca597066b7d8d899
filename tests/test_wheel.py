"""The wheel: installed into a fresh environment without the checkout, the command works and finds its configs."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

COMPOSE_ALL = """
import pathlib, sys
import hydra
import fcnseg
from fcnseg.commands.configuration import config_folder, register_models

assert pathlib.Path(fcnseg.__file__).is_relative_to(sys.prefix), fcnseg.__file__
folder = config_folder()
assert folder.is_relative_to(sys.prefix), folder
register_models()
options = ["model=" + name for name in fcnseg.list_models()]
for path in sorted(folder.rglob("*.yaml")):
    *group, name = path.relative_to(folder).with_suffix("").parts
    if group:
        options.append("/".join(group) + "=" + name)
with hydra.initialize_config_dir(str(folder), version_base="1.3"):
    for option in options:
        command = "evaluate" if option.startswith("protocol=") else "train"
        config = hydra.compose(command, [option])
        assert (command == "evaluate" or config.model.name) and "size" in config.data, option
    for command in ("evaluate", "predict", "report", "rerun", "geometry", "zoo_list", "zoo_info"):
        hydra.compose(command)
from fcnseg.data.datasets.layout import read_layout
assert read_layout("gta5").labels["ids"].label_space.num_classes == 19
assert fcnseg.from_pretrained("demo").spec.num_classes == 11
from fcnseg.reports.writing import environment, render
assert environment().list_templates(extensions=["html"])
render("base.html")
print(len(options))
"""


def python(environment: Path, *arguments: str) -> str:
    command = [str(environment / "bin" / "python"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_works_without_the_checkout(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")

    environment = tmp_path / "fresh"
    venv.create(environment)
    # Dependencies, and pip, come from this environment; only the path is lent, so this checkout stays out of it.
    site = next((environment / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    python(environment, "-m", "pip", "install", "--no-deps", "--no-index", str(wheel))

    count = int(python(environment, "-c", COMPOSE_ALL))
    shipped = [p for p in (ROOT / "configs").rglob("*.yaml") if p.parent != ROOT / "configs"]
    assert count > len(shipped)
    shown = subprocess.run(
        [environment / "bin" / "fcnseg", "train", "--help"], capture_output=True, text=True, cwd=tmp_path
    )
    assert "camvid_quick" in shown.stdout, shown.stderr

"""The machine image and the task for clouds: their steps carried out here, on a bare Python and as two machines."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import yaml
from lightning_fabric.plugins.environments.lightning import find_free_network_port

from tests.commands.processes import SETTINGS, state

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "Dockerfile"
SKY = ROOT / "sky.yaml"


def instructions() -> list[tuple[str, str]]:
    """Those of the Dockerfile, each with the rest of its line."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(keyword, rest) for keyword, _, rest in (line.partition(" ") for line in lines if line)]


def of(keyword: str) -> list[str]:
    return [rest for each, rest in instructions() if each == keyword]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What COPY and pip make: a folder with /source in it, and a Python with the dependencies of these tests."""
    folder = tmp_path_factory.mktemp("image")
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for rest in of("COPY"):
        *sources, target = rest.split()
        assert set(sources) <= let_through
        for name in sources:
            place = folder / "source" / target
            (place if target.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, place)
    environment = folder / "python"
    venv.create(environment)
    site = next((environment / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    offline = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "EXTRAS": ""}
    (pip,) = (line for line in of("RUN") if " -m pip " in line)
    done = carry_out(folder, ["sh", "-c", pip], "source", **offline)
    assert done.returncode == 0, done.stderr
    (folder / "work").mkdir()
    return folder


def carry_out(image: Path, command: list[str], place: str, **variables: str) -> subprocess.CompletedProcess[str]:
    path = f"{image / 'python' / 'bin'}:{os.environ['PATH']}"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"PATH": path, **variables}
    return subprocess.run(command, capture_output=True, text=True, cwd=image / place, env=environment, timeout=300)


@pytest.mark.slow
def test_the_image_s_health_check_scores_the_demo(image):
    (check,) = of("HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2].replace("/tmp/", f"{image}/"))
    for _ in range(2):  # it comes again and again
        done = carry_out(image, command, "work")
        assert done.returncode == 0, done.stderr
    assert json.loads((image / "health" / "metrics.json").read_text())["mean_iou"] > 0.3
    assert not list((image / "work").iterdir())


@pytest.mark.slow
def test_the_image_runs_the_command(image):
    entry, default = json.loads(of("ENTRYPOINT")[0]), json.loads(of("CMD")[0])
    assert carry_out(image, [*entry, *default], "work").stdout.startswith("usage: fcnseg COMMAND")
    where = carry_out(image, ["python", "-c", "import fcnseg; print(fcnseg.__file__)"], "work").stdout
    assert Path(where.strip()).is_relative_to(image / "python")


def test_the_image_s_user_is_not_root():
    (user,) = of("USER")
    assert user == "${UID}"
    assert "UID=1000" in of("ARG")
    assert [keyword for keyword, _ in instructions()].index("USER") < len(instructions()) - 1


def test_the_dockerfile_passes_its_linter():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.slow
def test_the_task_for_clouds_trains_on_two_machines(tmp_path):
    """Its commands as they stand, with the environment variables of SkyPilot and a Python where its setup has it."""
    task = yaml.safe_load(SKY.read_text())
    (tmp_path / "fcnseg").mkdir()
    (tmp_path / "fcnseg" / "bin").symlink_to(Path(sys.executable).parent)
    command = task["run"].replace('"/runs/', f'"{tmp_path}/runs/')
    assert command != task["run"]
    command = command.replace("29500", str(find_free_network_port()))
    lengths = ["data.train.real.length=8", "data.train.synthetic.length=8", "data.val.length=2"]

    settings = " ".join([*SETTINGS, *lengths, "trainer.max_steps=1"])
    shared = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NUM_GPUS_PER_NODE": "1", "SKYPILOT_NODE_IPS": "127.0.0.1\n127.0.0.2"}
    environment = {**os.environ, **task["envs"], **shared, "HOME": str(tmp_path), "SETTINGS": settings}
    environment |= {"RUN": "try", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started = []
    for rank in range(2):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        own = {**environment, "SKYPILOT_NODE_RANK": str(rank)}
        started.append(subprocess.Popen(["bash", "-c", command], cwd=tmp_path, env=own, **pipes))
    (code, shown, errors), (other, _, _) = [(each.wait(timeout=300), *each.communicate()) for each in started]
    assert (code, other) == (0, 0), errors[-3000:]
    assert "trainer     2 x cpu" in shown
    config = yaml.safe_load((tmp_path / "runs" / "try" / "config.yaml").read_text())
    assert (config["trainer"]["devices"], config["trainer"]["num_nodes"], config["resume"]) == (1, 2, None)
    assert state(tmp_path / "runs" / "try")


@pytest.mark.parametrize(("change", "code"), [(("", ""), 0), (("accelerators", "acelerators"), 1)])
def test_skypilot_reads_the_task(tmp_path, change, code):
    """And refuses a misspelt one; what a launch would take wants SkyPilot's catalogue, which it downloads."""
    if (sky := shutil.which("sky")) is None:
        pytest.skip("SkyPilot is not installed; it wants an environment of its own: pip install skypilot")
    (tmp_path / "sky.yaml").write_text(SKY.read_text().replace(*change))
    read = "import sky; task = sky.Task.from_yaml('sky.yaml'); print(len(task.resources), *task.storage_mounts)"
    python = Path(sky).resolve().with_name("python")
    done = subprocess.run([python, "-c", read], capture_output=True, text=True, cwd=tmp_path, timeout=100)
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines()[-1:] == ([] if code else ["4 /runs"])

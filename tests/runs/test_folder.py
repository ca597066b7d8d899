"""A run's folder belongs to one run: a second one is refused, and the run can be repeated elsewhere."""

import hashlib
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from fcnseg.errors import InputError
from fcnseg.runs.folder import check_new, check_settings, save_config, saved_config
from tests.commands.processes import SETTINGS


def command(camvid: Path, *more: str) -> list[str]:
    return [
        "train",
        "data=camvid",
        *SETTINGS,
        f"data.root={camvid}",
        "trainer.max_steps=1",
        "trainer.log_every_n_steps=1",
        *more,
    ]


def digests(folder: Path) -> dict[Path, str]:
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def config(folder: Path) -> DictConfig:
    """As much of a run's config as its folder has to do with."""
    return OmegaConf.create(
        {
            "folder": str(folder),
            "seed": 0,
            "resume": None,
            "trainer": {"precision": "32-true", "max_steps": "${seed}"},
            "callbacks": {"best": {"dirpath": "${folder}/checkpoints"}, "last": None, "progress": {"x": ["${folder}"]}},
            "logger": {"csv": {"save_dir": "${folder}"}},
        }
    )


@pytest.mark.slow
def test_a_run_is_refused_where_there_is_one_and_repeated_elsewhere(fcnseg, camvid, tmp_path, capsys):
    run = tmp_path / "run"
    assert fcnseg(*command(camvid, "hydra.run.dir=run")) == 0
    before = digests(run)
    repeat = ("train", "--config-dir", "run", "--config-name", "config")
    elsewhere = f"resume={run}/checkpoints/last.ckpt"
    for again in (
        command(camvid, "hydra.run.dir=run"),
        command(camvid, "hydra.run.dir=run", "seed=1"),
        command(camvid, "hydra.run.dir=run", "stages={only: {}}"),
        command(camvid, "hydra.run.dir=other", "folder=run"),
        [*repeat, "hydra.run.dir=next"],
    ):
        capsys.readouterr()
        assert fcnseg(*again) == 2
        expected = "fcnseg: run: holds a run already; resume=auto goes on with it, or give a new folder"
        assert capsys.readouterr().err.strip() == expected
    assert digests(run) == before

    assert fcnseg(*repeat, "hydra.run.dir=new", f"folder={tmp_path / 'new'}") == 0
    assert digests(run) == before, "the old run is left as it was"
    for name in ("checkpoints/last.ckpt", "metrics.csv", "metrics.json", "examples.png"):
        assert (tmp_path / "new" / name).is_file()
    saved = {name: OmegaConf.to_container(saved_config(tmp_path / name), resolve=False) for name in ("run", "new")}
    assert saved["run"].pop("folder") == str(run)
    assert saved["new"].pop("folder") == str(tmp_path / "new")
    assert saved["run"] == saved["new"]

    capsys.readouterr()
    assert fcnseg(*command(camvid, "hydra.run.dir=new", elsewhere, "trainer.max_steps=2")) == 2
    assert "new: holds a run already" in capsys.readouterr().err, "of which that is no checkpoint"


def test_paths_below_the_folder_are_kept_relative_to_it(tmp_path):
    save_config(config(tmp_path), tmp_path)
    written = OmegaConf.to_container(OmegaConf.load(tmp_path / "config.yaml"), resolve=False)
    expected = OmegaConf.to_container(config(tmp_path), resolve=False)
    expected["trainer"]["max_steps"] = 0
    assert written == expected, "everything else is resolved"


def test_going_on_accepts_a_config_with_resolved_paths(tmp_path):
    moved = tmp_path / "moved"
    moved.mkdir()
    for resolve in (True, False):
        (moved / "config.yaml").write_text(OmegaConf.to_yaml(config(tmp_path / "before"), resolve=resolve))
        check_settings(config(moved), moved)
        with pytest.raises(InputError, match="it began with seed=0, this run has seed=1"):
            check_settings(OmegaConf.merge(config(moved), {"seed": 1, "trainer": {"max_steps": 0}}), moved)


def test_going_on_accepts_other_settings_of_what_changes_no_result(tmp_path):
    """Also where the run began before there were such settings."""
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(config(tmp_path)))
    more = {"trainer": {"devices": 2, "num_nodes": 3, "precision": "32-true", "max_steps": 0}}
    more |= {"on_nonfinite": "skip", "callbacks": {"nonfinite": {"action": "skip"}, "stop_on_signal": {"within": 5}}}
    more["callbacks"]["pictures"], more["logger"] = {"images": 8}, {"csv": None, "wandb": {"offline": True}}
    check_settings(OmegaConf.merge(config(tmp_path), more), tmp_path)
    with pytest.raises(InputError, match=r"it began without callbacks\.nonfinites, this run has"):
        check_settings(OmegaConf.merge(config(tmp_path), {"callbacks": {"nonfinites": 1}}), tmp_path)


@pytest.mark.parametrize("file", ["config.yaml", "metrics.json", "checkpoints/last.ckpt"])
def test_an_old_config_cannot_write_into_its_own_run(tmp_path, file):
    """Its paths are resolved, and lead there whatever the folder is."""
    old, new = tmp_path / "old", tmp_path / "new"
    (old / file).parent.mkdir(parents=True)
    (old / file).touch()
    repeated = OmegaConf.create(OmegaConf.to_container(config(old), resolve=True))
    repeated.folder = str(new)
    with pytest.raises(InputError) as refusal:
        check_new(repeated, new)
    expected = (
        f"callbacks.best.dirpath={old}/checkpoints: lies in another run, {old}; expected a folder below ${{folder}}"
    )
    assert str(refusal.value) == expected
    repeated.callbacks.best.dirpath = str(tmp_path / "elsewhere")
    repeated.logger.csv.save_dir = str(new)
    check_new(repeated, new)

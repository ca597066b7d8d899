"""Training regimes: at one cost each, in their phases, and what does not fit them."""

import json
import math
from collections.abc import Iterator

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from fcnseg.commands.configuration import config_folder, register_models
from fcnseg.data import CityScenes
from fcnseg.data.storage.packing import pack
from fcnseg.errors import InputError
from fcnseg.labels import IGNORE_INDEX
from fcnseg.models.loading import load_checkpoint
from fcnseg.runs.building import build_data
from fcnseg.runs.regimes import apply_regime, divide

TRAIN = (
    "train",
    "data=camvid_bgc",
    "data.size=[48,64]",
    "data.num_workers=0",
    "model=fcn32s_vgg16",
    "model.width=0.05",
    "trainer.accelerator=cpu",
    "callbacks.progress=null",
    "logger.tensorboard=null",
    "hydra.run.dir=run",
)
TEN = "data.train.synthetic.length=10"

# images of each domain in 16: four steps of four images
SEEN = {
    "real": {"camvid": 16},
    "synthetic": {"synthetic": 16},
    "mixed": {"camvid": 6, "synthetic": 10},  # one pass over the pool
    "finetune": {"synthetic": 8, "camvid": 8},
    "bgc": {"camvid": 8, "synthetic": 8},
    "bgc_then_real": {"camvid": 6 + 4, "synthetic": 6},
}


@pytest.fixture(autouse=True)
def no_hydra_left() -> Iterator[None]:
    yield
    GlobalHydra.instance().clear()


def expanded(*overrides: str) -> DictConfig:
    """The config of a training, with its regime put into other settings."""
    register_models()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = hydra.compose("train", list(overrides))
    apply_regime(config)
    return config


def plain(node: DictConfig) -> dict:
    container = OmegaConf.to_container(node)
    assert isinstance(container, dict)
    return container


# What a regime costs


@pytest.mark.slow
@pytest.mark.parametrize("regime", SEEN)
def test_all_regimes_take_the_same_steps_and_images(fcnseg, camvid, tmp_path, regime):
    """Two epochs over 6 real images, 3 batches that make 2 steps: gradients of 2 batches of 2 images add up."""
    limits = ["trainer.max_epochs=2", "trainer.accumulate_grad_batches=2", "data.batch_size=2"]
    part = "data.parts={camvid: {share: 0.75}}"
    assert fcnseg(*TRAIN, TEN, f"data.root={camvid}", f"regime={regime}", *limits, part) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["step"] == 4
    assert metrics["images_seen"] == SEEN[regime]
    saved = OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert saved.regime == OmegaConf.load(config_folder() / "regime" / f"{regime}.yaml")
    assert (saved.trainer.max_epochs, saved.data.steps_per_epoch) == (-1, 4)


@pytest.mark.slow
def test_fine_tuning_reports_its_stages_and_their_sum(fcnseg, camvid, tmp_path):
    settings = [*TRAIN, TEN, f"data.root={camvid}", "regime=finetune", "data.batch_size=4", "trainer.max_steps=3"]
    assert fcnseg(*settings) == 0
    run = tmp_path / "run"
    whole, first, last = (json.loads((run / name / "metrics.json").read_text()) for name in ("", "synthetic", "real"))
    assert list(whole["stages"]) == ["synthetic", "real"]
    assert whole["stages"]["synthetic"] == {
        "step": 2, "images_seen": {"synthetic": 8}, "mean_iou": first["mean_iou"]
    }  # fmt: skip
    assert whole["stages"]["real"] == {"step": 1, "images_seen": {"camvid": 4}, "mean_iou": last["mean_iou"]}
    assert (whole["step"], whole["images_seen"]) == (3, {"synthetic": 8, "camvid": 4})
    assert whole["train_seconds"] == pytest.approx(first["train_seconds"] + last["train_seconds"], abs=0.06)
    assert (whole["mean_iou"], whole["classes"]) == (last["mean_iou"], last["classes"])
    for stage in ("synthetic", "real"):
        assert OmegaConf.load(run / stage / "config.yaml").regime is None, "a stage is no regime"

    (run / "metrics.json").unlink()
    assert fcnseg(*settings, "resume=run", "hydra.run.dir=other") == 0
    assert json.loads((run / "metrics.json").read_text()) == whole, "written too where all stages were finished"


@given(st.integers(1, 500), st.lists(st.integers(1, 1000), min_size=1, max_size=5))
def test_phases_divide_the_steps_by_their_shares(total, parts):
    shares = {str(i): part / sum(parts) for i, part in enumerate(parts)}
    if total < len(parts):
        with pytest.raises(InputError, match=f"{total} optimiser steps are too few for {len(parts)} phases"):
            divide(total, shares)
        return
    steps = divide(total, shares)
    assert list(steps) == list(shares)
    assert sum(steps.values()) == total
    assert min(steps.values()) >= 1
    exact = {name: total * share for name, share in shares.items()}
    if min(exact.values()) >= 1:
        assert all(math.floor(exact[n] - 1e-9) <= steps[n] <= math.ceil(exact[n] + 1e-9) for n in shares)


@pytest.mark.parametrize(
    ("settings", "steps", "per_epoch"),
    [
        ("trainer.max_epochs=5", 60, 12),  # 36 images in batches of 3
        ("trainer.max_epochs=5 trainer.max_steps=7", 7, 12),
        ("trainer.max_epochs=-1 trainer.max_steps=700", 700, 12),
        ("trainer.max_epochs=5 data.steps_per_epoch=4", 20, 4),
        ("trainer.max_epochs=5 trainer.accumulate_grad_batches=5", 15, 15),
        ("trainer.max_epochs=5 trainer.max_steps=7 trainer.accumulate_grad_batches=5", 7, 15),
        ("trainer.max_epochs=5 data.parts={real:{share:0.5}}", 30, 6),
        ("trainer.max_epochs=5 regime.real=synthetic", 100, 20),
    ],
)
@pytest.mark.parametrize("regime", ["synthetic", "mixed", "bgc_then_real"])
def test_the_steps_are_those_of_epochs_over_the_real_images(regime, settings, steps, per_epoch):
    lengths = ["data.train.real.length=36", "data.train.synthetic.length=60", "data.batch_size=3"]
    config = expanded(f"regime={regime}", *lengths, *settings.split())
    stages = config.stages.values() if config.stages else [config]
    assert sum(stage.trainer.max_steps for stage in stages) == steps
    assert (config.trainer.max_epochs, config.data.steps_per_epoch) == (-1, per_epoch)
    assert config.callbacks.early_stopping is None, "it would take fewer steps"


# What a regime stands for


@pytest.mark.parametrize(
    ("regime", "domains", "mixing"),
    [
        ("real", ["real"], "balanced"),
        ("synthetic", ["synthetic"], "balanced"),
        ("mixed", ["real", "synthetic"], "pooled"),
        ("bgc", ["real", "synthetic"], "balanced"),
    ],
)
def test_one_phase_is_a_choice_of_data(regime, domains, mixing):
    config = expanded(f"regime={regime}", "trainer.max_steps=40")
    assert config.stages is None
    assert (list(config.data.domains), config.data.mixing, config.trainer.max_steps) == (domains, mixing, 40)
    assert plain(config.data.ratio) == {"real": 6, "synthetic": 4}
    assert config.optimizer.lr == 2e-3


@pytest.mark.parametrize(
    ("regime", "ratio", "targets"),
    [
        ("fda", {"synthetic": 4}, ["synthetic"]),
        ("bgc_fda", {"real": 6, "synthetic": 4}, ["synthetic"]),
        ("dacs", {"synthetic": 0.5, "adapted": 0.5}, ["adapted"]),
        ("bgc_dacs", {"real": 0.3, "synthetic": 0.2, "adapted": 0.5}, ["adapted"]),
        ("classmix", {"real": 0.5, "adapted": 0.5}, ["adapted"]),
        ("entropy", {"synthetic": 0.5, "adapted": 0.5}, None),
    ],
)
def test_regimes_that_adapt_show_all_real_images_without_their_labels(regime, ratio, targets):
    lengths = ["data.train.real.length=12", "data.train.synthetic.length=8", "data.val.length=2", "data.size=[32,32]"]
    parts = "data.parts={real: {share: 0.25}, synthetic: {share: 0.5}}"
    data = build_data(expanded(f"regime={regime}", "trainer.max_steps=4", parts, *lengths))
    assert data.ratio == pytest.approx(ratio)
    sizes = {"real": 3, "synthetic": 4, "adapted": 12 if regime in ("classmix", "entropy") else 4}
    assert {name: len(dataset) for name, dataset in data.train.items()} == {name: sizes[name] for name in ratio}
    if regime in ("classmix", "entropy"):
        assert (data.train["adapted"][0][1] == IGNORE_INDEX).all()
    elif "adapted" in ratio:
        assert (data.train["adapted"][0][1] != IGNORE_INDEX).any()
    if targets is None:
        assert data.targets is None
        return
    assert data.targets is not None
    assert list(data.targets.domains) == targets
    assert len(data.targets.dataset) == 12
    assert (data.targets.dataset[0][1] == IGNORE_INDEX).all()


@pytest.mark.slow
def test_a_regime_that_adapts_takes_the_images_of_the_others(fcnseg, camvid, tmp_path):
    """Mixed images count as such; the run says what adaptation did, and its checkpoint makes a network."""
    limits = ["trainer.max_steps=3", "data.batch_size=4"]
    assert fcnseg(*TRAIN, TEN, f"data.root={camvid}", "regime=bgc_dacs", *limits) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["images_seen"] == {"camvid": 3, "synthetic": 3, "adapted": 6}
    assert OmegaConf.load(tmp_path / "run" / "config.yaml").adaptation.target == "camvid"
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt").spec.name == "fcn32s_vgg16"


def test_several_phases_are_stages():
    synthetic = {"data": {"domains": ["synthetic"], "mixing": "balanced"}, "trainer": {"max_steps": 20}}
    real = {"data": {"domains": ["real"], "mixing": "balanced"}, "trainer": {"max_steps": 20}}
    halved = {"optimizer": {"lr": 0.003}}
    config = expanded("regime=finetune", "trainer.max_steps=40", "optimizer.lr=0.006")
    assert plain(config.stages) == {"synthetic": synthetic, "real": {**real, **halved}}
    assert list(config.stages) == ["synthetic", "real"]
    turned = expanded("regime=finetune", "regime.real=synthetic", "trainer.max_steps=40", "optimizer.lr=0.006")
    assert plain(turned.stages) == {"synthetic": real, "real": {**synthetic, **halved}}


def test_phases_can_be_changed():
    phases = ["+regime.phases.synthetic.mixing=pooled", "regime.phases.synthetic.steps=0.9", "regime.phases.real.lr=1"]
    config = expanded("regime=finetune", *phases, "regime.phases.real.steps=0.1", "trainer.max_steps=40")
    assert [stage.trainer.max_steps for stage in config.stages.values()] == [36, 4]
    assert config.stages.synthetic.data.mixing == "pooled"
    assert "optimizer" not in config.stages.real


def test_all_domains_but_the_real_one_are_synthetic():
    """Their weights in the loss go with them; of one domain alone there is nothing to weigh or compare."""
    config = expanded(
        "regime=finetune", "trainer.max_steps=4", "+data.train.rendered=${data.train.synthetic}", "data.ratio=null",
        "loss.domain_weights={rendered: 1, real: 2, synthetic: 3}", "callbacks.gradients.every_n_steps=2",
    )  # fmt: skip
    synthetic, real = config.stages.synthetic, config.stages.real
    assert list(synthetic.data.domains) == ["synthetic", "rendered"]
    assert plain(synthetic.loss.domain_weights) == {"synthetic": 3, "rendered": 1}
    assert "callbacks" not in synthetic
    assert real.loss.domain_weights is None
    assert real.callbacks.gradients.every_n_steps is None


def test_the_domains_of_a_pack(tmp_path):
    pytest.importorskip("litdata")
    scenes = {look: CityScenes(length, 0, look, (24, 32)) for look, length in (("real", 9), ("synthetic", 5))}
    pack(scenes, CityScenes(2, 1, "real", (24, 32)), tmp_path / "packed")
    settings = ("data=camvid", f"data.packed={tmp_path / 'packed'}", "data.batch_size=3", "trainer.max_epochs=2")
    config = expanded("regime=bgc_then_real", *settings)
    assert [list(stage.data.domains) for stage in config.stages.values()] == [["real", "synthetic"], ["real"]]
    assert [stage.trainer.max_steps for stage in config.stages.values()] == [5, 1], "4.5 and 1.5 of 6: a tie"


@pytest.mark.parametrize("name", [p.stem for p in sorted((config_folder() / "data").glob("*.yaml"))])
def test_data_configs_name_the_real_domain_first(name):
    """The real domain is the one that is validated, or has its set first."""
    data = expanded(f"data={name}").data
    first = next(iter(data.train.values()))
    first = next(iter(first.datasets.values())) if "datasets" in first else first
    of_first, of_val = (node.get("dataset", node) for node in (first, data.val))
    if name not in ("voc_sbd",):  # SBD labels images of VOC
        assert of_first._target_ == of_val._target_
    assert of_first.get("look") == of_val.get("look")


# Mistakes


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["regime=bcg"], "regime=bcg: no such option; did you mean bgc"),
        (["regime=bgc", "data=camvid"], "regime=bgc: needs a synthetic domain beside camvid; try data=camvid_bgc"),
        (["regime=finetune", "data=camvid"], "regime=finetune: needs a synthetic domain beside camvid"),
        (["regime=finetune", "regime.real=kitti"], "regime.real=kitti: no such domain; expected one of camvid, synth"),
        (["regime=bgc", "stages={a: {}}"], "stages={'a': {}}: regime=bgc sets it; give one or the other"),
        (["regime=bgc", "data.domains=[camvid]"], "data.domains=['camvid']: regime=bgc sets it; give one or the other"),
        (["regime=bgc", "data.mixing=pooled"], "data.mixing=pooled: regime=bgc sets it"),
        (["regime=real", "+regime.phases.real.epochs=3"], "regime.phases.real.epochs: no such key; expected one of"),
        (["regime=real", "+regime.reel=camvid"], "regime.reel: no such key; expected real, phases or adaptation"),
        (["regime=dacs", "adaptation=fda"], "adaptation: regime=dacs has its own, regime.adaptation; give one or the"),
        (["adaptation=dacs", "data=camvid"], "adaptation: has no domain to adapt to camvid; expected another one"),
        (["adaptation=dacs", "adaptation.target=x"], "adaptation.target=x: no such domain; expected one of camvid"),
        (["adaptation=dacs", "adaptation.share=1"], "adaptation.share=1: expected a number above 0 and below 1"),
        (["adaptation=dacs", "loss=dice"], "adaptation: weighs the pixels of a mean; expected loss=cross_entropy, foc"),
        (["adaptation=dacs", "adaptation.method.decay=1"], "decay=1: expected a number from 0 on and below 1"),
        (["regime=real", "regime.phases.real.steps=0.9"], "regime.phases: their steps sum to 0.9; expected shares"),
        (["regime=real", "regime.phases.real.steps=-1"], "regime.phases.real.steps=-1: expected a number above 0"),
        (["regime=finetune", "regime.phases.real.lr=x"], "regime.phases.real.lr=x: expected a number above 0"),
        (["regime=real", "regime.phases.real.domains=camvid"], "domains=camvid: expected one of real, synthetic, all"),
        (["regime=mixed", "regime.phases.mixed.mixing=x"], "phases.mixed.mixing=x: expected one of balanced, pooled"),
        (["regime=real", "regime.phases.real=3"], "regime.phases.real=3: expected a mapping such as {domains: real"),
        (["regime=real", "regime.phases.real=null"], "regime.phases: expected a mapping such as {real: {domains: real"),
        (["regime=real", "~regime.phases.real.steps"], "regime.phases.real: needs steps, such as {domains: real"),
        (["regime=bgc", "trainer.max_epochs=-1"], "regime=bgc: needs trainer.max_steps or trainer.max_epochs, which"),
        (["regime=bgc", "trainer.max_steps=x"], "trainer.max_steps=x: expected a whole number from 1 on"),
        (["regime=finetune", "trainer.max_steps=1"], "regime: 1 optimiser steps are too few for 2 phases"),
        (["regime=real", "loss.domain_weights={real: 1}"], "domain_weights={'real': 1}: expected a weight for each of"),
        (["regime=finetune", "data.batch_size=0"], "batch_size=0: expected a whole number from 1 on"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line(fcnseg, camvid, tmp_path, capsys, settings, expected):
    assert fcnseg(*TRAIN, f"data.root={camvid}", *settings) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert expected in line
    assert not any(path.is_file() for path in (tmp_path / "run").rglob("*"))

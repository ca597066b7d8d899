"""How gradients travel between two processes: what changes no bit, what rounds, and what is refused."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from fcnseg.commands.configuration import config_folder, register_models
from fcnseg.training.strategies import DataParallel
from tests.data.refusals import complaint
from tests.training.test_elastic import run_two

VIEW = {"gradient_as_bucket_view": True}


@pytest.mark.slow
def test_buckets_change_no_bit_and_bfloat16_rounds(tmp_path: Path) -> None:
    """Six steps on two processes; in micro-batches too, and in buckets of 0.1 MB."""
    run_two(
        tmp_path, {"name": "plain", "epochs": 1}, {"name": "view", "epochs": 1, "strategy": VIEW},
        {"name": "static", "epochs": 1, "strategy": {**VIEW, "static_graph": True}},
        {"name": "bfloat16", "epochs": 1, "strategy": {**VIEW, "compress": "bfloat16"}},
        {"name": "parts", "epochs": 1, "at_once": 2},
        {"name": "parts_view", "epochs": 1, "at_once": 2, "strategy": {**VIEW, "bucket_cap_mb": 0.1}},
    )  # fmt: skip
    plain, view, static, bfloat16, parts, parts_view = (
        torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("plain", "view", "static", "bfloat16", "parts", "parts_view")
    )
    for name, value in plain.items():
        assert torch.equal(view[name], value), name
        assert torch.equal(static[name], value), name
        assert torch.equal(parts_view[name], parts[name]), name
    together = torch.cat([(bfloat16[name] - value).flatten().float() for name, value in plain.items()]).norm()
    assert 0 < together / torch.cat([value.flatten().float() for value in plain.values()]).norm() < 1e-2


def test_a_static_graph_is_refused_with_accumulated_gradients() -> None:
    strategy = DataParallel(static_graph=True)
    strategy._lightning_module = SimpleNamespace(trainer=SimpleNamespace(accumulate_grad_batches=3))
    assert complaint(strategy.configure_ddp) == (
        "trainer.strategy.static_graph=true: does not go with gradients of 3 micro-batches; expected false, or no "
        "data.device_batch_size and trainer.accumulate_grad_batches=1"
    )


def test_configs_say_how_gradients_travel() -> None:
    register_models()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        nodes = {name: compose("train", [f"trainer={name}"]).trainer.strategy for name in ("ddp", "ddp_cpu")}
    for name, node in nodes.items():
        strategy = instantiate(node)
        assert isinstance(strategy, DataParallel)
        assert strategy._ddp_kwargs == {"bucket_cap_mb": 25, "gradient_as_bucket_view": True, "static_graph": False}
        assert strategy.process_group_backend == ("gloo" if name == "ddp_cpu" else None)
    assert complaint(lambda: DataParallel(compress="int8")) == (
        "trainer.strategy.compress=int8: expected none or bfloat16"
    )

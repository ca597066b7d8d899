"""Whether a GPU computes what a processor does: the oracle's scores, and the shipped model's masks."""

import shutil
import tempfile
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import hydra
import numpy as np
import torch
from gpu_settings import Row, Settings, UnavailableError, attempt
from PIL import Image
from reference_networks import CLASSES, MODELS, SIZES, WIDTH, seeded_image, seeded_network

from fcnseg.commands import predict
from fcnseg.commands.configuration import config_folder
from fcnseg.inference import Predictor
from fcnseg.models import FCN, create_model, load_caffe_weights
from fcnseg.training.precision import use_tf32

WITHIN = 1e-4
"""How far float32 scores may be from the oracle's, relative to the largest: ten times what processors differ by."""

AGREEMENT = 0.999
"""The share of pixels that have the same class on both devices in float32, at least."""

COPIES = 20
"""Of every scene that is shared out to all devices: several batches for each."""


def scores(settings: Settings) -> Iterator[Row]:
    """The distance of every reference network's scores from OpenCV's, at all of the oracle's sizes."""
    for network in MODELS:
        for precision in ("float32", "TF32", "bf16"):
            case = {"network": network, "precision": precision}
            yield attempt(case, partial(_distance, settings, network, precision))


def _distance(settings: Settings, network: str, precision: str) -> Row:
    if precision == "TF32" and not settings.cuda:
        raise UnavailableError("TF32 needs a GPU")
    use_tf32(precision == "TF32")
    model = _reference(network, settings.device)
    apart, largest = [], []
    with np.load(settings.oracle / f"{network}.npz") as oracle:
        for size in SIZES:
            expected = oracle["{}x{}".format(*size)]
            images = torch.from_numpy(seeded_image(*size)).to(settings.device)
            with torch.inference_mode(), _autocast(settings, precision == "bf16"):
                found = model(images).float().cpu().numpy()
            if found.shape != expected.shape:
                raise ValueError(f"{size}: scores of shape {found.shape}, the oracle's have {expected.shape}")
            apart.append(float(np.abs(found - expected).max()))
            largest.append(float(np.abs(expected).max()))
    relative = float(np.max(np.array(apart) / np.array(largest)))
    judged = {"ok": relative <= WITHIN} if precision == "float32" else {}  # of a NaN too, which is not below it
    return {"max_difference": float(np.max(apart)), "relative": relative, **judged}


def _autocast(settings: Settings, enabled: bool) -> torch.autocast:
    return torch.autocast(settings.device, torch.bfloat16, enabled=enabled)


@cache
def _reference(network: str, device: str) -> FCN:
    """The library's model of a reference network, with the oracle's weights."""
    net = seeded_network(network, CLASSES, WIDTH)
    model = create_model(MODELS[network], num_classes=net.classes, padding="caffe", width=net.width).eval()
    load_caffe_weights(model, net.blobs, prepare=False, verbose=False)
    return model.to(device)


def masks(settings: Settings) -> Iterator[Row]:
    """The share of pixels to which the shipped model gives the same class as on a processor in float32."""
    for precision in ("float32", "TF32", "bf16", "fp16"):
        yield attempt({"precision": precision}, partial(_agreement, settings, precision))


def _agreement(settings: Settings, precision: str) -> Row:
    if precision in ("TF32", "fp16") and not settings.cuda:
        raise UnavailableError(f"{precision} needs a GPU")
    use_tf32(precision == "TF32")
    mode = {"bf16": "bf16-mixed", "fp16": "16-mixed"}.get(precision, "32-true")
    predictor = Predictor.from_pretrained("demo", settings.device, precision=mode)
    expected = _masks_of_a_processor(settings.sizes.scenes)
    same = [predictor(image).mask == mask for image, mask in expected]
    agreement = float(np.mean(same))
    judged = {"ok": agreement >= AGREEMENT} if precision == "float32" else {}
    return {"images": len(same), "agreement": agreement, **judged}


def devices(settings: Settings) -> Iterator[Row]:
    """Whether all GPUs, or two processes on a processor, write what one writes, byte by byte."""
    count = torch.cuda.device_count() if settings.cuda else 2
    yield attempt({"devices": count}, partial(_shared_out, settings, count))


def _shared_out(settings: Settings, count: int) -> Row:
    if count < 2:
        raise UnavailableError("needs two GPUs")
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        (top / "in").mkdir()
        for number, (image, _) in enumerate(_masks_of_a_processor(settings.sizes.scenes)):
            Image.fromarray(image).save(top / "in" / f"{number}.png")
            for copy in range(1, COPIES):
                shutil.copyfile(top / "in" / f"{number}.png", top / "in" / f"{number}_{copy}.png")
        one, all_together = (_predicted(settings, top / "in", top / f"out{n}", n) for n in (1, count))
    return {"images": settings.sizes.scenes * COPIES, "files": len(one), "ok": one == all_together}


def _predicted(settings: Settings, source: Path, output: Path, count: int) -> dict[str, bytes]:
    overrides = ["checkpoint=demo", f"input={source}", f"output={output}", "areas=true", f"device={settings.device}"]
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = hydra.compose("predict", [*overrides, f"devices={count}"])
    predict.run(config)
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*.*")}


@cache
def _masks_of_a_processor(scenes: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Embedded scenes with the masks that the shipped model gives them on a processor."""
    from fcnseg.data import CityScenes

    predictor, images = Predictor.from_pretrained("demo", "cpu"), CityScenes(scenes, seed=7, look="real")
    return [(images[number][0], predictor(images[number][0]).mask) for number in range(scenes)]

"""`fcnseg predict`: segment a file, a folder or a glob of images."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fcnseg.commands.common import console_for_bars, require_value, require_writable, unwritable
from fcnseg.data.files.volumes import open_volume
from fcnseg.errors import InputError
from fcnseg.inference import Averaging, Predictor
from fcnseg.inference.device import devices_of
from fcnseg.inference.many import Advance, Job, Portion, Work
from fcnseg.inference.mosaic import Windows
from fcnseg.inference.naming import find_images, output_names, with_ending
from fcnseg.inference.processes import Tell, on_devices
from fcnseg.inference.results import Results, Wanted
from fcnseg.inference.video import VIDEO_SUFFIXES, segment_video, video_facts
from fcnseg.inference.volumes import find_volumes, segment_volume

GIGABYTE = 10**9


def run(config: DictConfig) -> None:
    checkpoint = require_value(config, "checkpoint", "runs/demo/.../last.ckpt or demo")
    source = require_value(config, "input", "FILE_OR_FOLDER")
    output = Path(require_value(config, "output", "FOLDER"))
    devices = devices_of(config.device, config.devices)
    if Path(source).suffix.lower() in VIDEO_SUFFIXES:
        _require_one(devices, config, "a video")
        run_video(config, checkpoint, Path(source), output)
        return
    if volumes := find_volumes(Path(source)):
        _require_one(devices, config, "a set of volumes")
        run_volumes(config, checkpoint, volumes, output)
        return
    wanted = wanted_of(config)
    kinds = wanted.folders
    images, top = find_images(source, [output / kind for kind in kinds])
    jobs = [Job(image, name) for image, name in zip(images, output_names(images, top), strict=True)]
    _spare_inputs(jobs, output, kinds)
    require_writable(output, *kinds)
    windows_of(config)
    config.device = devices[0]
    predictor = predictor_of(config, checkpoint)
    began = time.perf_counter()
    try:
        with Results(output, wanted, predictor.label_space) as results:
            work = work_of(config, predictor, results)
            with _bar("predicting", len(jobs)) as advance:
                portions = work.plan(jobs, advance)
                if len(devices[: len(portions)]) > 1:
                    share_out(config, work, portions, devices[: len(portions)], advance)
                else:
                    work.carry_out(portions, advance)
    except OSError as error:
        raise unwritable(output, error) from error
    report(work, len(jobs), time.perf_counter() - began)


def share_out(
    config: DictConfig, work: Work, portions: Sequence[Portion], devices: Sequence[str], advance: Advance
) -> None:
    """Carry out the work by one process for each device.

    Raises:
        OSError: when a file cannot be written.
    """
    pictures, scenes = (
        [job.image for portion in portions if portion.by_windows == large for job in portion.jobs]
        for large in (False, True)
    )
    config.precision = work.predictor.settle_precision(pictures, scenes)
    with closing(on_devices(devices, partial(_share, config), portions, advance)) as found:
        for outcomes in found:
            work.note(outcomes)


def _share(config: DictConfig, device: str, portions: list[tuple[int, Portion]], tell: Tell) -> None:
    """The part of one of several processes; what is made of all images is for the first to write."""
    config.device = device
    predictor = predictor_of(config, config.checkpoint)
    work = work_of(config, predictor, Results(Path(config.output), wanted_of(config), predictor.label_space))
    for number, outcomes in work.outcomes(portions, lambda share: tell(None, share)):
        tell(number, outcomes)


def run_video(config: DictConfig, checkpoint: str, source: Path, output: Path) -> None:
    """OUTPUT/NAME.mp4 of overlays, or with overlays=false the masks of all frames in OUTPUT/NAME/."""
    target = output / f"{source.stem}.mp4" if config.overlays else output / source.stem
    require_writable(output)
    facts = video_facts(source)
    predictor = predictor_of(config, checkpoint)
    try:
        with _bar("predicting", facts.frames) as advance:
            frames = segment_video(predictor, source, target, config.opacity, progress=lambda: advance(1))
    except OSError as error:
        raise unwritable(output, error) from error
    print(f"{frames} frames  {target}")


def run_volumes(config: DictConfig, checkpoint: str, volumes: Sequence[Path], output: Path) -> None:
    """OUTPUT/masks/NAME.nii.gz of NIfTI, or OUTPUT/masks/NAME/ of DICOM, and OUTPUT/overlays/NAME/ of both."""
    wanted = wanted_of(config)
    if others := [kind for kind in ("probabilities", "entropy", "areas", "coco", "geojson") if getattr(wanted, kind)]:
        raise InputError(f"{others[0]}=true: of volumes there are masks and overlays alone")
    require_writable(output, *wanted.folders)
    masks, overlays = (output / "masks"), (output / "overlays" if wanted.overlays else None)
    if masks.resolve() in {path.parent.resolve() for path in volumes}:
        raise InputError(f"output={output}: {masks} holds the volumes of input; expected another folder")
    predictor = predictor_of(config, checkpoint)
    depths = [open_volume(path, config.axis).shape[0] for path in volumes]
    options = {"axis": config.axis, "opacity": wanted.opacity}
    try:
        with _bar("predicting", sum(depths)) as advance:
            for path in volumes:
                print(segment_volume(predictor, path, masks, overlays, **options, progress=lambda: advance(1)))
    except OSError as error:
        raise unwritable(output, error) from error
    print(f"{sum(depths)} slices of {len(volumes)} volume{'s' * (len(volumes) != 1)}  {masks}")


def predictor_of(config: DictConfig, checkpoint: str) -> Predictor:
    return Predictor.from_pretrained(
        checkpoint,
        device=config.device,
        precision=str(config.precision),
        compile=bool(config.compile),
        scale="training" if config.scale == "auto" else config.scale,
        averaging=averaging_of(config),
    )


def work_of(config: DictConfig, predictor: Predictor, results: Results) -> Work:
    return Work(predictor, results, windows_of(config), gsd=config.gsd, mapped=config.scale != "training")


def wanted_of(config: DictConfig) -> Wanted:
    return Wanted(**{field.name: config[field.name] for field in fields(Wanted)})


def averaging_of(config: DictConfig) -> Averaging:
    scales = config.scales if OmegaConf.is_list(config.scales) else [config.scales]
    return Averaging(bool(config.flip), tuple(map(float, scales)), int(config.dropout), float(config.temperature))


def windows_of(config: DictConfig) -> Windows:
    """
    Raises:
        InputError: for an overlap that is no number.
    """
    exact = config.overlap == "exact"
    if not exact and not isinstance(config.overlap, int):
        raise InputError(f"overlap={config.overlap}: expected exact, or a number of pixels")
    return Windows(int(float(config.memory) * GIGABYTE), None if exact else config.overlap, config.tile, config.tiles)


def report(work: Work, images: int, seconds: float) -> None:
    """Say what was done.

    Raises:
        InputError: where images could not be segmented.
    """
    made, results, predictor = images - len(work.failures), work.results, work.predictor
    if made:
        if predictor.agreement is not None:
            told = f"{predictor.agreement:.2%} of the first image's pixels have the class of 32-true"
            print(f"precision {predictor.precision}: in bf16-mixed {told}")
        for line in work.said:
            print(line)
        print(f"{made} masks  {results.folder / 'masks'}  ({made / seconds:.3g} images/s)")
        for kind in results.wanted.folders[1:]:
            print(f"{kind}  {results.folder / kind}")
    if work.failures:
        more = f" (and {len(work.failures) - 1} more)" if len(work.failures) > 1 else ""
        raise InputError(f"{work.failures[0]}{more}")


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[Advance]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console_for_bars(), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda share: progress.advance(task, share)


def _require_one(devices: Sequence[str], config: DictConfig, what: str) -> None:
    if len(devices) > 1:
        raise InputError(f"devices={config.devices}: {what} is segmented on one device; expected devices=1")


def _spare_inputs(jobs: Sequence[Job], output: Path, kinds: Sequence[str]) -> None:
    """Refuse to write over an image that is to be read."""
    read = {job.image.resolve() for job in jobs}
    for path in (
        output / kind / with_ending(job.name, end) for kind in kinds for job in jobs for end in (".png", ".tif")
    ):
        if path.resolve() in read:
            raise InputError(f"output={output}: {path} is one of the images of input; expected another folder")

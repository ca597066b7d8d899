"""`fcnseg predict`: segment a file, a folder or a glob of images."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fcnseg.commands.common import require_value, require_writable, unwritable
from fcnseg.errors import InputError
from fcnseg.inference import Averaging, Predictor
from fcnseg.inference.large import takes
from fcnseg.inference.mosaic import Windows
from fcnseg.inference.naming import find_images, output_names, with_ending
from fcnseg.inference.results import Results, Wanted
from fcnseg.inference.scene import lies_on_the_ground
from fcnseg.inference.video import VIDEO_SUFFIXES, segment_video, video_facts

GIGABYTE = 10**9

Advance = Callable[[float], None]


def run(config: DictConfig) -> None:
    checkpoint = require_value(config, "checkpoint", "runs/demo/.../last.ckpt or demo")
    source = require_value(config, "input", "FILE_OR_FOLDER")
    output = Path(require_value(config, "output", "FOLDER"))
    if Path(source).suffix.lower() in VIDEO_SUFFIXES:
        run_video(config, checkpoint, Path(source), output)
        return
    wanted = wanted_of(config)
    kinds = wanted.folders
    images, top = find_images(source, [output / kind for kind in kinds])
    jobs = [Job(image, name) for image, name in zip(images, output_names(images, top), strict=True)]
    _spare_inputs(jobs, output, kinds)
    require_writable(output, *kinds)
    windows = windows_of(config)
    predictor = predictor_of(config, checkpoint)
    began = time.perf_counter()
    try:
        with Results(output, wanted, predictor.label_space) as results:
            work = Work(predictor, config, results, windows)
            work.carry_out(jobs)
    except OSError as error:
        raise unwritable(output, error) from error
    work.report(len(jobs), time.perf_counter() - began)


@dataclass(frozen=True)
class Job:
    """An image and what its results are called."""

    image: Path
    name: Path


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


def predictor_of(config: DictConfig, checkpoint: str) -> Predictor:
    return Predictor.from_pretrained(
        checkpoint,
        device=config.device,
        precision=str(config.precision),
        compile=bool(config.compile),
        scale="training" if config.scale == "auto" else config.scale,
        averaging=averaging_of(config),
    )


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


@dataclass
class Work:
    """What is done with all images: pictures in batches, and large and georeferenced ones by windows."""

    predictor: Predictor
    config: DictConfig
    results: Results
    windows: Windows
    failures: list[InputError] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def carry_out(self, jobs: Sequence[Job]) -> None:
        pictures: list[Job] = []
        large: list[Job] = []
        for job in jobs:
            try:
                (large if self._by_windows(job.image) else pictures).append(job)
            except InputError as error:
                self.failures.append(error)
        with _bar("predicting", len(jobs)) as advance:
            self._pictures(pictures, advance)
            for job in large:
                self._large(job, advance)

    def _by_windows(self, image: Path) -> bool:
        spec, scale = self.predictor.model.spec, self.predictor.scale
        if self.config.scale != "training" and lies_on_the_ground(image):
            return True
        if takes(image, spec.in_channels, scale, spec.input_size) <= self.windows.memory / 2:
            return False
        return scale.factor is not None or spec.input_size is None

    def _pictures(self, jobs: Sequence[Job], advance: Advance) -> None:
        names = {job.image: job.name for job in jobs}

        def failed(image: Path, error: InputError) -> None:
            self.failures.append(error)
            advance(1)

        with ThreadPoolExecutor(2) as pool:
            writing: deque[Future[None]] = deque()
            wanted, spec = self.results.wanted, self.predictor.model.spec
            unsure = wanted.probabilities or wanted.entropy
            for found in self.predictor.stream(list(names), probabilities=unsure, failed=failed):
                assert found.source is not None
                name = names[found.source]
                writing.append(pool.submit(self.results.write, found, name, spec))
                self.results.note(found.source, name, found.mask)
                advance(1)
                while len(writing) > 8:
                    writing.popleft().result()
            for future in writing:
                future.result()

    def _large(self, job: Job, advance: Advance) -> None:
        place, wanted = self.results.place, self.results.wanted
        mask = place("masks", job.name, ".tif" if lies_on_the_ground(job.image) else ".png")
        try:
            written = self.predictor.segment_file(
                job.image,
                mask,
                overlay=place("overlays", job.name) if wanted.overlays else None,
                probabilities=place("probabilities", job.name, ".tif") if wanted.probabilities else None,
                gsd=self.config.gsd,
                windows=self.windows,
                opacity=wanted.opacity,
                advance=advance,
            )
        except InputError as error:
            self.failures.append(error)
            return
        self.results.note(job.image, job.name, mask)
        self.said.append(f"{job.image}: {written.method}")

    def report(self, images: int, seconds: float) -> None:
        """Say what was done.

        Raises:
            InputError: where images could not be segmented.
        """
        made = images - len(self.failures)
        if made:
            if self.predictor.agreement is not None:
                told = f"{self.predictor.agreement:.2%} of the first image's pixels have the class of 32-true"
                print(f"precision {self.predictor.precision}: in bf16-mixed {told}")
            for line in self.said:
                print(line)
            print(f"{made} masks  {self.results.folder / 'masks'}  ({made / seconds:.3g} images/s)")
            for kind in self.results.wanted.folders[1:]:
                print(f"{kind}  {self.results.folder / kind}")
        if self.failures:
            more = f" (and {len(self.failures) - 1} more)" if len(self.failures) > 1 else ""
            raise InputError(f"{self.failures[0]}{more}")


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[Advance]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda share: progress.advance(task, share)


def _spare_inputs(jobs: Sequence[Job], output: Path, kinds: Sequence[str]) -> None:
    """Refuse to write over an image that is to be read."""
    read = {job.image.resolve() for job in jobs}
    for path in (
        output / kind / with_ending(job.name, end) for kind in kinds for job in jobs for end in (".png", ".tif")
    ):
        if path.resolve() in read:
            raise InputError(f"output={output}: {path} is one of the images of input; expected another folder")

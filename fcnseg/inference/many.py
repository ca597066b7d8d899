"""Many image files at once: pictures in batches, whose files are written meanwhile, and large ones by windows."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from fcnseg.errors import InputError
from fcnseg.inference.large import takes
from fcnseg.inference.mosaic import Windows
from fcnseg.inference.predictor import Predictor
from fcnseg.inference.results import Results
from fcnseg.inference.scale import Scale
from fcnseg.inference.scene import lies_on_the_ground

Advance = Callable[[float], None]


@dataclass(frozen=True)
class Job:
    """An image and what its results are called."""

    image: Path
    name: Path


@dataclass
class Work:
    """What is done with all images.

    Attributes:
        predictor: what segments them.
        results: what is made of them.
        windows: how large ones are computed.
        gsd: see `segment_file`.
        mapped: whether images that lie on the ground are computed by windows, whatever their size.
        failures: of the images that could not be segmented, the reasons.
        said: how those that were computed by windows were.
    """

    predictor: Predictor
    results: Results
    windows: Windows
    gsd: float | None = None
    mapped: bool = True
    failures: list[InputError] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def carry_out(self, jobs: Sequence[Job], advance: Advance = lambda share: None) -> None:
        """Segment them all.

        Args:
            jobs: the images.
            advance: is told the images, or shares of them, that have been dealt with.

        Raises:
            OSError: when a file cannot be written.
        """
        pictures: list[Job] = []
        large: list[Job] = []
        for job in jobs:
            try:
                (large if self._by_windows(job.image) else pictures).append(job)
            except InputError as error:
                self.failures.append(error)
                advance(1)
        self._pictures(pictures, advance)
        for job in large:
            self._large(job, advance)

    def _by_windows(self, image: Path) -> bool:
        spec, scale = self.predictor.model.spec, self.predictor.scale
        if self.mapped and lies_on_the_ground(image):
            return True
        return takes(image, spec.in_channels, scale, spec.input_size) > self.windows.memory / 2

    def _scale(self, image: Path) -> Scale | None:
        """The predictor's; but where nothing else was asked for, what lies on the ground is seen as it is."""
        scale = self.predictor.scale
        return None if scale.factor is None and self.mapped and lies_on_the_ground(image) else scale

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
                entropy=place("entropy", job.name, ".tif") if wanted.entropy else None,
                gsd=self.gsd,
                windows=self.windows,
                scale=self._scale(job.image),
                opacity=wanted.opacity,
                advance=advance,
            )
        except InputError as error:
            self.failures.append(error)
            return
        self.results.note(job.image, job.name, mask)
        self.said.append(f"{job.image}: {written.method}")

"""Many image files at once: pictures in batches, whose files are written meanwhile, and large ones by windows."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np

from fcnseg.data.files.images import image_size
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


@dataclass(frozen=True)
class Portion:
    """Images that one process deals with: pictures of one batch, or one that is computed by windows."""

    jobs: tuple[Job, ...]
    by_windows: bool = False


@dataclass(frozen=True, eq=False)
class Outcome:
    """What has become of an image, whose own files are written.

    Attributes:
        mask: (H, W) class indices, or the file that has them, where something is made of all masks.
        failure: why it could not be segmented.
        method: how it was computed by windows.
    """

    job: Job
    mask: np.ndarray | Path | None = None
    failure: InputError | None = None
    method: str | None = None


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

    def carry_out(self, portions: Sequence[Portion], advance: Advance = lambda share: None) -> None:
        """Segment all images in this process.

        Args:
            portions: as `plan` gives them.
            advance: is told the images, or shares of them, that have been dealt with.

        Raises:
            OSError: when a file cannot be written.
        """
        with closing(self.outcomes(list(enumerate(portions)), advance)) as found:
            for _, outcomes in found:
                self.note(outcomes)

    def plan(self, jobs: Sequence[Job], advance: Advance = lambda share: None) -> list[Portion]:
        """Images in the portions that they are dealt with in: pictures, which one process would take together, first.

        Those whose files cannot be read are failures already.
        """
        pictures: list[tuple[Job, tuple[int, int]]] = []
        large: list[Job] = []
        for job in jobs:
            try:
                if (size := self._size_as_picture(job.image)) is None:
                    large.append(job)
                else:
                    pictures.append((job, size))
            except InputError as error:
                self.failures.append(error)
                advance(1)
        return [*self._batches(pictures), *(Portion((job,), by_windows=True) for job in large)]

    def outcomes(
        self, portions: Sequence[tuple[int, Portion]], advance: Advance
    ) -> Generator[tuple[int, list[Outcome]], None, None]:
        """Segment the images of some of the portions; yields their numbers and what has become of their images.

        Raises:
            OSError: when a file cannot be written.
        """
        yield from self._pictures({n: portion.jobs for n, portion in portions if not portion.by_windows}, advance)
        for number, portion in portions:
            if portion.by_windows:
                yield number, [self._large(job, advance) for job in portion.jobs]

    def note(self, outcomes: Sequence[Outcome]) -> None:
        """Add images to the files of all images, and to what is said at the end; in their order."""
        for outcome in outcomes:
            if outcome.failure is not None:
                self.failures.append(outcome.failure)
                continue
            if outcome.mask is not None:
                self.results.note(outcome.job.image, outcome.job.name, outcome.mask)
            if outcome.method is not None:
                self.said.append(f"{outcome.job.image}: {outcome.method}")

    def _size_as_picture(self, image: Path) -> tuple[int, int] | None:
        """The (height, width) of an image; None where it is to be computed by windows."""
        spec, scale = self.predictor.model.spec, self.predictor.scale
        if self.mapped and lies_on_the_ground(image):
            return None
        size = image_size(image)
        return None if takes(size, spec.in_channels, scale, spec.input_size) > self.windows.memory / 2 else size

    def _batches(self, pictures: Sequence[tuple[Job, tuple[int, int]]]) -> Iterator[Portion]:
        """Neighbours that are seen at one size, as many as go through the network together."""
        spec, scale = self.predictor.model.spec, self.predictor.scale
        for size, group in groupby(pictures, key=lambda picture: scale.sees(picture[1], spec)):
            jobs, most = [job for job, _ in group], self.predictor.batch_size(*size)
            yield from (Portion(tuple(jobs[start : start + most])) for start in range(0, len(jobs), most))

    def _scale(self, image: Path) -> Scale | None:
        """The predictor's; but where nothing else was asked for, what lies on the ground is seen as it is."""
        scale = self.predictor.scale
        return None if scale.factor is None and self.mapped and lies_on_the_ground(image) else scale

    def _pictures(self, portions: dict[int, tuple[Job, ...]], advance: Advance) -> Iterator[tuple[int, list[Outcome]]]:
        jobs = {job.image: (number, job) for number, together in portions.items() for job in together}
        found: dict[int, list[Outcome]] = {number: [] for number in portions}

        def add(image: Path, mask: np.ndarray | None = None, failure: InputError | None = None) -> None:
            number, job = jobs[image]
            found[number].append(Outcome(job, mask if self.results.summarises else None, failure))
            advance(1)

        with ThreadPoolExecutor(2) as pool:
            writing: deque[Future[None]] = deque()
            wanted, spec = self.results.wanted, self.predictor.model.spec
            unsure = wanted.probabilities or wanted.entropy
            stream = self.predictor.stream(
                list(jobs),
                probabilities=unsure,
                failed=lambda image, error: add(image, failure=error),
                portion=lambda image: jobs[image][0],
            )
            for segmentation in stream:
                assert segmentation.source is not None
                number, job = jobs[segmentation.source]
                writing.append(pool.submit(self.results.write, segmentation, job.name, spec))
                add(job.image, segmentation.mask)
                while len(writing) > 8:
                    writing.popleft().result()
                while (first := next(iter(found))) < number:  # the stream keeps the order
                    yield first, found.pop(first)
            for future in writing:
                future.result()
        yield from found.items()

    def _large(self, job: Job, advance: Advance) -> Outcome:
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
            return Outcome(job, failure=error)
        return Outcome(job, mask, method=written.method)

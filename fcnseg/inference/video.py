"""Videos in and out: frames of a file, overlays as a video, masks as a folder. Needs PyAV (the extra `video`)."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from fcnseg.atomic import replacing
from fcnseg.errors import InputError
from fcnseg.inference.overlay import add_legend, save_mask
from fcnseg.inference.predictor import Predictor
from fcnseg.inference.segmentation import Segmentation

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv"})
"""Endings by which a file is taken for a video."""

WRITTEN_SUFFIXES = (".mp4", ".mkv", ".mov")
BT709 = 1
"""The number that FFmpeg gives to the colours of HDTV (ITU-R BT.709), which players assume where nothing is said."""


@dataclass(frozen=True)
class VideoFacts:
    """What a video says of itself.

    Attributes:
        frames: how many there are, or about as many; None where nothing tells.
        rate: frames per second, on average.
        size: (height, width), upright.
    """

    frames: int | None
    rate: Fraction
    size: tuple[int, int]


def video_facts(path: Path | str) -> VideoFacts:
    """Look at a video's head and first frame.

    Raises:
        InputError: for a file that is no video, and without PyAV.
    """
    with _opened(Path(path)) as (container, stream):
        rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        seconds = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / 1e6
        first = next(container.decode(stream), None)
        if first is None:
            raise InputError(f"{path}: has no frame that could be decoded")
        size = (first.width, first.height) if first.rotation % 180 else (first.height, first.width)
        return VideoFacts(stream.frames or round(seconds * rate) or None, rate, size)


def read_frames(path: Path | str) -> Iterator[np.ndarray]:
    """The frames of a video as (H, W, 3) uint8 RGB, one after the other, turned as its metadata say.

    Raises:
        InputError: for a file that is no video or is damaged, at the place where it is, and without PyAV.
    """
    with _opened(Path(path)) as (container, stream):
        for frame in container.decode(stream):
            pixels = frame.to_ndarray(format="rgb24")
            # PyAV tells by how many degrees anticlockwise it is to be turned, as numpy counts.
            yield np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


def write_video(path: Path | str, frames: Iterable[np.ndarray], rate: Fraction | int) -> int:
    """Write (H, W, 3) uint8 RGB frames as H.264 in yuv420p, which every player shows; returns how many there were.

    The file appears when all are in it. An odd width or height, which the format does not have, is made even by
    repeating the last column or row.

    Args:
        path: ends in .mp4, .mkv or .mov.
        frames: all of one size.
        rate: frames per second.

    Raises:
        InputError: for another ending, no frame at all, frames of several sizes, and where the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITTEN_SUFFIXES:
        raise InputError(f"{path}: a video is written as {', '.join(WRITTEN_SUFFIXES)}")
    av = import_av()
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise InputError(f"{path}: there is no frame to write")
    count = 0
    try:
        with replacing(path) as temporary, av.open(str(temporary), "w") as container:
            stream = _encoder(container, first.shape, rate)
            for frame in chain([first], frames):
                if frame.shape != first.shape:
                    raise InputError(f"{path}: frame {count + 1} is {frame.shape}, the first one {first.shape}")
                container.mux(stream.encode(_encodable(frame, av)))
                count += 1
            container.mux(stream.encode(None))
    except (OSError, av.FFmpegError) as error:
        raise InputError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})") from error
    return count


def segment_video(
    predictor: Predictor,
    source: Path | str,
    target: Path | str,
    opacity: float = 0.5,
    legend: bool = False,
    progress: Callable[[], object] | None = None,
) -> int:
    """Segment every frame of a video, in memory for a few of them; returns how many there were.

    Sound is not carried over. A video whose frames follow each other unevenly becomes one of its average rate.

    Args:
        predictor: of a model of three channels.
        source: the video.
        target: a file, ending in .mp4, .mkv or .mov, which becomes a video of overlays; or else a folder, which gets
            the mask of each frame as a PNG, by the frame's number from 000001 on.
        opacity: of overlays, 0 to 1.
        legend: below every overlay, with all classes.
        progress: called after every frame; `video_facts` tells how many to expect.

    Raises:
        InputError: for a video that cannot be read, a target that cannot be written, and a model that does not take
            three channels of 8 bits.
    """
    source, target = Path(source), Path(target)
    facts = video_facts(source)
    to_video = target.suffix.lower() in VIDEO_SUFFIXES
    if to_video and target.exists() and target.resolve() == source.resolve():
        raise InputError(f"{target}: is the video that is read; expected another name")
    found = _reported(predictor.stream(read_frames(source)), progress)
    if not to_video:
        return _write_masks(found, target)
    return write_video(target, (_overlay(one, opacity, legend) for one in found), facts.rate)


def import_av() -> Any:
    """The module av.

    Raises:
        InputError: where it is not installed.
    """
    try:
        return import_module("av")
    except ImportError:
        raise InputError("videos: need PyAV; pip install fcnseg[video]") from None


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The file and its first stream of pictures; every way in which it cannot be decoded becomes one line."""
    av = import_av()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path}: has no pictures, expected a video")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield container, stream
    except av.FFmpegError as error:
        raise InputError(f"{path}: cannot be read as a video ({error.strerror})") from error


def _encoder(container: Any, shape: tuple[int, ...], rate: Fraction | int) -> Any:
    # 18 of 51 is about where eyes see no loss; clients start to play before the whole file is there.
    stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(65535), options={"crf": "18"})
    stream.height, stream.width = (n + n % 2 for n in shape[:2])
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = BT709
    return stream


def _encodable(frame: np.ndarray, av: Any) -> Any:
    height, width = frame.shape[:2]
    even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
    return picture.reformat(format="yuv420p", dst_colorspace="ITU709")


def _reported(segmentations: Iterator[Segmentation], progress: Callable[[], object] | None) -> Iterator[Segmentation]:
    for segmentation in segmentations:
        yield segmentation
        if progress is not None:
            progress()


def _overlay(segmentation: Segmentation, opacity: float, legend: bool) -> np.ndarray:
    picture = segmentation.overlay(opacity)
    # Of all classes: the legend of those present would change its height from frame to frame.
    return np.asarray(add_legend(picture, segmentation.label_space) if legend else picture)


def _write_masks(segmentations: Iterator[Segmentation], folder: Path) -> int:
    count = 0
    for count, segmentation in enumerate(segmentations, start=1):
        try:
            save_mask(segmentation.mask, segmentation.label_space, folder / f"{count:06d}.png")
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from error
    return count

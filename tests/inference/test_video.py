"""Videos that PyAV writes and reads here, beside what this library reads and writes."""

import struct
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

import fcnseg
from fcnseg.errors import InputError
from fcnseg.inference.overlay import add_legend
from fcnseg.inference.video import read_frames, segment_video, video_facts, write_video
from fcnseg.labels import STREET11

SIZE = (48, 64)
RATE = Fraction(30000, 1001)
TOLERANCE = 12
"""Grey levels that smooth frames may change by in lossy compression, and in the change of colours' coordinates."""


def frames(count: int = 7, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """Smooth pictures that change from frame to frame and look different whichever way they are turned."""
    rows, columns = (np.linspace(0, 1, n) for n in size)
    red, green = np.meshgrid(columns, rows)
    pictures = (np.stack([red, green, np.full(size, t / count)], axis=2) for t in range(count))
    return [np.rint(255 * (0.3 + 0.4 * picture)).astype(np.uint8) for picture in pictures]


def written(path: Path, pictures: list[np.ndarray], codec: str = "mpeg4") -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def silent_film_of_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read(path: Path) -> tuple[list[np.ndarray], Fraction, str]:
    """Frames, rate and pixel format by PyAV alone."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return pictures, stream.average_rate, stream.codec_context.name + " " + stream.pix_fmt


def turned(path: Path, matrix: tuple[int, ...]) -> None:
    """Set the display matrix of an MP4's track, as telephones do that are held upright."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40  # behind version, times, layer and volume (ISO 14496-12, 8.3.2)
    data[place : place + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)


def near(found: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(found.astype(int) - expected).max() <= TOLERANCE)


@pytest.fixture(scope="module")
def predictor() -> fcnseg.Predictor:
    torch.manual_seed(0)
    model = fcnseg.create_model("fcn32s_alexnet", num_classes=11, width=0.05, label_space=STREET11.to_dict())
    torch.nn.init.normal_(model.score_fr.weight)
    torch.nn.init.normal_(model.score_fr.bias)
    return fcnseg.Predictor(model, device="cpu")


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "libx264"), ("mp4", "mpeg4"), ("avi", "mpeg4"), ("mkv", "libx264")]
)
def test_frames_are_those_that_were_written(suffix, codec, tmp_path):
    path = written(tmp_path / f"video.{suffix}", frames(), codec)
    found = list(read_frames(path))
    assert len(found) == 7
    assert all(picture.dtype == np.uint8 for picture in found)
    assert all(map(near, found, frames()))
    facts = video_facts(path)
    assert facts.size == SIZE
    assert float(facts.rate) == pytest.approx(float(RATE), rel=1e-3)
    assert facts.frames == pytest.approx(7, abs=1)


ONE = 1 << 16
CLOCKWISE = (0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30)
"""A matrix that sends x to the right onto y down: a quarter of a turn clockwise on the screen."""


@pytest.mark.parametrize(
    ("matrix", "quarters"),
    [(CLOCKWISE, -1), ((-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30), 2), ((0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30), 1)],
)
def test_what_was_filmed_upright_is_upright(matrix, quarters, tmp_path):
    path = written(tmp_path / "video.mp4", frames(2), "libx264")
    turned(path, matrix)
    expected = [np.rot90(frame, quarters) for frame in frames(2)]
    assert video_facts(path).size == expected[0].shape[:2]
    assert all(map(near, read_frames(path), expected))


@pytest.mark.parametrize("size", [(48, 64), (47, 64), (48, 63), (33, 35)])
def test_a_video_is_what_players_read(size, tmp_path):
    path = tmp_path / "made" / "video.mp4"
    assert write_video(path, iter(frames(size=size)), RATE) == 7
    found, rate, codec = read(path)
    assert (len(found), rate, codec) == (7, RATE, "h264 yuv420p")
    even = tuple(n + n % 2 for n in size)
    for picture, frame in zip(found, frames(size=size), strict=True):
        assert picture.shape[:2] == even
        assert near(picture[: size[0], : size[1]], frame)
    assert [p.name for p in path.parent.iterdir()] == ["video.mp4"]


def test_colours_come_back(tmp_path):
    """In plain ones: red and green, where one standard of colours differs from another by more than 20 levels."""
    frame = np.zeros((*SIZE, 3), np.uint8)
    frame[:, :32], frame[:, 32:] = (200, 30, 30), (30, 200, 30)
    write_video(tmp_path / "video.mp4", [frame] * 3, 25)
    for found in read_frames(tmp_path / "video.mp4"):
        assert near(found[:, 4:28], frame[:, 4:28])
        assert near(found[:, 36:60], frame[:, 36:60])


def test_overlays_are_those_of_the_frames(predictor, tmp_path):
    source = written(tmp_path / "video.mp4", frames())
    done = []
    assert segment_video(predictor, source, tmp_path / "out.mp4", 0.4, progress=lambda: done.append(1)) == 7
    found, rate, _ = read(tmp_path / "out.mp4")
    assert len(found) == len(done) == 7
    assert float(rate) == pytest.approx(float(RATE), rel=1e-3)
    for picture, frame in zip(found, read_frames(source), strict=True):
        expected = np.asarray(predictor(frame).overlay(0.4))
        assert np.abs(picture.astype(int) - expected).mean() < TOLERANCE


def test_a_legend_has_one_height_in_all_frames(predictor, tmp_path):
    source = written(tmp_path / "video.mp4", frames(3))
    segment_video(predictor, source, tmp_path / "out.mp4", legend=True)
    height = add_legend(Image.new("RGB", SIZE[::-1]), STREET11).height
    assert {picture.shape for picture in read(tmp_path / "out.mp4")[0]} == {(height + height % 2, 64, 3)}


def test_masks_are_those_of_the_frames(predictor, tmp_path):
    source = written(tmp_path / "video.mp4", frames())
    assert segment_video(predictor, source, tmp_path / "masks") == 7
    assert sorted(p.name for p in (tmp_path / "masks").iterdir()) == [f"{n:06d}.png" for n in range(1, 8)]
    for number, frame in enumerate(read_frames(source), start=1):
        with Image.open(tmp_path / "masks" / f"{number:06d}.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask), predictor(frame).mask)


def test_what_is_no_video_ends_in_one_line(predictor, tmp_path, monkeypatch):
    (tmp_path / "text.mp4").write_text("no video" * 99)
    (tmp_path / "empty.mp4").touch()
    whole = written(tmp_path / "whole.mp4", frames()).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    for name in ("text.mp4", "empty.mp4", "cut.mp4", "missing.mp4"):
        with pytest.raises(InputError, match=rf"{name}: cannot be read as a video \([^\n]+\)$"):
            segment_video(predictor, tmp_path / name, tmp_path / "out.mp4")
    with pytest.raises(InputError, match=r"sound\.mp4: has no pictures"):
        segment_video(predictor, silent_film_of_sound(tmp_path / "sound.mp4"), tmp_path / "out.mp4")
    monkeypatch.setitem(sys.modules, "av", None)  # as where it is not installed
    with pytest.raises(InputError, match=r"pip install fcnseg\[video\]"):
        list(read_frames(tmp_path / "whole.mp4"))
    assert not (tmp_path / "out.mp4").exists()


def test_what_cannot_be_written_ends_in_one_line_and_leaves_nothing(predictor, tmp_path):
    source = written(tmp_path / "video.mp4", frames(2))
    (tmp_path / "file").touch()
    for target in (tmp_path / "file" / "out.mp4", tmp_path / "file"):
        with pytest.raises(InputError, match="cannot be written"):
            segment_video(predictor, source, target)
    with pytest.raises(InputError, match=r"out\.avi: a video is written as \.mp4"):
        segment_video(predictor, source, tmp_path / "out.avi")
    with pytest.raises(InputError, match="is the video that is read"):
        segment_video(predictor, source, source)
    with pytest.raises(InputError, match="no frame"):
        write_video(tmp_path / "out.mp4", [], 25)
    with pytest.raises(InputError, match="frame 2 is"):
        write_video(tmp_path / "out.mp4", [frames()[0], frames()[0][1:]], 25)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "video.mp4"]

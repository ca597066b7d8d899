"""Caffe's files against a real one, and against files encoded here byte by byte."""

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from fcnseg.errors import InputError
from fcnseg.models.caffemodel import read_caffemodel

ORACLE = Path(__file__).parents[2].parent / "shared" / "oracle"
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


# Protocol buffers by hand. A field is its key, number << 3 | wire type, and its value:
# a varint (wire type 0), 8 bytes (1), a length and that many bytes (2), or 4 bytes (5).


def varint(value: int) -> bytes:
    """Seven bits to a byte, least significant first; all but the last carry the eighth bit."""
    value %= 1 << 64  # negative numbers as two's complement
    low, rest = value & 0x7F, value >> 7
    return bytes([low]) if not rest else bytes([low | 0x80]) + varint(rest)


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def chunk(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def floats(values: np.ndarray) -> bytes:
    return struct.pack(f"<{values.size}f", *values.ravel().tolist())


def shape(*dims: int) -> bytes:
    """BlobShape: dim = 1, packed."""
    return chunk(7, chunk(1, b"".join(map(varint, dims))))


def blob(values: np.ndarray) -> bytes:
    """BlobProto as today's Caffe writes it: data = 5, shape = 7."""
    return chunk(5, floats(values)) + shape(*values.shape)


def v1_blob(values: np.ndarray) -> bytes:
    """BlobProto as the older Caffe wrote it: num, channels, height, width = 1 to 4, data = 5, an empty diff = 6."""
    dims = (1,) * (4 - values.ndim) + values.shape
    return b"".join(number(i, n) for i, n in enumerate(dims, start=1)) + chunk(5, floats(values)) + chunk(6, b"")


def layer(name: str, *blobs: bytes, kind: str = "Convolution") -> bytes:
    """LayerParameter in a NetParameter: layer = 100; name = 1, type = 2, bottom = 3, top = 4, blobs = 7."""
    head = chunk(1, name.encode()) + chunk(2, kind.encode()) + chunk(3, b"data") + chunk(4, b"top")
    return chunk(100, head + b"".join(chunk(7, b) for b in blobs))


def v1_layer(name: str, *blobs: bytes, kind: int = 4) -> bytes:
    """V1LayerParameter: layers = 2; bottom = 2, top = 3, name = 4, type = 5 (4: CONVOLUTION), blobs = 6."""
    head = chunk(2, b"data") + chunk(3, b"top") + chunk(4, name.encode()) + number(5, kind)
    return chunk(2, head + b"".join(chunk(6, b) for b in blobs))


NET = chunk(1, b"a network")
WEIGHT = np.arange(54, dtype="float32").reshape(3, 2, 3, 3) / 7 - 3
BIAS = np.array([0.5, -2, 1e-30], dtype="float32")
FC = np.linspace(-1, 1, 20, dtype="float32").reshape(4, 5)

FORMATS = {
    "layer": NET
    + layer("data", kind="Input")
    + layer("conv1", blob(WEIGHT), blob(BIAS))
    + layer("relu1", kind="ReLU")
    + layer("fc2", blob(FC)),
    "layers": NET
    + v1_layer("data", kind=5)
    + v1_layer("conv1", v1_blob(WEIGHT), v1_blob(BIAS))
    + v1_layer("relu1", kind=18)
    + v1_layer("fc2", v1_blob(FC), kind=14),
}


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], dict[str, list[np.ndarray]]]:
    """Read these bytes as a file."""

    def read(content: bytes) -> dict[str, list[np.ndarray]]:
        path = tmp_path / "net.caffemodel"
        path.write_bytes(content)
        return read_caffemodel(path)

    return read


def failure(read: Callable, content: bytes) -> str:
    """The message that reading these bytes ends with: one line that names the file."""
    with pytest.raises(InputError) as caught:
        read(content)
    message = str(caught.value)
    assert "net.caffemodel: " in message
    assert len(message.splitlines()) == 1
    return message.split("net.caffemodel: ")[1]


class TestFiles:
    def test_of_caffe(self) -> None:
        path = ORACLE / "tiny.caffemodel"
        if not path.is_file():
            pytest.skip(f"{path} is not here")
        weights = read_caffemodel(path)
        with np.load(path.with_suffix(".npz")) as expected:
            assert {f"{name}.{i}" for name, blobs in weights.items() for i in range(len(blobs))} == set(expected)
            assert list(weights) == ["conv1_1", "fc6", "fc7"]
            for name, blobs in weights.items():
                for i, values in enumerate(blobs):
                    assert values.dtype == np.float32
                    np.testing.assert_array_equal(values, expected[f"{name}.{i}"], strict=True)

    def test_in_todays_format(self, read: Callable) -> None:
        weights = read(FORMATS["layer"])
        assert list(weights) == ["conv1", "fc2"]
        for values, expected in zip([*weights["conv1"], *weights["fc2"]], [WEIGHT, BIAS, FC], strict=True):
            np.testing.assert_array_equal(values, expected, strict=True)

    def test_in_the_v1_format(self, read: Callable) -> None:
        """Always four dimensions."""
        weights = read(FORMATS["layers"])
        assert list(weights) == ["conv1", "fc2"]
        expected = [WEIGHT, BIAS.reshape(1, 1, 1, 3), FC.reshape(1, 1, 4, 5)]
        for values, e in zip([*weights["conv1"], *weights["fc2"]], expected, strict=True):
            np.testing.assert_array_equal(values, e, strict=True)

    def test_layers_keep_their_order(self, read: Callable) -> None:
        names = ["z", "a", "m", "b"]
        assert list(read(b"".join(layer(name, blob(BIAS)) for name in names))) == names

    def test_arrays_can_be_written_to(self, read: Callable) -> None:
        """torch warns of arrays that cannot."""
        for blobs in read(FORMATS["layer"]).values():
            assert all(values.flags.writeable for values in blobs)

    def test_path_may_be_a_string(self, tmp_path: Path) -> None:
        (tmp_path / "net").write_bytes(FORMATS["layer"])
        assert list(read_caffemodel(str(tmp_path / "net"))) == ["conv1", "fc2"]


class TestBlobs:
    @given(arrays.arrays("<f4", arrays.array_shapes(max_dims=5, max_side=4), elements=FINITE))
    def test_of_any_shape(self, tmp_path_factory: pytest.TempPathFactory, values: np.ndarray) -> None:
        path = tmp_path_factory.getbasetemp() / "any.caffemodel"
        path.write_bytes(layer("x", blob(values)))
        np.testing.assert_array_equal(read_caffemodel(path)["x"][0], values, strict=True)
        if values.ndim <= 4:
            path.write_bytes(v1_layer("x", v1_blob(values)))
            expected = values.reshape((1,) * (4 - values.ndim) + values.shape)
            np.testing.assert_array_equal(read_caffemodel(path)["x"][0], expected, strict=True)

    def test_of_doubles_become_floats(self, read: Callable) -> None:
        """double_data = 8, which Caffe prefers to data where both are there."""
        values = np.array([1 / 3, -2.5e-3, 7e7])
        packed = chunk(8, struct.pack("<3d", *values)) + chunk(5, floats(BIAS)) + shape(3)
        np.testing.assert_array_equal(read(layer("x", packed))["x"][0], values.astype("float32"), strict=True)

    def test_with_values_one_by_one(self, read: Callable) -> None:
        """The encoding of `repeated float` without `packed`: a key for each value."""
        singles = b"".join(b"\x2d" + struct.pack("<f", v) for v in BIAS) + shape(3)
        np.testing.assert_array_equal(read(layer("x", singles))["x"][0], BIAS, strict=True)
        singles = b"".join(b"\x41" + struct.pack("<d", v) for v in BIAS) + shape(3)
        np.testing.assert_array_equal(read(layer("x", singles))["x"][0], BIAS, strict=True)

    def test_packed_in_several_parts(self, read: Callable) -> None:
        parts = chunk(5, floats(FC[:1])) + shape(*FC.shape) + chunk(5, floats(FC[1:]))
        np.testing.assert_array_equal(read(layer("x", parts))["x"][0], FC, strict=True)

    def test_unpacked_shape(self, read: Callable) -> None:
        dims = chunk(7, number(1, 4) + number(1, 5))
        np.testing.assert_array_equal(read(layer("x", chunk(5, floats(FC)) + dims))["x"][0], FC, strict=True)

    def test_without_a_shape_is_a_number(self, read: Callable) -> None:
        values = read(layer("x", chunk(5, struct.pack("<f", 0.25))))["x"][0]
        assert values.shape == ()
        assert values == 0.25


class TestFailures:
    @pytest.mark.parametrize("form", FORMATS)
    def test_cut_at_any_byte(self, form: str, read: Callable) -> None:
        """Nothing but a cut between two layers passes: there the format itself sees a whole, shorter file."""
        layers = {
            "layer": [layer("relu1", kind="ReLU"), layer("fc2", blob(FC))],
            "layers": [v1_layer("relu1", kind=18), v1_layer("fc2", v1_blob(FC), kind=14)],
        }[form]
        whole = FORMATS[form]
        assert whole.endswith(b"".join(layers))
        ends = [len(whole) - len(b"".join(layers)), len(whole) - len(layers[1])]
        assert self.whole_enough(whole, read) == {end: ["conv1"] for end in ends}

    def test_real_file_cut_at_any_byte(self, read: Callable) -> None:
        """Its layers are conv1_1, fc6, fc7 and one without weights."""
        path = ORACLE / "tiny.caffemodel"
        if not path.is_file():
            pytest.skip(f"{path} is not here")
        names = list(self.whole_enough(path.read_bytes(), read).values())
        assert names == [["conv1_1"], ["conv1_1", "fc6"], ["conv1_1", "fc6", "fc7"]]

    @staticmethod
    def whole_enough(content: bytes, read: Callable) -> dict[int, list[str]]:
        """The cuts that can be read, with the names of the layers that are left; all others fail in one line."""
        names = {}
        for cut in range(len(content)):
            try:
                names[cut] = list(read(content[:cut]))
            except InputError:
                failure(read, content[:cut])
        return names

    def test_cut_inside_is_told_from_a_foreign_file(self, read: Callable) -> None:
        assert "cut short" in failure(read, FORMATS["layer"][:-1])

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            NET,
            FORMATS["layer"][: len(NET + layer("data", kind="Input"))],
            NET + layer("conv1") + v1_layer("conv2"),
        ],
        ids=["empty", "name", "first layer", "definition"],
    )
    def test_without_weights(self, content: bytes, read: Callable) -> None:
        assert failure(read, content) == "no layer holds weights; expected a trained .caffemodel"

    def test_missing_file(self, tmp_path: Path) -> None:
        path = tmp_path / "net.caffemodel"
        with pytest.raises(InputError, match=r"net\.caffemodel: No such file or directory; expected a \.caffemodel$"):
            read_caffemodel(path)
        path.mkdir()
        with pytest.raises(InputError, match=r"net\.caffemodel: Is a directory; expected a \.caffemodel$"):
            read_caffemodel(path)

    def test_foreign_files(self, read: Callable, tmp_path: Path) -> None:
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "image.png")
        torch.save({"conv1.weight": torch.ones(3, 2)}, tmp_path / "weights.pth")
        np.savez(tmp_path / "weights.npz", conv1=WEIGHT)
        (tmp_path / "net.prototxt").write_text('name: "net"\nlayer { name: "conv1" type: "Convolution" }\n')
        (tmp_path / "page.html").write_text("<!DOCTYPE html><title>404</title>")
        for path in list(tmp_path.iterdir()):
            assert "caffemodel" in failure(read, path.read_bytes())

    @given(st.binary(max_size=200))
    def test_random_bytes(self, tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
        """Chance writes no layer with weights that fit their shape."""
        path = tmp_path_factory.getbasetemp() / "random.caffemodel"
        path.write_bytes(content)
        with pytest.raises(InputError):
            read_caffemodel(path)

    @given(st.data())
    def test_flipped_bytes(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        """Damage ends in an InputError or in other weights, never in another exception."""
        content = bytearray(FORMATS[data.draw(st.sampled_from(list(FORMATS)))])
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path = tmp_path_factory.getbasetemp() / "flipped.caffemodel"
        path.write_bytes(content)
        with suppress(InputError):
            weights = read_caffemodel(path)
            assert all(np.isfinite(values).all() for blobs in weights.values() for values in blobs)

    @pytest.mark.parametrize(
        ("content", "count", "dims"),
        [
            (chunk(5, floats(BIAS)) + shape(4), 3, "(4,)"),
            (chunk(5, floats(BIAS)) + shape(1, 2), 3, "(1, 2)"),
            (shape(3, 2), 0, "(3, 2)"),
            (shape(0, 2), 0, "(0, 2)"),
            (chunk(5, floats(BIAS)), 3, "()"),
            (b"", 0, "()"),
            (chunk(5, floats(BIAS)) + shape(-1, -3), 3, "(-1, -3)"),
            (chunk(5, floats(BIAS)) + number(1, 2) + number(4, 2), 3, "(2, 0, 0, 2)"),
            (chunk(5, floats(BIAS)) + b"\x2d" + struct.pack("<f", 1) + shape(4), 3, "(4,)"),
            (shape(1 << 40, 1 << 40), 0, "(1099511627776, 1099511627776)"),
        ],
        ids=["short", "long", "bare", "zero", "unshaped", "empty", "negative", "old", "half packed", "huge"],
    )
    def test_values_that_do_not_fill_the_shape(self, content: bytes, count: int, dims: str, read: Callable) -> None:
        message = failure(read, layer("conv1", blob(WEIGHT), content))
        assert message == f"layer 'conv1', blob 1: {count} values; expected as many as its shape {dims} has"

    def test_old_shape_counts_before_the_new_one(self, read: Callable) -> None:
        """As in Caffe's Blob::FromProto."""
        values = read(layer("x", number(1, 3) + number(2, 1) + number(3, 1) + number(4, 1) + blob(BIAS)))["x"][0]
        assert values.shape == (3, 1, 1, 1)

    def test_half_a_value(self, read: Callable) -> None:
        message = failure(read, layer("conv1", chunk(5, floats(BIAS)[:-1]) + shape(3)))
        assert message.startswith("layer 'conv1', blob 0: ")

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite(self, value: float, read: Callable) -> None:
        values = FC.copy()
        values[2, 3] = value
        for content in (layer("fc6", blob(FC)) + layer("fc7", blob(values)), v1_layer("fc7", v1_blob(values))):
            message = failure(read, content)
            assert message == "layer 'fc7', blob 0: values that are infinite or not a number; expected finite ones"

    def test_a_double_beyond_floats_is_not_finite(self, read: Callable) -> None:
        assert "finite" in failure(read, layer("x", chunk(8, struct.pack("<d", 1e300)) + shape(1)))

    def test_a_layer_twice(self, read: Callable) -> None:
        message = failure(read, FORMATS["layer"] + layer("conv1", blob(BIAS)))
        assert message == "layer 'conv1' comes twice; expected its weights once"
        failure(read, v1_layer("a", v1_blob(BIAS)) + v1_layer("a", v1_blob(BIAS)))
        failure(read, v1_layer("a", v1_blob(BIAS)) + layer("a", blob(BIAS)))

    def test_a_layer_twice_in_two_phases(self, read: Callable) -> None:
        """Names repeat in training networks, where a data layer stands for each phase; without weights, no matter."""
        weights = read(layer("data") + layer("data") + layer("conv1", blob(BIAS)) + layer("conv1"))
        assert list(weights) == ["conv1"]

    def test_names_stay_on_one_line(self, read: Callable) -> None:
        failure(read, layer("a\nb\r", blob(FC), shape(3)))
        assert "fc" in failure(read, chunk(100, chunk(1, b"fc\xff\xfe") + chunk(7, shape(3))))

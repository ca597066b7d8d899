"""Weights out of Caffe's binary .caffemodel files, in both of their formats, without Caffe."""

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from fcnseg.errors import InputError, refuse_endless

_ONE, _MANY = FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REPEATED
_BYTES, _INT32, _INT64 = (
    FieldDescriptorProto.TYPE_BYTES,
    FieldDescriptorProto.TYPE_INT32,
    FieldDescriptorProto.TYPE_INT64,
)

# The part of caffe.proto that holds weights; a reader skips the fields that it does not know. Packed floats are
# bytes on the wire, and declared as such here: numpy reads them without a Python object per weight.
_MESSAGES: dict[str, dict[str, tuple[int, Any, Any]]] = {
    "NetParameter": {"layers": (2, "V1LayerParameter", _MANY), "layer": (100, "LayerParameter", _MANY)},
    "V1LayerParameter": {"name": (4, _BYTES, _ONE), "blobs": (6, "BlobProto", _MANY)},
    "LayerParameter": {"name": (1, _BYTES, _ONE), "blobs": (7, "BlobProto", _MANY)},
    "BlobProto": {
        "num": (1, _INT32, _ONE),
        "channels": (2, _INT32, _ONE),
        "height": (3, _INT32, _ONE),
        "width": (4, _INT32, _ONE),
        "data": (5, _BYTES, _MANY),
        "shape": (7, "BlobShape", _ONE),
        "double_data": (8, _BYTES, _MANY),
    },
    "BlobShape": {"dim": (1, _INT64, _MANY)},
}


def _net_parameter() -> type[Any]:
    """The message class of a whole file, in a descriptor pool that no other reader of Caffe's files shares."""
    package = "fcnseg.caffe"
    file = FileDescriptorProto(name="fcnseg/caffe.proto", package=package)
    for message, fields in _MESSAGES.items():
        descriptor = file.message_type.add(name=message)
        for name, (number, kind, label) in fields.items():
            field = descriptor.field.add(name=name, number=number, label=label)
            if isinstance(kind, str):
                field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.NetParameter"))


NetParameter = _net_parameter()
"""Caffe's NetParameter, as far as weights need it; `data` takes the bytes of little-endian floats."""


def read_caffemodel(path: str | Path) -> dict[str, list[np.ndarray]]:
    """The weights in a .caffemodel: {layer name: its blobs}, in the file's order, layers without weights left out.

    Blobs are float32 arrays in the shape that the file gives: convolutions (out, in / groups, kh, kw), biases (out,).
    The V1 format (`layers`) gives four dimensions to all: (1, 1, out, in) for a fully connected layer, and
    (1, 1, 1, out) for a bias. The oldest format (V0, before 2014) is not read.

    A file that was cut exactly between two layers is a whole file to its format: compare the names with the network's.

    Raises:
        InputError: for a file that is missing, damaged, no .caffemodel or one without weights, a layer that comes
            twice, and weights that are not finite or that do not fit their shape.
    """
    path = Path(path)
    refuse_endless(path)
    try:
        net = NetParameter.FromString(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a .caffemodel") from error
    except DecodeError as error:
        raise InputError(f"{path}: not a .caffemodel, or damaged or cut short") from error
    weights: dict[str, list[np.ndarray]] = {}
    for layer in (*net.layers, *net.layer):
        name = layer.name.decode(errors="replace")
        if layer.blobs and name in weights:
            raise InputError(f"{path}: layer {name!r} comes twice; expected its weights once")
        for i, blob in enumerate(layer.blobs):
            try:
                weights.setdefault(name, []).append(_array(blob))
            except ValueError as error:
                raise InputError(f"{path}: layer {name!r}, blob {i}: {error}") from error
    if not weights:
        raise InputError(f"{path}: no layer holds weights; expected a trained .caffemodel")
    return weights


def _array(blob: Any) -> np.ndarray:
    """The values of a BlobProto as float32, in its shape; they belong to the array, which can be written to."""
    values = np.frombuffer(_packed(blob, "double_data"), "<f8")
    if not values.size:
        values = np.frombuffer(_packed(blob, "data"), "<f4")
    shape = _shape(blob)
    if values.size != prod(shape) or min(shape, default=1) < 1:
        raise ValueError(f"{values.size} values; expected as many as its shape {shape} has")
    with np.errstate(over="ignore"):  # becomes infinite, which is refused
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("values that are infinite or not a number; expected finite ones")
    return values.reshape(shape)


def _packed(blob: Any, field: str) -> bytes:
    """The bytes of `data` or `double_data`, which Caffe packs and other writers may give value by value."""
    chunks = list(getattr(blob, field))
    if chunks:
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
    number = blob.DESCRIPTOR.fields_by_name[field].number
    wire_type, size = {"data": (5, 4), "double_data": (1, 8)}[field]
    others: Any = UnknownFieldSet(blob)  # its type stub leaves out that it iterates
    singles = (v.data for v in others if (v.field_number, v.wire_type) == (number, wire_type))
    return b"".join(value.to_bytes(size, "little") for value in singles)


def _shape(blob: Any) -> tuple[int, ...]:
    """As Caffe reads it: the four old fields where there is one of them, else `shape`."""
    old = ("num", "channels", "height", "width")
    return tuple(getattr(blob, n) for n in old) if any(map(blob.HasField, old)) else tuple(blob.shape.dim)

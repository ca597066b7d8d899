"""Files that ask for far more than they hold, for scripts/fuzz_readers.py and the tests: pickles, archives and YAML."""

import io
import zipfile

import numpy as np

from fcnseg.models.pickle_steps import STEPS

PROTOCOL, STOP = b"\x80\x02", b"."
GET, PUT = b"h\0", b"q\0"
HUGE = b"\x8a\x05\0\xe4\x0bT\x02"  # 10 billion

LEGACY = b"".join(
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", b"\x80\x02M\xe9\x03.", b"\x80\x02}.")
)  # what comes before the content in files of torch before 1.6


def archive(pickled: bytes, packed: bool = False, beside: tuple[tuple[str, bytes], ...] = ()) -> bytes:
    """An archive as torch.save writes it, of any pickle, with one record of four bytes."""
    buffer = io.BytesIO()
    records = (("data.pkl", pickled), ("byteorder", b"little"), ("data/0", bytes(4)), ("version", b"3\n"))
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as file:
        for name, content in (*records, *beside):
            file.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def call(module: str, attribute: str, *given: bytes) -> bytes:
    return name(module, attribute) + b"(" + b"".join(given) + b"tR"


def whole(value: int) -> bytes:
    return b"\x8a\x08" + value.to_bytes(8, "little")


def tensor(count: int = 1, shape: tuple[int, ...] = (1,), kind: str = "FloatStorage") -> bytes:
    """A tensor of so many values of the record 0, of which each is the first."""
    storage = b"(" + text("storage") + name("torch", kind) + text("0") + text("cpu") + whole(count) + b"tQ"
    size, strides = (b"(" + b"".join(map(whole, values)) + b"t" for values in (shape, [0] * len(shape)))
    return call("torch._utils", "_rebuild_tensor_v2", storage, b"K\0", size, strides, b"\x89", b"N")


BOMBS: dict[str, tuple[str, bytes]] = {
    "a bytearray": ("it calls __builtin__.bytearray", call("__builtin__", "bytearray", HUGE)),
    "an older tensor": ("it calls torch.FloatTensor", call("torch", "FloatTensor", HUGE)),
    "values that are not there": ("it has fewer values than it says", tensor(10**10)),
    "values in two lengths": ("the same values in two lengths", b"](" + tensor() + tensor(kind="HalfStorage") + b"e"),
    "a shape beyond its values": ("fewer values than its shape says", tensor(1, (10**5, 10**5))),
    "another kind of values": ("values of a kind QInt8Storage", tensor(kind="QInt8Storage")),
    "a list of lists of one list": ("holds parts of itself", b"]" + PUT + (b"](" + GET * 2 + b"e" + PUT) * 60),
    "a pair of pairs of one pair": ("holds parts of itself", b")" + PUT + (GET + GET + b"\x86" + PUT) * 60),
    "a text again and again": ("holds parts of itself", text("x" * 2**16) + PUT + b"](" + GET * 2**12 + b"e"),
    "a long list as many sets": (
        "holds parts of itself",
        b"](" + b"K\1" * 2**13 + b"e" + PUT + call("__builtin__", "set", GET) * 2**13,
    ),
    "depth": ("holds parts of itself", b"]" + b"\x85" * 10_000),
    "a list in itself": ("it holds itself", b"]" + PUT + GET + b"a"),
    "keys of equal hashes": ("keys that are neither", b"}(" + b"J\xff\xff\xff\xffJ\xfe\xff\xff\xff\x86N" + b"u"),
    "many steps": (f"in more than {STEPS} steps", b"](" + b"}" * STEPS + b"e"),
    "a step of other pickles": ("has a step DUP", b"N2"),
    "an object": ("has a step NEWOBJ", name("torch", "FloatTensor") + b")\x81"),
    "a dictionary with other methods": (
        "sets the state of a collections.OrderedDict",
        name("collections", "OrderedDict") + b")R}" + text("items") + b"Nsb",
    ),
    "a state": ("sets the state of a dict", b"}}b"),
    "a number of many bytes": ("calls numpy.dtype", call("numpy", "dtype", text("V99999999"))),
}
"""Steps of pickles, and what is said of each."""


def content_of(steps: bytes) -> bytes:
    """A checkpoint whose provenance is what the steps make, which is looked at last."""
    return PROTOCOL + b"}(" + text("state_dict") + b"}" + text("provenance") + steps + b"u" + STOP


def legacy(steps: bytes) -> bytes:
    """A file as torch wrote it before 1.6; in it storages have a view, or none, beside them."""
    return LEGACY + content_of(steps.replace(b"tQ", b"NtQ")) + PROTOCOL + b"]" + STOP


def any_pickle(random: np.random.Generator) -> bytes:
    """Steps of pickles in any order, most of which fit to those before, in either format and sometimes packed."""
    single = (b"N", b"K\1", b"}", b"]", b")", HUGE, text("x"), text("x" * 10**4), tensor(), PUT)
    joining = (b"\x86", b"\x85", b"a", GET, GET, GET + GET + b"\x86" + PUT, b"](" + GET * 1000 + b"e" + PUT)
    hostile = [steps for _, steps in BOMBS.values() if len(steps) < 10**5]
    found = [text("x") + PUT]
    for _ in range(int(random.integers(1, 60))):
        chosen = (single, joining, hostile)[int(random.choice(3, p=(0.55, 0.43, 0.02)))]
        found += [chosen[int(random.integers(len(chosen)))]] * int(random.choice([1, 1, 2, 100]))
    steps = b"(" + b"".join(found) + b"t"
    if random.random() < 0.3:
        return legacy(steps)
    return archive(content_of(steps), bool(random.random() < 0.3))


def any_archive(random: np.random.Generator, sound: bytes) -> bytes:
    """The archive of a sound checkpoint: packed, with more in it, with other sizes, or one that has two ends."""
    way = int(random.integers(5))
    if way == 0:
        zeros = bytes(int(random.choice([10**4, 10**6, 10**7])))
        inside = str(random.choice(["data.pkl", "version", "data/0", "data/1", "DATA.PKL", "byteorder", "x"]))
        return archive(content_of(tensor(10)), True, ((inside, zeros),))
    content = bytearray(sound)
    if way == 1:
        return bytes(content) + bytes(content)
    places = [i for i in range(len(content) - 46) if content[i : i + 4] == b"PK\1\2"]
    for _ in range(int(random.integers(1, 4))):
        at = (
            places[int(random.integers(len(places)))] + int(random.choice([20, 24, 42]))
            if way < 4
            else len(content) - 10
        )
        content[at : at + 4] = int(random.choice([0, 1, 2**16, 2**31, 2**32 - 1])).to_bytes(4, "little")
    return bytes(content)


TEXTS: dict[str, tuple[str, str]] = {
    "lists in lists": ("nested more than 100 deep", "a: " + "[" * 100_000 + "]" * 100_000),
    "mappings in mappings": ("nested more than 100 deep", "{a: " * 50_000 + "}" * 50_000),
    "lists in lists by lines": ("nested more than 100 deep", "".join(f"{' ' * i}-\n" for i in range(200))),
    "mappings merged of merged ones": (
        "cannot be merged (<<)",
        "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9 if i else '')}], k{i}: 1}}\n" for i in range(12)),
    ),
    "keys of one hash": (
        "a key of more than 18 digits",
        "{" + ", ".join(f"{i * (2**61 - 1)}: 1" for i in range(8, 20_000)) + "}",
    ),
    "no truth": ("cannot be read as YAML", "a: !!bool x"),
    "no date": ("cannot be read as YAML", "a: !!timestamp x"),
    "no number": ("cannot be read as YAML", 'a: !!float ""'),
    "a long number": ("cannot be read as YAML", "a: " + "9" * 10_000),
    "code": ("cannot be read as YAML", "a: !!python/object/apply:os.system [x]"),
}
"""YAML that takes forever, crashes readers or is not what it says, and what is said of it."""


def any_text(random: np.random.Generator, sound: bytes) -> bytes:
    """Sound YAML with references, other types, and sometimes what is hostile, before, in or behind it."""
    lines = sound.decode().splitlines(keepends=True)
    odd = (
        "&x [1, *x]",
        "[&x [1], *x, *x]",
        "!!set {a}",
        "2001-01-01",
        "!!binary aa==",
        "{? [1] : 2}",
        "[1:30, 0x1, ~]",
    )
    for _ in range(int(random.integers(1, 4))):
        place = int(random.choice([0, len(lines), random.integers(len(lines) + 1)]))
        line = f"source: {odd[int(random.integers(len(odd)))]}"
        if random.random() < 0.2:
            line = list(TEXTS.values())[int(random.integers(len(TEXTS)))][1]
        lines.insert(place, f"{line}\n")
    return "".join(lines).encode()

"""The steps of a pickle, carried out without making anything of them, to see what they would make."""

import pickletools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import prod
from typing import Any, BinaryIO

STEPS, WRITTEN_OUT, DEPTH = 500_000, 2**26, 100
"""A pickle's most steps, bytes with everything written out that it refers to, and containers in each other.

A checkpoint of a network of 2000 tensors with Adam's state takes about 0.6 MB and 200,000 steps.
"""

BYTES = {
    "Untyped": 1, "Bool": 1, "Byte": 1, "Char": 1, "Short": 2, "Half": 2, "BFloat16": 2, "Int": 4, "Float": 4,
    "Long": 8, "Double": 8, "ComplexFloat": 8, "ComplexDouble": 16,
}  # fmt: skip
"""Of one value, by the kind of storage."""


class UnsoundError(ValueError):
    """A file asks for what no file of weights needs."""


@dataclass(eq=False, slots=True)
class _Value:
    """What would be on the unpickler's stack.

    Attributes:
        kind: "plain" (a number, a truth, nothing), "text", "name", "tuple", "list", "dict", or what was called for it.
        content: what it is, what is in a tuple or list, or a dictionary's keys.
        size: its bytes, about, when all that it refers to is written out.
        depth: of the containers in it.
        shared: whether it was referred to again; it cannot be filled any more, so size and depth stand.
    """

    kind: str
    content: Any = None
    size: int = 8
    depth: int = 0
    shared: bool = False

    def hold(self, parts: list["_Value"]) -> None:
        """Grow by parts."""
        self.size += sum(part.size for part in parts)
        self.depth = max([self.depth, *(part.depth + 1 for part in parts)])
        if self.size > WRITTEN_OUT or self.depth > DEPTH:
            raise UnsoundError("it holds parts of itself again and again")


@dataclass
class Walk:
    """The steps of a pickle, carried out on `_Value`.

    Args:
        require_values: is told of every storage by its name and its bytes, once; refuses what is not there.
    """

    require_values: Callable[[str, int], None]
    steps: int = 0
    copied: int = 0
    asked: dict[str, int] = field(default_factory=dict)
    stack: list[_Value] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, _Value] = field(default_factory=dict)

    def through(self, stream: BinaryIO) -> None:
        """Walk through one pickle, up to its end."""
        self.stack, self.marks, self.memo = [], [], {}
        for operation, argument, _ in pickletools.genops(stream):
            self.steps += 1
            if self.steps > STEPS:
                raise UnsoundError(f"it describes its tensors in more than {STEPS} steps")
            step = _STEPS.get(operation.name)
            if step is None:
                raise UnsoundError(f"it has a step {operation.name}, which torch.save does not write")
            step(self, argument)

    def push(self, kind: str, content: Any = None, size: int = 8) -> None:
        self.stack.append(_Value(kind, content, size))

    def since_mark(self) -> list[_Value]:
        start = self.marks.pop()
        found, self.stack[start:] = self.stack[start:], []
        return found

    def join(self, parts: list[_Value]) -> None:
        self.push("tuple", tuple(parts))
        self.stack[-1].hold(parts)

    def fill(self, kinds: tuple[str, ...], parts: list[_Value]) -> _Value:
        """Put parts into the container on top of the stack."""
        container = self.stack[-1]
        if container.kind not in kinds or container.shared:
            raise UnsoundError("it holds itself" if container.shared else "it fills what cannot be filled")
        container.hold(parts)
        return container

    def append(self, parts: list[_Value]) -> None:
        self.fill(("list",), parts).content += parts

    def set_items(self, parts: list[_Value]) -> None:
        filled = self.fill(("dict", "collections OrderedDict"), parts)
        _require_keys(parts[::2])
        if filled.kind == "dict":
            filled.content += [key.content for key in parts[::2]]

    def get(self, place: int) -> None:
        value = self.memo[place]
        value.shared = True
        self.stack.append(value)

    def put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def storage(self, _: Any) -> None:
        """Values, by ("storage", kind, key, device, how many), in the older format with None or a view behind it."""
        word, kind, key, _device, count, *_view = self.stack.pop().content
        module, _, name = str(kind.content).rpartition(" ")
        length = BYTES.get(name.removesuffix("Storage"))
        if _text(word) != "storage" or module not in ("torch", "torch.cuda", "torch.storage") or length is None:
            raise UnsoundError(f"it has values of a kind {name[:80]}")
        if key.kind != "text" or type(count.content) is not int or count.content < 0:
            raise UnsoundError("it has values without a name or a number")
        self.ask(_text(key), count.content * length)
        self.push("storage", count.content)

    def ask(self, key: str, length: int) -> None:
        """Note a storage; torch would read it anew each time that it is asked for with another length."""
        if key not in self.asked:
            self.require_values(key, length)
        if self.asked.setdefault(key, length) != length:
            raise UnsoundError("it has the same values in two lengths")

    def call(self, _: Any) -> None:
        given, name = self.stack.pop(), self.stack.pop()
        self.count(given)
        sound = CALLS.get(name.content) if name.kind == "name" else None
        if sound is None or given.kind != "tuple" or not sound(*given.content):
            shown = str(name.content).replace(" ", ".")[:80] if name.kind == "name" else "what is no name"
            raise UnsoundError(f"it calls {shown}, which no file of weights does, or not so")
        self.push(name.content)
        self.stack[-1].hold([given])

    def build(self, _: Any) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        self.count(state)
        is_dtype = made.kind == "numpy dtype" and [part.content for part in state.content] == _DTYPE_STATE
        is_state = made.kind == "collections OrderedDict" and state.kind == "dict"  # of Module.state_dict()
        if not is_dtype and not (is_state and all(key in ("_metadata", b"_metadata") for key in state.content)):
            raise UnsoundError(f"it sets the state of a {made.kind.replace(' ', '.')}"[:100])
        made.hold([state])

    def count(self, given: _Value) -> None:
        """Note what a call is given, which it may copy."""
        self.copied += given.size
        if self.copied > WRITTEN_OUT:
            raise UnsoundError("it holds parts of itself again and again")


_DTYPE_STATE = [3, "<", None, None, None, -1, -1, 0]


def _text(value: _Value) -> str:
    """A text; files of Python 2 have bytes."""
    return value.content.decode() if isinstance(value.content, bytes) else str(value.content)


def _require_keys(keys: Iterable[_Value]) -> None:
    """Refuse keys that are no texts or short numbers: others can be made so that a dictionary takes forever."""
    for key in keys:
        if key.kind != "text" and not (type(key.content) is int and abs(key.content) < 2**63):
            raise UnsoundError("it has keys that are neither texts nor whole numbers")


def _are_plain(*values: _Value) -> bool:
    return all(value.kind in ("plain", "text") for value in values)


def _is_shape(value: _Value) -> bool:
    return value.kind == "tuple" and len(value.content) <= 64 and all(type(n.content) is int for n in value.content)


def _is_tensor(storage: _Value, offset: _Value, shape: _Value, strides: _Value, *_: _Value) -> bool:
    if storage.kind != "storage" or not (_are_plain(offset) and _is_shape(shape) and _is_shape(strides)):
        return False
    if prod(number.content for number in shape.content) > storage.content:
        raise UnsoundError("a tensor in it has fewer values than its shape says")
    return True


def _are_items(*given: _Value) -> bool:
    """Whether these are none, or a list of pairs of a key and a value, as Python 2 writes an ordered dictionary."""
    pairs = given[0].content if len(given) == 1 and given[0].kind == "list" else ()
    if len(given) > 1 or (given and given[0].kind != "list"):
        return False
    if any(pair.kind not in ("list", "tuple") or len(pair.content) != 2 for pair in pairs):
        return False
    _require_keys(pair.content[0] for pair in pairs)
    return True


def _is_set(items: _Value) -> bool:
    _require_keys(items.content)
    return items.kind == "list"


CALLS: dict[str, Callable[..., bool]] = {
    "collections OrderedDict": _are_items,
    "builtins set": _is_set,
    "__builtin__ set": _is_set,
    "builtins complex": _are_plain,
    "__builtin__ complex": _are_plain,
    "_codecs encode": _are_plain,
    "torch Size": _is_shape,
    "torch device": _are_plain,
    "torch._utils _rebuild_tensor": _is_tensor,
    "torch._utils _rebuild_tensor_v2": _is_tensor,
    "torch._utils _rebuild_parameter": lambda data, *_: data.kind.startswith("torch._utils _rebuild_tensor"),
    "numpy dtype": lambda name, *flags: name.content in ("f4", "f8", "i8") and _are_plain(*flags),
    "numpy.core.multiarray scalar": lambda kind, value: kind.kind == "numpy dtype",
    "numpy._core.multiarray scalar": lambda kind, value: kind.kind == "numpy dtype",
}
"""What may be called, and whether with such arguments."""


def _plain(walk: Walk, value: Any) -> None:
    walk.push("plain", value)


def _words(walk: Walk, value: str | bytes) -> None:
    walk.push("text", value, 8 + len(value))


def _tuple_of(count: int) -> Callable[[Walk, Any], None]:
    def step(walk: Walk, _: Any) -> None:
        start = len(walk.stack) - count
        parts, walk.stack[start:] = walk.stack[start:], []
        walk.join(parts)

    return step


_STEPS: dict[str, Callable[[Walk, Any], None]] = {
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), _plain),
    "NONE": lambda walk, _: walk.push("plain"),
    "NEWTRUE": lambda walk, _: walk.push("plain", True),
    "NEWFALSE": lambda walk, _: walk.push("plain", False),
    "BINUNICODE": _words,
    "SHORT_BINSTRING": _words,
    "GLOBAL": lambda walk, name: walk.push("name", name),
    "EMPTY_TUPLE": _tuple_of(0),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "EMPTY_LIST": lambda walk, _: walk.push("list", []),
    "EMPTY_DICT": lambda walk, _: walk.push("dict", []),
    "MARK": lambda walk, _: walk.marks.append(len(walk.stack)),
    "TUPLE": lambda walk, _: walk.join(walk.since_mark()),
    "APPEND": lambda walk, _: walk.append([walk.stack.pop()]),
    "APPENDS": lambda walk, _: walk.append(walk.since_mark()),
    "SETITEM": lambda walk, _: walk.set_items([walk.stack.pop(-2), walk.stack.pop()]),
    "SETITEMS": lambda walk, _: walk.set_items(walk.since_mark()),
    "BINGET": Walk.get,
    "LONG_BINGET": Walk.get,
    "BINPUT": Walk.put,
    "LONG_BINPUT": Walk.put,
    "BINPERSID": Walk.storage,
    "REDUCE": Walk.call,
    "BUILD": Walk.build,
    "PROTO": lambda walk, _: None,
    "STOP": lambda walk, _: None,
}
"""What torch's restricted unpickler knows, but for objects of other classes and sets that are filled step by step."""

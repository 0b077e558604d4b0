"""The strategy: draws a situation piece by piece, each piece as the text that makes it."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from hypothesis import strategies as st

from xopt.backends import BACKENDS
from xopt.checks import Interval
from xopt.conformance.structures.parts import ALTERED, CONTAINERS, MAPPINGS, RECORDS, SEQUENCES
from xopt.conformance.structures.situation import CONSTANTS, Situation
from xopt.rule import Rule

Node = tuple[Any, ...]
"""A tree without its leaves: its container, and (key, node) pairs; ``("leaf", i)``; ``("many", n)``."""

KEYS: tuple[tuple[Any, ...], ...] = (("b", "a", "d", "c"), (10, 9, 2, 1), ("w2", "w10", "B", "a"))
"""Of which mappings take some, in any order. Text and numbers sort otherwise than they are written."""
MANY = (0, 2, 33, 100, 300)
"""Leaves of a wide tree."""
SIZES = (1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40)
"""Of vectors: at the borders that ``CONSTANTS`` makes."""
SHAPES = ((3,), (), (2, 3), (), (0,), (4, 4), (0, 3), (2, 3, 2), (2, 1, 2, 3), (1,))
FEW_SHAPES = ((3,), (), (2, 3), (), (0,), (8,), (2, 1, 2, 3))
"""Of libraries that compile anew for each."""
TROUBLES = 8
"""Kinds of what must be refused that a situation has at most."""

MAKERS = {"numpy": "numbers", "torch": "tensor", "jax": "jax_array", "cupy": "cupy_array", "array_api_strict": "strict_array"}
"""What makes an array of a library; of others ``array_of`` does."""

LAYOUTS: dict[str, tuple[str, ...]] = {
    "numpy": (
        "plain",
        "transposed",
        "strided",
        "reversed",
        "inner",
        "offset",
        "scalar",
        "broadcast",
        "stretched",
        "windows",
        "read-only",
        "byte-swapped",
        "unaligned",
        "on disk",
        "subclass",
        "masked",
    ),
    "torch": (
        "plain",
        "transposed",
        "strided",
        "inner",
        "offset",
        "broadcast",
        "windows",
        "permuted",
        "negated",
        "imaginary",
        "parameter",
        "requires grad",
        "subclass",
    ),
    "jax": ("plain",),
    "cupy": ("plain", "transposed", "strided", "reversed", "broadcast"),
    "array_api_strict": ("plain",),
}
SPECIAL = ("subclass", "masked")
KEPT = ("scalar", "broadcast", "stretched", "windows", "read-only", "negated", "imaginary", *SPECIAL)
"""Layouts that are not to be written over."""
COPYING = {"pickled": "pickle", "copied": "deepcopy"}
COPIES = {
    "pickled between steps": "state = pickle.loads(pickle.dumps(state))",
    "copied between steps": "state = copy.deepcopy(state)",
}
ORDERS = ((0, 1, 2, 3), (0, 1, 0, 1), (0, 1, 1, 0), (0, 0, 1, 1))
"""Of which numbers a group is, leaf by leaf."""
SHARED = ("two views", "interleaved", "overlapping", "tied", "turned over")
"""How two leaves may have one memory."""
COUNTS = {
    "numpy": ("5", "np.int64(5)", "np.array(5)", "np.uint8(255)", "1000000"),
    "torch": ("5", "np.int64(5)", "np.array(5)", "torch.tensor(5)", "torch.tensor(1000000, dtype=torch.int32)"),
    "jax": ("5", "np.int64(5)", "np.array(5)", "jax.numpy.asarray(5)", "jax.numpy.asarray(1000000, 'int32')"),
    "cupy": ("5", "np.int64(5)", "cupy.asarray(5)"),
    "array_api_strict": ("5", "np.int64(5)"),
}
PLAIN_COUNTS = ("5", "np.int64(5)")
"""Of a library that is not among those."""
LOW_COUNTS = ("-1", "-3")
WRONG_COUNTS = (
    "float('nan')",
    "5.7",
    "5.0",
    "None",
    "'5'",
    "True",
    "np.array([1, 2, 3])",
    "np.array([5])",
    "np.array(5.0)",
    "np.timedelta64(5, 's')",
)
WRONG_COUNTS_OF = {
    "torch": ("torch.tensor([1, 2, 3])", "torch.tensor(5.0, dtype=torch.bfloat16)"),
    "jax": ("jax.numpy.asarray([1, 2, 3])", "jax.numpy.asarray(5, 'bfloat16')"),
}
CARRIED = ("0.5", "np.float64(0.25)", "np.array(0.125)", "0.75")
OUTER_CARRIED = ("float('nan')", "-0.5", "2.0")
WRONG_CARRIED = ("None", "[0.5]", "'0.5'", "np.array([0.5, 0.5])", "np.timedelta64(1)")
KINDS = ("{}", "np.float64({})", "np.float32({})", "np.array({})", "np.array({}, 'float16')", "Fraction('{}')", "np.longdouble({})")
"""Of a number: all of them hold it exactly."""
KINDS_OF = {
    "torch": ("torch.tensor({})", "torch.tensor({}, dtype=torch.float64)"),
    "jax": ("jax.numpy.asarray({})", "jax.numpy.asarray({}, 'float32')"),
}
FOLLOWED = ("lr", "weight_decay")
"""Hyperparameters that meet arrays as they are: what is computed of others in arrays is rounded more often."""
WRONG_NUMBERS = (
    "Decimal('0.5')",
    "np.timedelta64(0)",
    "'0.5'",
    "np.array([0.5])",
    "True",
    "None",
    "np.ma.array(0.5)",
    "float('nan')",
    "10**400",
    "0.5j",
)
ALIKE = {
    "momentum": ("nesterov", "qhm"),
    "nesterov": ("momentum", "qhm"),
    "qhm": ("momentum", "nesterov"),
    "adam": ("adamw", "qhadam"),
    "adamw": ("adam", "qhadam"),
    "qhadam": ("adam", "adamw"),
}
"""Rules whose states have the same fields."""


SECTIONS = {
    "plan": (24, 1),
    "tree": (48, 1),
    "leaf": (6, 8),
    "state": (24, 1),
    "hyper": (10, 39),
    "gradient": (4, 16),
    "rest": (64, 1),
}
"""The bytes that are chosen with: how many for each part of a situation, and for how many such parts."""
CHOICES = sum(size * count for size, count in SECTIONS.values())


class Drawn(NamedTuple):
    """A leaf."""

    shape: tuple[int, ...]
    dtype: str
    layout: str


def situations(
    rule: Rule[Any, Any], library: str, dtype: str, dtypes: Sequence[str], device: str = "cpu", devices: int = 1, wide: bool = False
) -> st.SearchStrategy[Situation]:
    """Situations of a rule on a library.

    Parameters
    ----------
    dtype, dtypes
        Of the first leaf, and those that the others may have.
    devices
        Of JAX, over which arrays may be divided.
    wide
        Whether to draw what needs kernels of its own: states without a slot, other numbers of betas, small kernels in each dtype.
    """

    def situation(choices: bytes) -> Situation:
        return Draft(choices, rule, library, dtype, dtypes, device, devices, wide).situation()

    # All choices are drawn as one value: of examples that draw many, Hypothesis spends most on copies of one part into another.
    return st.binary(min_size=CHOICES, max_size=CHOICES).map(situation)


class Draft:
    """One situation as it grows."""

    def __init__(
        self,
        choices: bytes,
        rule: Rule[Any, Any],
        library: str,
        dtype: str,
        dtypes: Sequence[str],
        device: str,
        devices: int,
        wide: bool,
    ) -> None:
        self.choices = choices
        self.place = self.end = 0
        self.rule = rule
        self.library = library
        self.dtype = dtype
        self.dtypes = tuple(dtypes)
        self.device = device
        self.devices = devices if library == "jax" else 1
        self.views = library in ("numpy", "torch")  # whether there are strides to vary
        self.leaves: list[Drawn] = []
        self.setup: list[str] = []
        self.changes: list[str] = []
        self.features: list[str] = []
        self.many = 0
        self.graph = False
        self.kept = 0  # reasons for which a step that writes over its state is refused
        self.traced = self.sharded = False
        self.alone = wide or dtype == "float32"  # whether kernels of their own are drawn for
        self.wide = wide

    @contextmanager
    def section(self, name: str, i: int = 0) -> Iterator[None]:
        """Chooses with the bytes of one part: so that what is chosen there does not move what is chosen elsewhere."""
        before = self.place, self.end
        start = 0
        for other, (size, count) in SECTIONS.items():
            if other == name:
                self.place = start + size * (i % count)
                self.end = self.place + size
                break
            start += size * count
        yield
        self.place, self.end = before

    def choose(self, n: int) -> int:
        """A number below ``n``. Shrinks to 0, as all that follows the last byte is."""
        byte = self.choices[self.place] if self.place < self.end else 0
        self.place += 1
        return byte * n >> 8

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.choose(len(options))]

    def one_in(self, n: int) -> bool:
        """Shrinks to no."""
        return self.choose(n) == n - 1

    def turned(self, items: Sequence[Any]) -> list[Any]:
        """In any order."""
        left = list(items)
        return [left.pop(self.choose(len(left))) for _ in items]

    def another_reason(self) -> bool:
        """Whether there may be one more reason for which a state cannot be written over."""
        self.kept += 1
        return not self.one_reason or self.kept == 1

    def saved(self, how: str) -> bool:
        """Whether ``"pickle"`` or ``"deepcopy"`` keeps the state as it is: NumPy's pickle gives the machine's byte order back."""
        survives = BACKENDS[self.library].survives
        layouts = {leaf.layout for leaf in self.leaves}
        dtypes = {self.dtype, *(leaf.dtype for leaf in self.leaves)}
        return all(survives(how, dtype) for dtype in dtypes) and not layouts & {*SPECIAL, "byte-swapped"}

    def note(self, *features: str) -> None:
        self.features += [feature for feature in features if feature not in self.features]

    def situation(self) -> Situation:
        with self.section("plan"):
            return self._situation()

    def _situation(self) -> Situation:
        self.usable: tuple[str, ...] = self.dtypes if self.one_in(2) else (self.dtype,)
        self.many_dtypes = self.usable[:2]
        self.troubled = troubled = self.one_in(3)
        self.one_reason = self.one_in(2)  # as one reason to refuse hides the others
        with self.section("tree"):
            self.tree = self._tree()
            self._shared()
        with self.section("state"):
            self.hyper = self._hyper()
            self._state()
        before = self._before()
        stages = [self._stage(0)]
        troubles: list[tuple[str, str]] = []
        if self.one_in(2):  # what is refused is so after a step that was right, too
            stages.append(self._stage(1))
        if troubled:
            with self.section("rest"):
                for what in self.turned(list(TROUBLE))[:TROUBLES]:
                    found = [(what, code) for code in TROUBLE[what](self)]
                    self.note(*(f"trouble: {what}" for _ in found[:1]))
                    troubles += found
        if self.graph:  # torch copies no array that a graph leads to
            stages = [[line for line in stage if line not in COPIES.values()] for stage in stages]
            self.features = [feature for feature in self.features if feature not in COPIES]
        special = any(leaf.layout in SPECIAL for leaf in self.leaves)
        constants = self._constants()
        threads = self.views and not troubles and not self.graph and not special and self.one_in(8)
        interrupt = None
        if self.views and not troubles and not threads and self.one_in(8):
            interrupt = (1 + self.choose(99)) / 100
            self.note("interrupted")
        if threads:
            self.note("threads")
        return Situation(
            self.library,
            self.rule.name,
            tuple(self.setup),
            tuple(self.changes),
            tuple(before),
            tuple(tuple(stage) for stage in stages),
            tuple(self.features),
            tuple(troubles),
            self.graph,
            special,
            self.traced,
            constants,
            threads,
            interrupt,
        )

    # Trees.

    def _tree(self) -> Node:
        top = self.pick(("leaf", *CONTAINERS, *CONTAINERS, "many"))
        if top == "leaf":
            self.note("one leaf alone")
            tree: Node = self._leaf()
        elif top == "many":
            self.many = self.pick(MANY)
            self.note(f"{self.many} leaves")
            tree = (self.pick(MAPPINGS), [("first", self._leaf()), ("many", ("many", self.many))])
        else:
            tree = self._container(top, 0)
        self.setup.append(f"params = {self._text(tree, lambda i: f'w{i}', self._many)}")
        return tree

    def _container(self, kind: str, depth: int) -> Node:
        self.note(kind)
        if kind in RECORDS:
            return kind, [("weight", self._node(depth)), ("bias", self._node(depth))]
        count = self.pick((2, 1, 3, 4))
        if kind in SEQUENCES:
            return kind, [(i, self._node(depth)) for i in range(count)]
        keys = self.turned(self.pick(KEYS))[:count]
        return kind, [(key, self._node(depth)) for key in keys]

    def _node(self, depth: int) -> Node:
        kind = self.pick(("leaf", "leaf", "leaf", "leaf", "container", "None")) if self.leaves else "leaf"
        if kind == "leaf" or (kind == "container" and depth == 2):
            return self._leaf()
        if kind == "None":
            return ("None",)
        self.note("nested")
        return self._container(self.pick(CONTAINERS), depth + 1)

    def _text(self, node: Node, leaf: Callable[[int], str], many: Callable[[], str], vary: bool = False) -> str:
        """A tree as code. With ``vary`` its mappings may be others, in another order."""
        kind = node[0]
        if kind == "leaf":
            return leaf(node[1])
        if kind == "None":
            return "None"
        if kind == "many":
            return many()
        items = list(node[1])
        if vary and kind in MAPPINGS and self.one_in(2):
            kind, items = self.pick(MAPPINGS), self.turned(items)
        texts = [(key, self._text(child, leaf, many, vary)) for key, child in items]
        return _wrapped(kind, texts)

    # Leaves.

    def _make(self, shape: tuple[int, ...], k: int, dtype: str) -> str:
        if self.library not in MAKERS:
            return f"array_of({self.library!r}, {shape!r}, {k}, {dtype!r})"
        device = f", {self.device!r}" if self.library == "torch" and self.device != "cpu" else ""
        return f"{MAKERS[self.library]}({shape!r}, {k}, {dtype!r}{device})"

    def _leaf(self) -> Node:
        i = len(self.leaves)
        with self.section("leaf", i):
            dtype = self.dtype if i == 0 else self.pick(self.usable)
            layout = self.pick(LAYOUTS.get(self.library, ("plain",))) if self.one_in(2) else "plain"
            layout = layout if layout not in KEPT or self.another_reason() else "plain"
            shape = self._shape()
        text, leaf = self._array(shape, i, dtype, layout)
        if leaf.layout != "plain":
            self.note(f"{leaf.layout} leaf")
        self.graph = self.graph or leaf.layout == "requires grad"
        self.leaves.append(leaf)
        self.setup.append(f"w{i} = {text}")
        return "leaf", i

    def _shape(self) -> tuple[int, ...]:
        if self.library in ("jax", "array_api_strict"):
            return tuple(self.pick(FEW_SHAPES))
        return (self.pick(SIZES),) if self.one_in(2) else tuple(self.pick(SHAPES))

    def _array(self, shape: tuple[int, ...], k: int, dtype: str, layout: str) -> tuple[str, Drawn]:
        """An array with this layout, or the plain one where there is none such, as code; with what became of its shape."""
        special, shape = self._laid_out(shape, k, dtype, layout)
        if special is None:
            return self._make(shape, k, dtype), Drawn(shape, dtype, "plain")
        return special, Drawn(shape, dtype, layout)

    def _laid_out(self, shape: tuple[int, ...], k: int, dtype: str, layout: str) -> tuple[str | None, tuple[int, ...]]:
        numpy = self.library == "numpy"
        bits = {"float64": 8, "float32": 4}.get(dtype, 2)

        def made(other: tuple[int, ...]) -> str:
            return self._make(other, k, dtype)

        simple = {
            "read-only": f"read_only({made(shape)})",
            "unaligned": f"unaligned({made(shape)})",
            "on disk": f"on_disk({made(shape)})",
            "masked": f"np.ma.masked_less({made(shape)}, 0)",
            "subclass": f"{made(shape)}.view(Tagged)" if numpy else f"tagged({made(shape)})",
            "byte-swapped": f"numbers({shape!r}, {k}, {dtype!r}).astype(np.dtype({dtype!r}).newbyteorder())",
            "negated": f"torch._neg_view({made(shape)})",
            "imaginary": f"imaginary({made(shape)})" if dtype in ("float32", "float64") else None,
            "parameter": f"torch.nn.Parameter({made(shape)})",
            "requires grad": f"{made(shape)}.requires_grad_()",
        }
        if layout == "masked" and not shape:  # NumPy has one masked number, in float64
            return None, shape
        if layout in simple:
            return simple[layout], shape
        if layout == "scalar":
            return f"{made(())}[()]", ()
        if layout == "windows":
            n = max(shape, default=3) or 3
            if numpy:
                return f"as_strided({made((n + 1,))}, ({n}, 2), ({bits}, {bits}))", (n, 2)
            return f"{made((n + 1,))}.as_strided(({n}, 2), (1, 1))", (n, 2)
        if layout == "stretched":
            n = max(shape, default=3) or 3
            return f"as_strided({made((1,))}, ({n},), (0,))", (n,)
        if not shape:
            shape = (3,)
        if layout == "permuted":
            shape = (2, 3, 2, 2)
            return f"{made((2, 2, 2, 3))}.permute(0, 3, 1, 2)", shape
        if layout == "transposed":
            shape = shape if len(shape) == 2 else (3, 2)
            return f"{made(shape[::-1])}.T", shape
        if layout == "broadcast":
            shape = (max(shape[0], 2), *shape[1:])
            one = made((1, *shape[1:]))
            if self.library == "torch":
                return f"{one}.expand({shape!r})", shape
            return f"{'np' if numpy else 'cupy'}.broadcast_to({one}, {shape!r})", shape
        first, rest = shape[0], shape[1:]
        texts = {
            "strided": f"{made((2 * first, *rest))}[::2]",
            "reversed": f"{made(shape)}[::-1]",
            "inner": f"{made((*shape[:-1], shape[-1] + 2))}[..., 1:-1]",
            "offset": f"{made((first + 1, *rest))}[1:]",
        }
        return texts.get(layout), shape

    def _shared(self) -> None:
        """Makes two leaves share memory, sometimes."""
        if self.library not in ("numpy", "torch", "jax") or len(self.leaves) < 2 or not self.one_in(4):
            return
        how = self.pick(SHARED if self.views else ("tied",))
        if how in ("overlapping", "tied", "turned over") and not self.another_reason():
            how = "two views"
        (i, one), (j, _) = ((i, self.leaves[i]) for i in self.turned(range(len(self.leaves)))[:2])
        if i > j:
            i, j = j, i
        one = self.leaves[i]
        n = max(max(one.shape, default=1), 2)
        base = self._make((2 * n,), i, one.dtype)
        texts = {
            "two views": (f"[:{n}]", f"[{n}:]", (n,)),
            "interleaved": ("[::2]", "[1::2]", (n,)),
            "overlapping": (f"[:{n}]", f"[1:{n + 1}]", (n,)),
            "tied": (f"[:{n}]", None, (n,)),
            "turned over": (f".reshape(({n}, 2))", f".reshape(({n}, 2)).T", None),
        }
        first, second, shape = texts[how]
        self.note(f"{how} leaves")
        shapes = (shape, shape) if shape else ((n, 2), (2, n))
        at = self.setup.index(next(line for line in self.setup if line.startswith(f"w{i} = ")))
        self.setup[at] = f"base = {base}\nw{i} = base{first}"
        at = self.setup.index(next(line for line in self.setup if line.startswith(f"w{j} = ")))
        self.setup[at] = f"w{j} = base{second}" if second else f"w{j} = w{i}"
        for leaf, own in zip((i, j), shapes, strict=True):
            self.leaves[leaf] = Drawn(own, one.dtype, how)
        self.graph = any(leaf.layout == "requires grad" for leaf in self.leaves)

    def _many(self, k: int = 0) -> str:
        self.many_dtypes = dtypes = self.usable[:2] if k == 0 else self.many_dtypes
        sizes = "(i % 3,)" if self.library != "jax" else "(3,)"
        made = (
            self._make((), 0, "")
            .replace("()", sizes, 1)
            .replace("0", f"i + {k}", 1)
            .replace("''", f"{dtypes!r}[i % {len(dtypes)}]")
        )
        return f"{{f'p{{i:03}}': {made} for i in range({self.many})}}"

    # The state.

    def _state(self) -> None:
        rule = self.rule.name
        hyper = self.hyper
        self.setup.append(f"hyper = {hyper}")
        self.setup.append(f"state = xopt.{rule}.bind(**hyper).init(params)")
        if self.one_in(2):
            self.note("stepped before")
            grad = self._gradient_text(lambda i: self._plain_gradient(i, 50 + i), 50)
            self.changes.append(f"state = xopt.{rule}_step(state, {grad}, **hyper)._replace(params=params)")
        kind = self.pick((None, None, None, "pickled", "copied", "relaid", "beside", "other container", "placed"))
        if kind == "pickled" and self.saved("pickle"):
            self.changes.append("state = pickle.loads(pickle.dumps(state))")
            self.note("pickled state")
        elif kind == "copied" and self.saved("deepcopy") and not self.graph:
            self.changes.append("state = copy.deepcopy(state)")
            self.note("copied state")
        elif kind == "relaid" and self.views:
            for slot in self.rule.memory:
                how = self.pick(("transposed", "spread"))
                self.changes.append(f"state = state._replace({slot}=laid(state.{slot}, {how!r}))")
            self.note("slots of another layout")
        elif kind == "beside" and self.views:
            over = int(self.choose(2) and self.another_reason())
            for slot in self.rule.memory:
                self.changes.append(f"state = state._replace({slot}=beside(state.{slot}, {over}))")
            self.note("slots that overlap" if over else "slots beside each other")
        elif kind == "other container" and self.tree[0] in MAPPINGS:
            for slot in self.rule.slots:
                to = self.pick(("OrderedDict(reversed(state.{0}.items()))", "dict(state.{0})", "defaultdict(list, state.{0})"))
                self.changes.append(f"state = state._replace({slot}={to.format(slot)})")
            self.note("slots in another container")
        elif kind in ("relaid", "beside", "placed") and self.devices > 1:  # JAX has shardings where others have strides
            self.sharded = True
            for name in ("params", *self.rule.memory):
                self.changes.append(f"state = state._replace({name}={self._on_all_devices(f'state.{name}')})")
            self.note("sharded")
        if self.one_in(3) and self.tree[0] != "leaf" and self.one_in(2):
            counts = self.turned(COUNTS.get(self.library, PLAIN_COUNTS))
            count = self._prefix(self.tree, counts)
            self.traced = any(one in count for one in counts if "torch.tensor" in one or "jax." in one or "cupy." in one)
            self.note("counts that differ")
            self.changes.append(f"state = state._replace(step={count})")
        elif self.one_in(3):
            count = self.pick(COUNTS.get(self.library, PLAIN_COUNTS))
            self.traced = "torch.tensor" in count or "jax." in count or "cupy." in count
            self.note(f"count {count}")
            self.changes.append(f"state = state._replace(step={count})")
        for slot in self.rule.carried:
            if self.one_in(2):
                self.note(f"{slot} that differ")
                self.changes.append(f"state = state._replace({slot}={self._each(self.turned(CARRIED))})")

    def _on_all_devices(self, tree: str) -> str:
        """Arrays divided among them where that can be, or whole on each."""
        axis = self.pick((None, 0))
        return f"optree.tree_map(lambda x: placed(x, {axis} if x.ndim and x.shape[0] % jax.device_count() == 0 else None), {tree})"

    def _each(self, values: Sequence[str]) -> str:
        """A tree with one value after another at its leaves."""
        return self._text(self.tree, lambda i: values[i % len(values)], lambda: self._few(values))

    def _few(self, values: Sequence[str]) -> str:
        return f"{{f'p{{i:03}}': ({', '.join(values)},)[i % {len(values)}] for i in range({self.many})}}"

    # Hyperparameters.

    def _hyper(self, turn: int = 0) -> str:
        """As code: numbers, of any kind, and trees of them. Those of the state, of its second step (1), or of one before (2)."""
        texts = {}
        self.grouped = 0
        for i, name in enumerate(self.rule.ranges):
            with self.section("hyper", i + 13 * turn):
                text = self._value(name, turn)
            if text is not None:
                texts[name] = text
        return f"dict({', '.join(f'{name}={text}' for name, text in texts.items())})"

    def _value(self, name: str, turn: int) -> str | None:
        """A hyperparameter as code; None where it is left out."""
        interval = self.rule.ranges[name]
        decay = name in self.rule.memory.values()
        if turn and decay and self.alone and not self.idle and self.one_in((3, 2)[turn - 1]):  # what has a slot may do without
            self.note(f"a decay of 0 at the {('next', 'other')[turn - 1]} step")
            return "0.0" if self.tree[0] == "leaf" or self.one_in(2) else self._prefix(self.tree, ("0.5", "0.0"))
        if turn and (decay or name.endswith("_warmup")):  # the slots are those of the first
            return None
        if interval.sequence:
            if self.alone and self.one_in(6):
                self.note("other betas")
                return str(self.pick(("(0.5,)", "(0.5, 0.0, 0.25, 0.75)", "(0.5, 0.25, 0.0, 0.75)")))
            betas: str | None = self.pick((None, "(0.0, 0.875, 0.96875)", "[0.0, 0.75, 0.5]"))
            return betas
        if name != "lr" and not self.one_in(3):
            return None
        values = list(_values(interval))
        if decay and self.alone and self.one_in(4):
            values.insert(1, "0.0")
            self.note("a decay of 0")
        if self.grouped < 2 and self.tree[0] != "leaf" and (self.one_in(2) or turn == 2):
            self.grouped += 1
            self.note(f"groups of {name}")
            values = self._of_kinds(self.turned(values))
            if self.library == "torch" and name in FOLLOWED and turn < 2 and self.one_in(8):
                self.note("group that requires a gradient")
                self.graph = True
                values[1] = "torch.tensor(0.25, requires_grad=True)"
            return self._prefix(self.tree, values)
        value, kind = self.pick(values), "{}"
        if self.library == "torch" and name in FOLLOWED and turn < 2 and self.one_in(8):
            self.note("number that requires a gradient")
            self.graph = True
            return f"torch.tensor({value}, requires_grad=True)"
        if value != "None" and self.one_in(2):
            kind = self._kind()
            self.note(f"number as {kind.format('x')}")
        return str(kind.format(value))

    def _kind(self) -> str:
        return str(self.pick((*KINDS, *KINDS_OF.get(self.library, ()))))

    def _of_kinds(self, values: Sequence[str]) -> list[str]:
        """The numbers of groups: of one kind, as arrays that are told apart by what they hold are."""
        kind = self._kind() if self.one_in(2) else "{}"
        if kind != "{}":
            self.note("groups of other numbers than floats")
        return [value if value == "None" else kind.format(value) for value in values]

    def _prefix(self, tree: Node, values: Sequence[str]) -> str:
        """A tree of numbers that may end earlier than the params."""
        count = 0
        order = self.pick(ORDERS)  # which of its leaves have equal ones
        values = [values[i % len(values)] for i in order]

        def grown(node: Node, root: bool) -> str:
            nonlocal count
            kind = node[0]
            if kind == "None":
                return "None"
            if kind == "leaf" or (not root and self.one_in(3)):
                count += 1
                return values[count % len(values)]
            if kind == "many":
                if self.one_in(2):
                    return values[0]
                few = self._few(values[:2])
                return few.replace(f"range({self.many})", f"reversed(range({self.many}))")
            items = list(node[1])
            if kind in MAPPINGS and self.one_in(2):
                kind, items = self.pick(MAPPINGS), self.turned(items)
            return _wrapped(kind, [(key, grown(child, False)) for key, child in items])

        return grown(tree, True)

    # Gradients.

    def _plain_gradient(self, i: int, k: int) -> str:
        leaf = self.leaves[i]
        if leaf.layout == "byte-swapped":
            return f"numbers({leaf.shape!r}, {k}, {leaf.dtype!r}).astype(w{i}.dtype)"
        return self._make(leaf.shape, k, leaf.dtype)

    def _gradient_text(self, leaf: Callable[[int], str], k: int, vary: bool = False) -> str:
        return self._text(self.tree, leaf, lambda: self._many(k), vary)

    def _gradient(self, i: int, stage: int) -> str:
        with self.section("gradient", i + 8 * stage):
            return self._drawn_gradient(i, stage)

    def _drawn_gradient(self, i: int, stage: int) -> str:
        leaf, k = self.leaves[i], 7 + 20 * stage + i
        if leaf.layout == "byte-swapped":
            return self._plain_gradient(i, k)
        kind = self.pick(("plain", "plain", "layout", "layout", "spiked", "own", "of another leaf", "none"))
        if stage and self.views and self.one_in(3):  # what is written from the second step on was looked at before
            kind = "of another leaf"
        if kind == "none" and not self.troubled and self.one_in(2):  # of a leaf that is left alone nothing is refused
            self.note("leaf without a gradient")
            return "None"
        if kind == "layout":
            layout = self.pick(LAYOUTS.get(self.library, ("plain",)))
            if layout in ("windows", "stretched", "permuted", *SPECIAL) or (layout == "byte-swapped"):
                layout = "plain"
            text, got = self._array(leaf.shape, k, leaf.dtype, layout)
            if got.shape == leaf.shape and got.layout != "plain":
                self.note(f"{layout} gradient")
                self.graph = self.graph or layout == "requires grad"
                return text
        if kind == "spiked" and self.views:
            self.note("gradient with NaN")
            return f"spiked({self._make(leaf.shape, k, leaf.dtype)})"
        if kind == "own" and (stage == 0 or self.views) and self.library in ("numpy", "torch", "jax") and leaf.layout != "scalar":
            self.note("gradient that is the leaf")
            return f"w{i}"
        if kind == "of another leaf" and self.views:
            others = [(j, other) for j, other in enumerate(self.leaves) if j != i and other.dtype == leaf.dtype]
            like = [j for j, other in others if other.shape == leaf.shape]
            if like and "byte-swapped" not in (leaf.layout, self.leaves[like[0]].layout) and self.another_reason():
                self.note("gradient that is another leaf")
                return f"w{like[0]}"
            n = math.prod(leaf.shape)
            larger = [j for j, other in others if other.layout == "plain" and math.prod(other.shape) >= max(n, 1)]
            if larger and not like and self.another_reason():
                self.note("gradient in another leaf")
                return f"w{larger[0]}.reshape((-1,))[:{n}].reshape({leaf.shape!r})"
        return self._make(leaf.shape, k, leaf.dtype)

    def _stage(self, stage: int) -> list[str]:
        lines = []
        if stage:
            self.kept = 0  # what hinders a step hides nothing of the one before
            lines += self._between()
        texts = {i: self._gradient(i, stage) for i in range(len(self.leaves))}
        lines.append(f"grad = {self._gradient_text(texts.__getitem__, 7 + stage, vary=True)}")
        if self.sharded:
            lines.append(f"grad = {self._on_all_devices('grad')}")
        if "defaultdict(" in lines[-1] or "OrderedDict(" in lines[-1]:
            self.note("gradient in another container")
        if stage:
            lines.append(f"hyper = hyper | {self._hyper(turn=1)}")
        return lines

    def _between(self) -> list[str]:
        """What happens to a state between two steps."""
        kind = self.pick(("nothing", "turned", "ordered", "pickled", "copied"))
        mapping = self.tree[0] in MAPPINGS
        if kind == "turned" and mapping:
            self.note("another order at the next step")
            return ["state = state._replace(params=dict(reversed(state.params.items())))"]
        if kind == "ordered" and mapping:
            self.note("another container at the next step")
            turned = [f"{name}=OrderedDict(reversed(state.{name}.items()))" for name in ("params", *self.rule.slots)]
            return [f"state = state._replace({', '.join(turned)})"]
        feature = f"{kind} between steps"
        if (
            feature in COPIES and self.saved(COPYING[kind]) and not (kind == "pickled" and self.sharded)
        ):  # JAX brings that back on one device
            self.note(feature)
            return [COPIES[feature]]
        return []

    # What else.

    def _before(self) -> list[str]:
        """Steps that the same function takes first."""
        kind = self.pick(("nothing", "another order", "another tree", "other leaves", "other numbers", "other numbers"))
        init = f"xopt.{self.rule.name}_init"
        if kind == "other leaves":
            self.note("other leaves before")
            other = self.pick([d for d in self.dtypes if self.alone or d == self.dtype])
            tree = self.pick(("{{'a': {0}}}", "[{0}, {1}]", "{0}"))
            x, y, g, h = (self._make(shape, k, other) for shape, k in (((3,), 90), ((2, 3), 91), ((3,), 92), ((2, 3), 93)))
            return [f"step({init}({tree.format(x, y)}), {tree.format(g, h)})"]
        if kind == "other numbers":
            self.note("other hyperparameters before")
            p, g = (self._gradient_text(lambda i, k=k: self._plain_gradient(i, k + i), k) for k in (80, 84))  # type: ignore[misc]
            return [f"step(xopt.{self.rule.name}.bind(**hyper).init({p}), {g}, **hyper | {self._hyper(turn=2)})"]
        if kind == "another tree":
            how = self.pick(ALTERED)
            self.note(f"a tree before that is {how}")
            p, g = (self._gradient_text(lambda i, k=k: self._plain_gradient(i, k + i), k) for k in (80, 84))  # type: ignore[misc]
            return [f"step({init}(altered({p}, {how!r})), altered({g}, {how!r}))"]
        if kind == "another order" and self.tree[0] in MAPPINGS:
            self.note("another order before")
            p, g = (self._gradient_text(lambda i, k=k: self._plain_gradient(i, k + i), k) for k in (80, 84))  # type: ignore[misc]
            return [f"other = {p}", f"step({init}(dict(reversed(other.items()))), {g})"]
        return []

    def _constants(self) -> str:
        kinds = ["", "small launches"]
        if self.library == "cupy":
            kinds.append("small pairs")
        elif self.views:
            kinds[1:1] = "small blocks", "small shares"
            if self.wide or (self.usable == ("float32",) and self.dtype == "float32"):
                kinds.append("small kernels")
        chosen = self.pick(kinds)
        assert chosen in CONSTANTS
        if chosen:
            self.note(chosen)
        return str(chosen)

    @property
    def idle(self) -> bool:
        """Whether some slots may be None by right."""
        return "a decay of 0" in self.features or "betas" in self.rule.memory.values()


def _wrapped(kind: str, items: Sequence[tuple[Any, str]]) -> str:
    """A container as code."""
    texts = [text for _, text in items]
    if kind == "list":
        return f"[{', '.join(texts)}]"
    if kind == "tuple":
        return f"({', '.join(texts)}{',' if len(texts) == 1 else ''})"
    if kind in RECORDS:
        return f"{kind}({', '.join(texts)})"
    pairs = f"{{{', '.join(f'{key!r}: {text}' for key, text in items)}}}"
    return {"dict": pairs, "OrderedDict": f"OrderedDict({pairs})", "defaultdict": f"defaultdict(list, {pairs})"}[kind]


def _values(interval: Interval) -> tuple[str, ...]:
    """Numbers in a range that float16 holds, as code; the last two are neighbours there."""
    if interval.optional:
        return "5", "2", "None"
    if interval.divisor:
        return "0.0078125", "0.0009765625"
    if interval.text == "(-1, 1)":
        return "0.5", "-0.25"
    if interval.high <= 1:
        return "0.5", "0.75", "0.875", "0.87548828125"
    return "0.5", "0.25", "0.125", "0.1251220703125"


# What all steps must refuse. Each gives programs that bring it about, one after the other; none where it has no place here.

Trouble = Callable[[Draft], list[str]]


def _another_key(draft: Draft) -> str:
    """One that is not there, of another type than numbers: but for JAX, whose ``jit`` sorts the keys before it calls a step."""
    numbers = draft.library == "jax" and draft.tree[1] and isinstance(draft.tree[1][0][0], int)
    return "0" if numbers else "'zz'"


def _surplus(draft: Draft) -> list[str]:
    extra = draft._make((3,), 40, draft.dtype)
    if draft.tree[0] in MAPPINGS:
        return [f"grad = copy.copy(grad); grad[{_another_key(draft)}] = {extra}"]
    return [f"grad = [*grad, {extra}]"] if draft.tree[0] == "list" else []


def _missing(draft: Draft) -> list[str]:
    if draft.tree[0] not in (*MAPPINGS, "list") or not draft.tree[1]:
        return []
    key = draft.pick([key for key, node in draft.tree[1]])
    return [f"grad = copy.copy(grad); del grad[{key!r}]"]


def _other_kind(draft: Draft) -> list[str]:
    turned = {"list": "tuple(grad)", "tuple": "list(grad)", "Pair": "tuple(grad)", "dict": "list(grad.values())"}
    return [f"grad = {turned[draft.tree[0]]}"] if draft.tree[0] in turned else []


def _replaced(draft: Draft, what: Callable[[Drawn], Sequence[str]]) -> list[str]:
    """The gradient with another array at one leaf, for each of the first few."""
    own = {j: draft._plain_gradient(j, 30 + j) for j in range(len(draft.leaves))}
    wrong = [(i, text) for i, leaf in enumerate(draft.leaves[:4]) for text in what(leaf)]
    return [f"grad = {draft._gradient_text((own | {i: text}).__getitem__, 7)}" for i, text in wrong]


def _other_shape(draft: Draft) -> list[str]:
    def texts(leaf: Drawn) -> list[str]:
        n = math.prod(leaf.shape)
        longer = [(leaf.shape[0] + 1, *leaf.shape[1:])] if leaf.shape else []
        shapes = {(n,), (n, 1), leaf.shape[::-1], *longer, *([()] if n == 1 else [])} - {leaf.shape}
        return [draft._make(shape, 41, leaf.dtype) for shape in sorted(shapes)] if leaf.layout != "byte-swapped" else []

    return _replaced(draft, texts)


def _broadcastable(draft: Draft) -> list[str]:
    return _replaced(draft, lambda leaf: [draft._make((), 42, leaf.dtype)] if leaf.shape else [])


def _other_dtype(draft: Draft) -> list[str]:
    others = list(draft.dtypes)
    return _replaced(draft, lambda leaf: [draft._make(leaf.shape, 43, d) for d in others if d != leaf.dtype])


def _other_order(draft: Draft) -> list[str]:
    def texts(leaf: Drawn) -> list[str]:
        plain = draft._make(leaf.shape, 44, leaf.dtype)
        return [plain if leaf.layout == "byte-swapped" else f"{plain}.astype(np.dtype({leaf.dtype!r}).newbyteorder())"]

    return _replaced(draft, texts) if draft.library == "numpy" else []


def _no_array(draft: Draft) -> list[str]:
    return _replaced(draft, lambda _: ("0.5", "[0.5]", "'0.5'"))


def _other_library(draft: Draft) -> list[str]:
    return _replaced(draft, lambda leaf: [f"numbers({leaf.shape!r}, 45)"]) if draft.library in ("torch", "array_api_strict") else []


def _other_rule(draft: Draft) -> list[str]:
    return ["state = fields_like(state)", *(f"state = xopt.{rule}.state(*state)" for rule in ALIKE.get(draft.rule.name, ()))]


def _slot(draft: Draft, change: str) -> list[str]:
    return [change.format(slot) for slot in draft.rule.memory] if draft.leaves else []


def _slot_keys(draft: Draft) -> list[str]:
    if draft.tree[0] not in MAPPINGS:
        return []
    return _slot(draft, f"state = state._replace({{0}}={{{{**state.{{0}}, {_another_key(draft)}: None}}}})")


def _slot_dtype(draft: Draft) -> list[str]:
    if draft.library not in ("numpy", "jax") or draft.many or len(draft.leaves) != 1 or draft.idle:
        return []
    other = "float64" if draft.dtype != "float64" else "float32"
    return _slot(draft, f"state = state._replace({{0}}=optree.tree_map(lambda x: x.astype({other!r}), state.{{0}}))")


def _slot_lost(draft: Draft) -> list[str]:
    forgets = draft.idle or "a decay of 0 at the next step" in draft.features
    return [] if forgets else _slot(draft, "state = state._replace({0}=optree.tree_map(lambda _: None, state.{0}))")


def _slot_missing(draft: Draft) -> list[str]:
    each = [slot for slot, decay in draft.rule.memory.items() if not draft.rule.ranges[decay].sequence]
    return [f"hyper = hyper | {{{draft.rule.memory[x]!r}: waking(state.{x}, state.params)}}" for x in each if draft.leaves]


def _low_count(draft: Draft) -> list[str]:
    return [f"state = state._replace(step={count})" for count in LOW_COUNTS if draft.leaves]


def _count(draft: Draft) -> list[str]:
    wrong = (*WRONG_COUNTS, *WRONG_COUNTS_OF.get(draft.library, ())) if draft.leaves else ()
    return [f"state = state._replace(step={count})" for count in wrong]


def _outer_carried(draft: Draft) -> list[str]:
    return _carried(draft, OUTER_CARRIED)


def _carried(draft: Draft, wrong: Sequence[str] = WRONG_CARRIED) -> list[str]:
    if not draft.rule.carried or not draft.leaves:
        return []
    slot, at = next(iter(draft.rule.carried)), draft.choose(len(draft.leaves))

    def tree(number: str) -> str:
        return draft._text(draft.tree, lambda i: number if i == at else "0.5", lambda: draft._few(("0.5", "0.5")))

    return [f"state = state._replace({slot}={tree(number)})" for number in wrong]


def _wrong_number(draft: Draft) -> list[str]:
    if not draft.leaves:
        return []
    name = draft.pick([name for name, interval in draft.rule.ranges.items() if not interval.sequence])
    wrong = [value for value in WRONG_NUMBERS if value != "None" or not draft.rule.ranges[name].optional]
    if draft.tree[0] == "leaf" or not draft.one_in(2):
        return [f"hyper = hyper | {{{name!r}: {value}}}" for value in wrong]
    at, good = draft.choose(len(draft.leaves)), _values(draft.rule.ranges[name])[0]

    def tree(value: str) -> str:
        return draft._text(draft.tree, lambda i: value if i == at else good, lambda: draft._few((good, good)))

    return [f"hyper = hyper | {{{name!r}: {tree(value)}}}" for value in wrong]


def _wrong_prefix(draft: Draft) -> list[str]:
    kind = draft.tree[0]
    if kind == "leaf" or not draft.tree[1]:
        return []
    items = [(key, "0.5") for key, _ in draft.tree[1]]
    if kind in MAPPINGS:
        wrong = [[*items, ("zz", "0.5")], items[1:], [("zz", "0.5"), *items[1:]]]
        trees = [_wrapped(draft.pick(MAPPINGS), one) for one in wrong]
    elif kind in SEQUENCES:
        trees = [_wrapped(kind, [*items, ("", "0.5")]), _wrapped({"list": "tuple", "tuple": "list"}[kind], items)]
    else:
        trees = ["[0.5, 0.5]", "(0.5, 0.5)"]
    return [f"hyper = hyper | dict(lr={tree})" for tree in trees]


TROUBLE: dict[str, Trouble] = {
    "a surplus key in the gradient": _surplus,
    "a key that the gradient lacks": _missing,
    "a gradient of another container": _other_kind,
    "a gradient of the same size and another shape": _other_shape,
    "a gradient that would be broadcast": _broadcastable,
    "a gradient of another dtype": _other_dtype,
    "a gradient of another byte order": _other_order,
    "a gradient that is no array": _no_array,
    "a gradient of another library": _other_library,
    "the state of another rule": _other_rule,
    "a slot with another key": _slot_keys,
    "a slot of another dtype": _slot_dtype,
    "a slot that is lost": _slot_lost,
    "a decay of a slot that is not there": _slot_missing,
    "a count below 0": _low_count,
    "a count that is none": _count,
    "a carried number beyond its range": _outer_carried,
    "a carried number that is none": _carried,
    "a hyperparameter that is no number": _wrong_number,
    "a prefix that is none": _wrong_prefix,
}

"""A built model while its backward part is rewritten: who makes a tensor, who reads it, what shape it has.

Rewrites emit nodes and put a tensor in another's place; `finish` writes what is still needed back into the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from gbp_onnx.graph.names import names_in, unique_name
from gbp_onnx.graph.reader import captured_names, skeleton_with_shapes

__all__ = ["PROBES", "Draft", "Shape", "is_backward", "origin_of"]

Shape = tuple[Any, ...]
"""Sizes: int where known, str or None where open."""

MARK = "gbp.vjp_of"
PROBES = ("gbp.explained", "gbp.seed", "gbp.seed_at_explained")
"""Metadata that names tensors, which are asked for later on (see `probes`)."""


class Draft:
    """A model that is being rewritten. Tensors are names; a node is a NodeProto that nothing else holds."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        inferred = skeleton_with_shapes(model).graph
        self.shapes: dict[str, Shape] = {}
        self.kinds: dict[str, int] = {}
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            tensor = value.type.tensor_type
            if tensor.HasField("shape"):
                self.shapes[value.name] = tuple(
                    d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim
                )
            self.kinds[value.name] = tensor.elem_type
        self.weights = {t.name: t for t in model.graph.initializer}
        for name, weight in self.weights.items():
            self.shapes[name], self.kinds[name] = tuple(weight.dims), weight.data_type
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.maker: dict[str, onnx.NodeProto] = {o: n for n in self.nodes for o in n.output if o}
        self.named = {n.name or f"{n.op_type}_{k}": n for k, n in enumerate(self.nodes) if not is_backward(n)}
        """Forward nodes by name, as the reader of graphs calls them."""
        self._shape_cotangents()
        roles: dict[str, str] = next((json.loads(e.value) for e in model.metadata_props if e.key == "gbp.inputs"), {})
        self._batch = (self.shapes.get(roles.get("image", "")) or (None,))[0]
        asked = [e.value for e in model.metadata_props if e.key in PROBES and e.value in self.maker]
        self.outputs = dict.fromkeys((*(o.name for o in model.graph.output), *asked))
        """What the model returns, or is asked for."""
        self._captured = {name for n in self.nodes for name in captured_names(n)}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            self._note_reader(node)
        self._forward = {o for n in self.nodes if not is_backward(n) for o in n.output if o}
        self._instead: dict[str, str] = {}
        self._taken = names_in(model.graph) | set(self.kinds)
        self._seen: dict[Any, str] = {}
        self._values: dict[str, NDArray[Any] | None] = {}
        self._constants: dict[Any, str] = {}
        self._added: list[onnx.TensorProto] = []
        self.origin = ""
        """The forward node whose derivative is being rewritten."""
        self.phases: dict[str, dict[tuple[int, int], str]] = {}
        """The phases that a tensor is interleaved from: every second row and column of it, by their first ones."""
        self.cut_weights: set[str] = set()
        """Weights that are parts of others."""
        self.turned_weights: dict[str, int] = {}
        """Copies of weights, turned or cut, and their elements."""

    # --- reading --------------------------------------------------------------------------------------------------

    def now(self, name: str) -> str:
        """What stands in place of a tensor by now."""
        while name in self._instead:
            name = self._instead[name]
        return name

    def node(self, name: str, *ops: str) -> onnx.NodeProto | None:
        """The node that makes a tensor, where it is one of these operators (any, where none is named)."""
        found = self.maker.get(self.now(name))
        fits = found is not None and found.domain in ("", "ai.onnx") and (not ops or found.op_type in ops)
        return found if fits else None

    def inputs(self, node: onnx.NodeProto) -> list[str]:
        """What a node reads by now."""
        return [self.now(name) for name in node.input]

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that read a tensor, each as often as it does."""
        return self._readers.get(self.now(name), [])

    def only_read_by_one(self, name: str) -> bool:
        """Whether one node alone reads a tensor, once, and the model does not return it."""
        name = self.now(name)
        return len(self.readers(name)) == 1 and not self.is_kept(name)

    def is_kept(self, name: str) -> bool:
        """Whether a tensor must stay under its name: the model returns it, or a body reads it."""
        return name in self.outputs or name in self._captured

    def is_forward(self, name: str) -> bool:
        """Whether a node of the source makes a tensor."""
        return name in self._forward

    def shape(self, name: str) -> Shape | None:
        """The shape of a tensor; None where not even the rank is known."""
        return self.shapes.get(self.now(name))

    def space(self, name: str) -> tuple[int, int, int] | None:
        """Channels, height and width of a float32 tensor [N, C, H, W] that has them fixed."""
        shape = self.shape(name)
        if shape is None or len(shape) != 4 or self.kinds.get(self.now(name)) != onnx.TensorProto.FLOAT:
            return None
        c, h, w = shape[1:]
        return (c, h, w) if all(isinstance(d, int) and d > 0 for d in (c, h, w)) else None

    def alike(self, one: str, other: str) -> bool:
        """Whether two tensors have one shape: equal sizes; open ones count as equal to open ones (batches), and an open
        first one as the batch of the images where that is fixed.
        """
        a, b = self.shape(one), self.shape(other)
        if a is None or b is None or len(a) != len(b):
            return False
        sizes = zip(self._with_batch(a), self._with_batch(b), strict=True)
        return all(x == y or not (isinstance(x, int) or isinstance(y, int)) for x, y in sizes)

    def value(self, name: str) -> NDArray[Any] | None:
        """The value of an initializer or of a Constant node."""
        name = self.now(name)
        if name not in self._values:
            self._values[name] = self._read(name)
        return self._values[name]

    def number(self, name: str) -> float | None:
        """The value of a constant of one element."""
        shape = self.shape(name)
        if shape is not None and any(d != 1 for d in shape):
            return None
        found = self.value(name)
        return None if found is None or found.size != 1 else float(found.reshape(-1)[0])

    def weight_shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a float32 initializer, or of what was emitted from some."""
        name = self.now(name)
        known = name in self.weights or name in self.cut_weights
        return self.shapes[name] if known and self.kinds[name] == onnx.TensorProto.FLOAT else None

    @property
    def copies(self) -> int:
        """Elements of weights that the nodes need a second time, turned or cut."""
        return sum(self.turned_weights.values())

    # --- writing --------------------------------------------------------------------------------------------------

    def emit(self, op: str, inputs: Sequence[str], shape: Shape | None, kind: int = 1, **attrs: Any) -> str:
        """Emit a node (or find an equal one); its output."""
        return self.emit_many(op, inputs, [shape], kind, **attrs)[0]

    def emit_many(
        self, op: str, inputs: Sequence[str], shapes: Sequence[Shape | None], kind: int = 1, **attrs: Any
    ) -> list[str]:
        """Emit a node with several outputs."""
        read = [self.now(name) for name in inputs]
        key = (op, *read, len(shapes), repr(sorted(attrs.items())))
        if key not in self._seen:
            names = [self._new_name(op) for _ in shapes]
            node = helper.make_node(op, read, names, name=names[0], **attrs)
            node.metadata_props.add(key=MARK, value=self.origin)
            for name, shape in zip(names, shapes, strict=True):
                self.maker[name], self.kinds[name] = node, kind
                if shape is not None:
                    self.shapes[name] = tuple(shape)
            self.nodes.append(node)
            self._note_reader(node)
            self._seen[key] = "\0".join(names)
        return self._seen[key].split("\0")

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """A constant; equal ones are one initializer."""
        array = np.ascontiguousarray(value, dtype).reshape(np.shape(value))
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = self._new_name("const")
            self._added.append(numpy_helper.from_array(array, name))
            self.shapes[name], self.kinds[name] = array.shape, self._added[-1].data_type
            self._values[name] = array
            if array.dtype == np.float32:
                self.weights[name] = self._added[-1]
            self._constants[key] = name
        return self._constants[key]

    def replace(self, old: str, new: str) -> None:
        """Put `new` in place of `old`, for all that read it."""
        old, new = self.now(old), self.now(new)
        if old == new:
            return
        self._instead[old] = new
        for node in self._readers.pop(old, []):
            for index, name in enumerate(node.input):
                if name == old:
                    node.input[index] = new
            self._readers.setdefault(new, []).append(node)

    def needed(self) -> set[int]:
        """The nodes, by id, that what the model returns depends on by now."""
        placed: set[int] = set()
        for name in self.outputs:
            _behind(self.now(name), self.maker, placed)
        return placed

    def finish(self) -> None:
        """Write the nodes that the outputs need, in topological order, and the new constants, into the model."""
        names = self._final_names()
        for node in self.nodes:
            for index, name in enumerate(node.input):
                node.input[index] = names.get(self.now(name), self.now(name))
            for index, name in enumerate(node.output):
                node.output[index] = names.get(name, name)
        needed = set(self.outputs)
        ordered, makers = [], {o: n for n in self.nodes for o in n.output if o}
        placed: set[int] = set()
        forward = [n for n in self.nodes if not is_backward(n)]
        for root in (*(o for n in forward for o in n.output if o), *self.outputs):
            ordered += _behind(root, makers, placed)
        for node in reversed(ordered):
            if not is_backward(node) or any(o in needed for o in node.output):
                needed.update(node.input)
                needed |= captured_names(node)
        kept = [n for n in ordered if not is_backward(n) or any(o in needed for o in n.output)]
        for node in kept:
            _without_unread(node, needed)
        copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in kept]
        graph = self.model.graph
        del graph.node[:]
        graph.node.extend(copies)
        unused = [k for k, t in enumerate(graph.initializer) if t.name not in needed and t.name.startswith("grad/")]
        for index in reversed(unused):
            del graph.initializer[index]
        graph.initializer.extend(t for t in self._added if t.name in needed)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _with_batch(self, shape: Shape) -> Shape:
        return (self._batch, *shape[1:]) if len(shape) == 4 and not isinstance(shape[0], int) else shape

    def _shape_cotangents(self) -> None:
        """A cotangent, called ``grad/<tensor>`` or, of several rules, ``grad/<rule>/<tensor>``, has the shape of that
        tensor, which inference may not find out.
        """
        rules = json.loads(next((e.value for e in self.model.metadata_props if e.key == "gbp.rules"), "[]"))
        prefixes = ["grad/"] if len(rules) == 1 else [f"grad/{rule}/" for rule in rules]
        for name in [o for n in self.nodes if is_backward(n) for o in n.output if o.startswith("grad/")]:
            known = self.shapes.get(name)
            if known is not None and all(isinstance(d, int) for d in known[1:]):
                continue
            tensor = next((name.removeprefix(p) for p in prefixes if name.startswith(p)), "")
            shape = self.shapes.get(tensor)
            if shape is None or not (known is None or len(known) == len(shape)) or not self._sums_up(name, tensor):
                continue
            self.shapes[name] = shape
            self.kinds.setdefault(name, onnx.TensorProto.FLOAT)

    def _sums_up(self, name: str, tensor: str) -> bool:
        """Whether `name` is the sum of what readers of a forward tensor send it.

        Else it is called like its cotangent by chance: that of x is called grad/x_1 where the source has a grad/x.
        """
        waiting = [name]
        while waiting:
            node = self.maker.get(waiting.pop())
            if node is None or not is_backward(node):
                return False
            if node.op_type == "Add":
                waiting += node.input
            else:
                origin = self.named.get(origin_of(node))
                if origin is None or tensor not in origin.input:
                    return False
        base = re.sub(r"_\d+$", "", tensor)
        taken = name.removesuffix(tensor) + base
        made = self.maker.get(taken)
        return base == tensor or taken not in self.shapes or (made is not None and is_backward(made))

    def _read(self, name: str) -> NDArray[Any] | None:
        if name in self.weights:
            weight = self.weights[name]
            if weight.data_location == onnx.TensorProto.EXTERNAL:
                return None
            return np.asarray(numpy_helper.to_array(weight))
        node = self.maker.get(name)
        if node is not None and node.op_type == "Constant":
            found = next((a for a in node.attribute if a.name == "value"), None)
            return None if found is None else np.asarray(numpy_helper.to_array(found.t))
        return None

    def _note_reader(self, node: onnx.NodeProto) -> None:
        for name in node.input:
            if name:
                self._readers.setdefault(name, []).append(node)

    def _new_name(self, base: str) -> str:
        return unique_name("/".join(filter(None, ("grad/lowered", self.origin, base))), self._taken)

    def _final_names(self) -> dict[str, str]:
        """New names of emitted tensors that stand in place of those that must keep theirs."""
        names: dict[str, str] = {}
        for old in [name for name in self._instead if self.is_kept(name)]:
            new = self.now(old)
            maker = self.maker.get(new)
            free = maker is not None and is_backward(maker) and new not in names and not self.is_kept(new)
            if free:
                names[new] = old
                names[old] = self._new_name("replaced")
            else:
                self._replace_maker(old, new)
        return names

    def _replace_maker(self, old: str, new: str) -> None:
        """`old` becomes a copy of `new`."""
        self.maker[old].output[list(self.maker[old].output).index(old)] = self._new_name("replaced")
        del self._instead[old]
        node = helper.make_node("Identity", [new], [old], name=self._new_name("Identity"))
        node.metadata_props.add(key=MARK, value=self.origin)
        self.nodes.append(node)


def is_backward(node: onnx.NodeProto) -> bool:
    """Whether a node belongs to a derivative, or to the seed, whose nodes are called after what they make."""
    if any(p.key == MARK for p in node.metadata_props):
        return True
    return node.name.startswith("grad/") and any(o and node.name.startswith(o) for o in node.output)


def origin_of(node: onnx.NodeProto) -> str:
    """The name of the forward node that a node is a derivative of; empty where it is of none."""
    return next((p.value for p in node.metadata_props if p.key == MARK), "")


def _behind(root: str, makers: Mapping[str, onnx.NodeProto], placed: set[int]) -> list[onnx.NodeProto]:
    """The nodes that `root` needs and that are not placed yet, in topological order."""
    found: list[onnx.NodeProto] = []
    waiting: list[tuple[onnx.NodeProto, bool]] = [(makers[root], False)] if root in makers else []
    while waiting:
        node, ready = waiting.pop()
        if id(node) in placed:
            continue
        if ready:
            placed.add(id(node))
            found.append(node)
            continue
        waiting.append((node, True))
        read: Iterable[str] = (*node.input, *captured_names(node))
        waiting += [(makers[n], False) for n in read if n in makers and id(makers[n]) not in placed]
    return found


def _without_unread(node: onnx.NodeProto, needed: set[str]) -> None:
    """Take the Indices from a MaxPool whose reader is gone."""
    if node.op_type == "MaxPool" and len(node.output) > 1 and node.output[1] not in needed:
        del node.output[1:]

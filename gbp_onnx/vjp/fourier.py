"""DFT and STFT. They are linear: the transpose of a Fourier transform is one, in the other direction.

What is emitted is the operator DFT itself, which ONNX Runtime has on the CPU alone; so it has the forward's. Axes and
sizes are int64 vectors of one element, constant where they are known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.common import need, rank_of
from gbp_onnx.vjp.layout import positive_axes, scatter_along
from gbp_onnx.vjp.registry import Cotangents, Refusal, vjp


@vjp("DFT", since=17)
def dft(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """N * IDFT(ct);  inverse: DFT(ct) / N;  one-sided: absent bins are 0, or (inverse) twins of others"""
    x, length = need(node.inputs[0], "input"), node.input(1)
    along = _Axis(_axis(op, node), rank_of(op, x))
    size = along.size(op, op.shape(x))
    inverse, onesided = bool(node.attrs["inverse"]), bool(node.attrs["onesided"])
    if inverse and onesided:
        points = _points_of_half(op, length, size)
        to_bins = op.Mul(_transform(op, ct, along, onesided=1), _twins(op, points, size, along, ct))
    else:
        points = size if length is None else _vector(op, length)
        to_bins = _transform(op, along.resized(op, ct, points) if onesided else ct, along, inverse=int(not inverse))
    count = op.Cast(points, to=op.elem_type(ct))
    to_x = op.Div(to_bins, count) if inverse else op.Mul(to_bins, count)
    return (along.resized(op, _as_in(op, to_x, x), size),)


@vjp("STFT", since=17)
def stft(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """signal: window * N * IDFT(ct), added where each frame lies;  window: signal * N * IDFT(ct), summed over frames"""
    signal, step, window = need(node.inputs[0], "signal"), need(node.inputs[1], "frame_step"), node.input(2)
    length = node.input(3)
    points = _vector(op, length) if length is not None else op.dim(need(window, "window"), 0)
    along = _Axis(op.constant([2]), 4)
    bins = along.resized(op, ct, points) if node.attrs["onesided"] else ct
    whole = op.Mul(_transform(op, bins, along, inverse=1), op.Cast(points, to=op.elem_type(ct)))
    frames = _as_in(op, whole, signal)
    starts = op.Mul(_counted(op, op.Gather(op.Shape(ct), [1], axis=0)), _vector(op, step))
    places = op.Add(op.Unsqueeze(starts, axes=[1]), _counted(op, points))  # [frames, points]

    def to_signal() -> Tensor:
        seen = frames if window is None else op.Mul(frames, op.Unsqueeze(window, axes=[1]))
        joined = op.Reshape(seen, op.Concat([0, -1], op.dim(signal, 2), axis=0))
        return scatter_along(op, joined, op.Reshape(places, [-1]), op.dim(signal, 1), 1, 3)

    def to_window() -> Tensor:
        made: Tensor = op.ReduceSum(op.Mul(op.Gather(signal, places, axis=1), frames), axes=[0, 1, 3], keepdims=0)
        return made

    return to_signal, None, None if window is None else to_window


@dataclass(frozen=True, slots=True)
class _Axis:
    """The axis of a transform, perhaps known only at run time, among `rank`."""

    place: Tensor
    rank: int

    def size(self, op: Emitter, shape: Tensor) -> Tensor:
        """The size of this axis in a shape."""
        made: Tensor = op.Gather(shape, self.place, axis=0)
        return made

    def alone(self, op: Emitter, value: Tensor, rest: int) -> Tensor:
        """`value` at this axis, `rest` at the others: int64 [rank]."""
        known = op.value(self.place)
        if known is None:
            made: Tensor = op.ScatterElements(op.constant(np.full(self.rank, rest)), self.place, value, axis=0)
        else:
            others = op.constant([rest])
            made = op.Concat(*(value if k == int(known[0]) else others for k in range(self.rank)), axis=0)
        return made

    def resized(self, op: Emitter, tensor: Tensor, size: Tensor) -> Tensor:
        """`tensor`, cut or filled up with zeros at the end of this axis."""
        missing = op.Sub(size, self.size(op, op.shape(tensor)))
        known = op.value(missing)
        if known is not None and not known.any():
            return tensor
        pads = op.Concat(op.constant(np.zeros(self.rank, np.int64)), self.alone(op, missing, 0), axis=0)
        made: Tensor = op.Pad(tensor, pads)
        return made


def _axis(op: Emitter, node: Node) -> Tensor:
    """The axis, counted from the front."""
    rank = rank_of(op, need(node.inputs[0], "input"))
    if node.version < 20:
        return op.constant([node.attrs["axis"] % rank])
    given = node.input(2)
    return op.constant([rank - 2]) if given is None else positive_axes(op, _vector(op, given), rank)


def _transform(op: Emitter, x: Tensor, along: _Axis, **attrs: int) -> Tensor:
    """The transform of a tensor along an axis, as the model's opset writes it."""
    if op.graph.opset >= 20:
        made: Tensor = op.DFT(x, None, op.Squeeze(along.place, axes=[0]), **attrs)
    else:
        known = op.value(along.place)
        made = op.DFT(x, axis=None if known is None else int(known[0]), **attrs)
    return made


def _points_of_half(op: Emitter, length: Tensor | None, size: Tensor) -> Tensor:
    """How many real numbers the one-sided inverse makes of `size` bins; refused where it drops or repeats bins."""
    if length is None:
        made: Tensor = op.Mul(op.Sub(size, 1), 2)
        return made
    points, bins = op.value(length), op.value(size)
    if points is None or bins is None:
        raise Refusal("its inverse is one-sided and its dft_length or number of bins is known only at run time")
    if int(points) // 2 + 1 != int(bins[0]):  # ONNX Runtime mixes bins up there, differently for odd and even numbers
        raise Refusal(f"its one-sided inverse makes {int(points)} values of {int(bins[0])} bins, which do not fit")
    return _vector(op, length)


def _twins(op: Emitter, points: Tensor, size: Tensor, along: _Axis, ct: Tensor) -> Tensor:
    """2 for a bin that stands for itself and its mirror image, 1 for the first and the middle one."""
    places = _counted(op, size)
    twice = op.And(op.Greater(places, 0), op.Less(op.Mul(places, 2), points))
    factors = op.Where(twice, op.constant(2.0, op.elem_type(ct)), 1.0)
    made: Tensor = op.Reshape(factors, along.alone(op, op.constant([-1]), 1))
    return made


def _as_in(op: Emitter, tensor: Tensor, x: Tensor) -> Tensor:
    """The real part where the numbers of x are real."""
    size = (op.known_shape(x) or (None,))[-1]
    made: Tensor = tensor if size == 2 else op.Slice(tensor, [0], op.dim(x, rank_of(op, x) - 1), [-1])
    return made


def _vector(op: Emitter, number: Tensor) -> Tensor:
    """A number as an int64 vector of one element."""
    made: Tensor = op.Reshape(op.Cast(number, to=onnx.TensorProto.INT64), [1])
    return made


def _counted(op: Emitter, count: Tensor) -> Tensor:
    """0, 1, 2... int64 [count]"""
    made: Tensor = op.Range(op.constant(np.int64(0)), op.Squeeze(count, axes=[0]), op.constant(np.int64(1)))
    return made

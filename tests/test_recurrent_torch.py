"""Gradients of exported torch.nn.LSTM, GRU and RNN against torch's own; needs torch."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import onnx
import pytest

import gbp_onnx
from tests.vjp_check import session

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch", reason="torch is not installed (make oracle)")

CELLS = [
    ("LSTM", {}),
    ("LSTM", {"bidirectional": True, "num_layers": 2}),
    ("LSTM", {"bias": False, "batch_first": True}),
    ("GRU", {}),
    ("GRU", {"bidirectional": True, "num_layers": 2, "batch_first": True}),
    ("RNN", {"nonlinearity": "relu", "bidirectional": True}),
    ("RNN", {"nonlinearity": "tanh", "num_layers": 2}),
]


def exported(network: Any, arguments: tuple[Any, ...], names: list[str], dynamo: bool) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            program = torch.onnx.export(network, arguments, input_names=names, dynamo=True, verbose=False)
            model: onnx.ModelProto = program.model_proto
            return model
        buffer = io.BytesIO()
        torch.onnx.export(network, arguments, buffer, input_names=names, dynamo=False, opset_version=17)
    return onnx.load_from_string(buffer.getvalue())


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize(("cell", "options"), CELLS, ids=lambda v: v if isinstance(v, str) else "-".join(v) or "plain")
def test_recurrent_networks_of_torch(cell: str, options: dict[str, Any], dynamo: bool) -> None:
    """Every input, initial states included; two kinds of export."""
    torch.manual_seed(3)
    network = getattr(torch.nn, cell)(4, 5, **options).eval()
    layers = network.num_layers * (2 if network.bidirectional else 1)
    x = torch.randn(3, 2, 4) if options.get("batch_first") else torch.randn(2, 3, 4)
    batch = 3
    hidden = torch.randn(layers, batch, 5)
    states = (hidden, torch.randn(layers, batch, 5)) if cell == "LSTM" else hidden
    given = [x, *(states if isinstance(states, tuple) else [states])]
    names = ["x", "h", "c"][: len(given)]
    try:
        model = exported(network, (x, states), names, dynamo)
    except ModuleNotFoundError as error:
        pytest.skip(f"the exporter is not whole ({error})")
    if not dynamo:  # which writes some of them out
        assert sum(n.op_type == cell for n in model.graph.node) == network.num_layers

    leaves = [g.clone().requires_grad_() for g in given]
    y, last = network(leaves[0], tuple(leaves[1:]) if cell == "LSTM" else leaves[1])
    outputs = [y, *(last if isinstance(last, tuple) else [last])]
    seeds = [torch.randn_like(o) for o in outputs]
    want = torch.autograd.grad(outputs, leaves, seeds)

    built = gbp_onnx.differentiate(model, wrt=names)
    feeds = {n: g.numpy() for n, g in zip(names, given, strict=True)}
    seeded = {f"{o.name}_seed": s.numpy() for o, s in zip(model.graph.output, seeds, strict=True)}
    got = session(built).run([f"{n}_grad" for n in names], {**feeds, **seeded})
    for name, mine, theirs in zip(names, got, want, strict=True):
        scale = float(theirs.abs().max())
        np.testing.assert_allclose(mine / scale, theirs.numpy() / scale, atol=2e-6, err_msg=name)

"""Models with branches and loops as torch's scripting exports them, against torch's own gradients."""

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


class Convolved(torch.nn.Module):
    """What the models below are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Conv2d(3, 3, 3, padding=1)
        self.b = torch.nn.Conv2d(3, 3, 3, padding=1)
        self.cell = torch.nn.Linear(3, 3)
        self.head = torch.nn.Linear(3, 5)


class Branch(Convolved):
    """If on a value of the image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.a(x)) if bool(x.mean() > 0) else torch.relu(self.b(x)) * 2
        return self.head(y.mean(dim=[2, 3]))


class Repeat(Convolved):
    """A Loop as often as the image's size says."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(int(x.shape[2]) // 3):
            x = torch.relu(self.a(x)) + x * float(i)
        return self.head(x.mean(dim=[2, 3]))


class Until(Convolved):
    """A Loop until a value of its state says that it is enough, with an If in it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while bool(x.abs().mean() > 0.2):
            x = torch.relu(self.a(x)) * 0.8
            if bool(x.mean() > 0.3):
                x = x * 0.5
        return self.head(x.mean(dim=[2, 3]))


class Cells(Convolved):
    """A recurrent network written out, its states collected in a list."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        columns = torch.relu(self.a(x)).mean(dim=2)
        states = []
        h = torch.zeros(x.size(0), 3)
        for i in range(columns.size(2)):
            h = torch.tanh(self.cell(columns[:, :, i]) + h)
            states.append(h)
        return self.head(torch.stack(states, dim=1).max(dim=1)[0])


class Strips(Convolved):
    """A list of parts of the image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = torch.zeros(x.size(0), 3)
        for part in torch.split(x, 2, dim=3):
            total = total + torch.relu(self.a(part)).mean(dim=[2, 3])
        return self.head(total)


@pytest.mark.parametrize("shift", [0.4, -0.4])
@pytest.mark.parametrize("kind", [Branch, Repeat, Until, Cells, Strips], ids=lambda k: k.__name__)
def test_scripted(kind: Any, shift: float) -> None:
    torch.manual_seed(0)
    net = kind().eval()
    x = (torch.randn(2, 3, 7, 8) + shift).requires_grad_()
    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options: Any = {"dynamo": False, "opset_version": 17, "dynamic_axes": {"image": [0, 2, 3]}}
        torch.onnx.export(torch.jit.script(net), (x,), written, input_names=["image"], output_names=["y"], **options)
    model = onnx.load_from_string(written.getvalue())
    assert {"If", "Loop"} & {n.op_type for n in model.graph.node}
    y = net(x)
    seed = torch.randn_like(y)
    (y * seed).sum().backward()
    built = gbp_onnx.differentiate(model, wrt="image")
    got = session(built).run(["image_grad", "y"], {"image": x.detach().numpy(), "y_seed": seed.numpy()})
    np.testing.assert_allclose(got[1], y.detach().numpy(), atol=1e-5)
    want = x.grad.numpy()
    np.testing.assert_allclose(got[0] / abs(want).max(), want / abs(want).max(), atol=2e-6)

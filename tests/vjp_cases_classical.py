"""More of the table: operators of ai.onnx.ml, in float32 against onnx.reference in double."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.vjp_cases import CASES, fed, fixed, t
from tests.vjp_check import Case, In


def ml(name: str, op: str, *inputs: In, outputs: str = "y", dynamic: bool = True, **attrs: Any) -> None:
    node = (op, " ".join("abcdefgh"[: len(inputs)]), outputs, {**attrs, "domain": "ai.onnx.ml"})
    CASES.append(Case(f"{op}/{name}", op, inputs, nodes=(node,), oracle="reference", dynamic=dynamic))


_random = np.random.RandomState(7)
_WEIGHTS = [float(v) for v in _random.uniform(-1, 1, 12)]

ml("one number", "Scaler", t(2, 3), offset=[0.5], scale=[2.0])
ml("a row", "Scaler", t(2, 3), offset=[0.5, -1.0, 2.0], scale=[2.0, -0.5, 3.0])
for _norm in ("L1", "L2", "MAX"):
    ml(_norm, "Normalizer", t(3, 4, low=-0.5), norm=_norm)
_HOLES = In(value=np.asarray([[1, 2, np.nan], [np.nan, 0.5, 3]], np.float32))
ml("one value", "Imputer", _HOLES, imputed_value_floats=[5.0], replaced_value_float=np.nan)
ml("a row", "Imputer", _HOLES, imputed_value_floats=[5.0, 6.0, 8.0], replaced_value_float=np.nan)
ml("columns", "ArrayFeatureExtractor", t(2, 4), fixed([[1, 3, 1]], np.int64))
ml("a vector, fed", "ArrayFeatureExtractor", t(4), fed([[2, 0]]))
ml("two inputs", "FeatureVectorizer", t(2, 3), t(2, 1), inputdimensions=[3, 1], dynamic=False)

for _transform in ("NONE", "LOGISTIC", "SOFTMAX"):
    _more: dict[str, Any] = {"post_transform": _transform, "coefficients": _WEIGHTS, "intercepts": [0.1, -0.2, 0.3]}
    ml(_transform, "LinearRegressor", t(2, 4), targets=3, **_more)
    ml(_transform, "LinearClassifier", t(2, 4), outputs="z y", classlabels_ints=[0, 1, 2], **_more)
    _more |= {"coefficients": _WEIGHTS[:4], "intercepts": [0.1]}
    ml(f"{_transform}, one score", "LinearClassifier", t(2, 4), outputs="z y", classlabels_ints=[0, 1], **_more)
ml("one target", "LinearRegressor", t(2, 4), targets=1, coefficients=_WEIGHTS[:4], intercepts=[0.1])

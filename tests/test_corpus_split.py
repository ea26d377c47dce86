"""Every model of the corpus is explained, or refused with a true reason, as the checked-in list says.

The list changes with ``python -m tests.corpus_split --update``.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from gbp_onnx.errors import CODES, OperatorError
from tests.corpus import needs_corpus
from tests.corpus_split import EXPLAINED, expected, models, outcome

pytestmark = [needs_corpus, pytest.mark.corpus]


def test_the_list_is_the_folder() -> None:
    assert set(expected()) == {path.name for path in models()}
    assert set(expected().values()) <= {EXPLAINED, *CODES}


@pytest.mark.parametrize("path", models(), ids=lambda path: path.name)
def test_the_split(path: Path) -> None:
    found = outcome(path)
    assert found.verdict == expected().get(path.name), found.detail
    if found.verdict == EXPLAINED:
        assert found.runs
        return
    assert found.error is not None and found.error.fix and path.name in str(found.error)
    if isinstance(found.error, OperatorError):  # each reason names a node that is there
        graph = onnx.load(path, load_external_data=False).graph
        nodes = {(n.op_type, n.name or f"{n.op_type}_{k}") for k, n in enumerate(graph.node)}
        inner = {(n.op_type, n.name) for node in graph.node for a in node.attribute for n in a.g.node}
        assert {(r.op.rpartition("::")[2], r.node) for r in found.error.reasons} <= nodes | inner

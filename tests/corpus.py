"""Where the corpus is: the folder that GBP_CORPUS names, else ../shared/corpus from the project's root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CORPUS = Path(os.environ.get("GBP_CORPUS") or Path(__file__).resolve().parents[2] / "shared" / "corpus")
needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus at {CORPUS} (GBP_CORPUS)")

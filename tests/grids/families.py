"""The families by name."""

from __future__ import annotations

from collections.abc import Callable

from tests.grids import indexing, microsoft, reducing, resizing, windows
from tests.grids.draw import Draw, Random

__all__ = ["FAMILIES"]

FAMILIES: dict[str, Callable[[Random], Draw]] = {
    "Conv": windows.conv,
    "ConvTranspose": windows.conv_transpose,
    "MaxPool": windows.max_pool,
    "AveragePool": windows.average_pool,
    "LpPool": windows.lp_pool,
    "Resize": resizing.resize,
    "Pad": resizing.pad,
    "cutting": indexing.cutting,
    "gathering": indexing.gathering,
    "scattering": indexing.scattering,
    "repeating": indexing.repeating,
    "reductions": reducing.reductions,
    "products": reducing.products,
    "einsum": reducing.einsum,
    "broadcasting": reducing.broadcasting,
    "normalizing": reducing.normalizing,
    "Attention": microsoft.attention,
    "MultiHeadAttention": microsoft.multi_head_attention,
    "moves": microsoft.moves,
    "matrices": microsoft.matrices,
}

"""How alike two results are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def sqnr(expected: Tensor, found: Tensor) -> float:
    """Signal-to-noise ratio of `found` in decibels: 10·log₁₀(Σ expected² / Σ (expected − found)²); infinite where both are equal."""
    if expected.shape != found.shape:
        raise ValueError(f"shapes differ: {list(expected.shape)} and {list(found.shape)}")
    signal, noise = expected.double().square().sum(), (expected.double() - found.double()).square().sum()
    return float("inf") if noise == 0 else float(10 * torch.log10(signal / noise))


def worst(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> float:
    """The smallest SQNR among the outputs that both have; NaN where they have none in common."""
    return min((sqnr(expected[name], found[name]) for name in expected if name in found), default=float("nan"))

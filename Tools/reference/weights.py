"""Weights that are spread as trained ones are, the same for the same seed on every machine.

A fresh BEiT-3 is no test: its head is scaled by 0.001, so every logit is nearly zero, and its matrices are all alike. Here
each matrix has output and input channels of different scale, each LayerNorm has a few channels that stand out, biases are
not zero, and logits have a standard deviation of about two.

Every tensor is drawn from a generator of its own, seeded by the seed and the tensor's name: it does not depend on which
other tensors the model has, or on their order.
"""

from __future__ import annotations

import math
import zlib

import numpy as np

SPREAD = 0.3
"""Standard deviation of the logarithm of a channel's scale."""

# The root mean square of a matrix's output for an input of root mean square one, by the end of the matrix's name.
GAINS = {
    "vision_embed.proj.weight": 0.8,
    "patch_embed.proj.weight": 0.8,
    "q_proj.A.weight": 1.2,
    "q_proj.B.weight": 1.2,
    "k_proj.A.weight": 1.2,
    "k_proj.B.weight": 1.2,
    "head.3.weight": 3.0,
    "head.dense2.weight": 3.0,
    "mlm_head.weight": 2.0,
    "mim_head.weight": 2.0,
    "lm_head.weight": 2.0,
    "mlm_score.decoder.weight": 2.0,
    "itm_score.fc.weight": 3.0,
    "vqa_classifier.3.weight": 3.0,
    "nlvr2_classifier.3.weight": 3.0,
    "head.weight": 2.0,
    "attn.qkv.weight": 1.2,
    "language_head.weight": 1.0,
    "vision_head.weight": 1.0,
}

# Standard deviations of what is added up before the first layer, and of what is added to attention's scores.
EMBEDDINGS = {
    "text_embed.weight": 0.6,
    "mask_token": 0.5,
    "cls_token": 0.5,
    "embed_positions.A.weight": 0.2,
    "embed_positions.B.weight": 0.2,
    "pos_embed": 0.2,
    "word_embeddings.weight": 0.6,
    "position_embeddings.weight": 0.3,
    "token_type_embeddings.weight": 0.3,
    "relative_position_bias_table": 0.5,
}


def named(table: dict[str, float], name: str) -> float | None:
    """The entry of `table` for a tensor's name: the longest key that the name ends with."""
    keys = [key for key in table if name.endswith(key)]
    return table[max(keys, key=len)] if keys else None


def channel_scales(generator: np.random.Generator, count: int) -> np.ndarray:
    """Lognormal scales whose mean square is one."""
    scales = np.exp(generator.standard_normal(count) * SPREAD)
    return (scales / np.sqrt(np.mean(scales**2))).astype(np.float32)


def trained_like(name: str, shape: tuple[int, ...], layers: int, seed: int) -> np.ndarray:
    """One parameter of a model of `layers` layers, as float32."""
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name in ("logit_scale", "logit_vl_scale"):
        return np.full(shape, math.log(100), dtype=np.float32)
    deviation = named(EMBEDDINGS, name)
    if deviation is not None:
        rows = generator.standard_normal(shape, dtype=np.float32)
        rows *= channel_scales(generator, shape[-1]) * np.float32(deviation)
        return rows
    if name.endswith(("gamma", "gamma_1", "gamma_2")):  # A layer scale, from about 0.1 to 1.
        return np.exp(generator.standard_normal(shape, dtype=np.float32) * np.float32(0.5) - np.float32(1))
    if name.endswith(("q_bias", "v_bias")):
        return generator.standard_normal(shape, dtype=np.float32) * np.float32(0.2)
    if name.endswith(".bias"):
        return generator.standard_normal(shape, dtype=np.float32) * np.float32(0.05)
    if len(shape) == 1:
        weights = np.exp(generator.standard_normal(shape[0]) * 0.2)
        outliers = generator.choice(shape[0], size=max(1, shape[0] // 256), replace=False)
        weights[outliers] *= generator.uniform(3, 5, size=outliers.size)
        return weights.astype(np.float32)
    return matrix(generator, shape, gain(name, layers))


def gain(name: str, layers: int) -> float:
    """What a matrix does to the size of its input. Those that write to the residual stream keep its growth the same at
    any depth."""
    if any(part in name for part in ("out_proj.", "attn.proj.", ".fc2.")):
        return 0.5 * math.sqrt(12 / max(layers, 6))
    found = named(GAINS, name)
    return 1.0 if found is None else found


def matrix(generator: np.random.Generator, shape: tuple[int, ...], gain: float) -> np.ndarray:
    """A linear or convolution weight, output channels first."""
    rows, columns = shape[0], math.prod(shape[1:])
    weights = generator.standard_normal((rows, columns), dtype=np.float32)
    weights *= channel_scales(generator, rows)[:, None]
    weights *= channel_scales(generator, columns) * np.float32(gain / math.sqrt(columns))
    return weights.reshape(shape)

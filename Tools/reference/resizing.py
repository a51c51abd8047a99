"""What the originals do to position tables when the size of the image changes: four codes, four results.

| code | relative positions | absolute positions |
|---|---|---|
| unilm (BEiT, BEiT v2) | samples on a geometric grid, SciPy's `interp2d(kind="cubic")` | bicubic, no antialias |
| unilm (BEiT-3) | it has none | the same; rows 0, 1 (unused) and 2 (CLS) are kept |
| timm | samples on unilm's geometric grid, straight lines | bicubic, antialias |
| Hugging Face | `F.interpolate`, bilinear | bicubic, no antialias |
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import transformers
from scipy.interpolate import RectBivariateSpline
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from torch import Tensor, nn
from transformers.models.beit.modeling_beit import BeitRelativePositionBias
from transformers.models.vit.modeling_vit import ViTEmbeddings

from weights import trained_like

EXTRA_ROWS = 3
"""At the end of a table of relative positions: CLS to patch, patch to CLS, CLS to CLS."""


def geometric_grid(old: int, new: int) -> list[float]:
    """Where unilm's `run_class_finetuning.py` places the samples of a table, in steps of the new grid.

    The sample that is i patches away stands at 1 + q + … + qⁱ⁻¹, with q bisected in [1.01, 1.5] so that the last stands at the
    new grid's end. Where no q in that range reaches it, samples end before it or after it.
    """
    left, right = 1.01, 1.5
    while right - left > 1e-6:
        q = (left + right) / 2.0
        if (1.0 - q ** (old - 1)) / (1.0 - q) > new - 1:
            right = q
        else:
            left = q
    distances, distance = [], 1.0
    for step in range(1, old):
        distances.append(distance)
        distance += q**step
    return [-each for each in reversed(distances)] + [0.0] + distances


def interp2d_cubic(x: np.ndarray, y: np.ndarray, z: np.ndarray, new_x: np.ndarray, new_y: np.ndarray) -> np.ndarray:
    """What `scipy.interpolate.interp2d(x, y, z, kind="cubic")(new_x, new_y)` gave until SciPy 1.13.

    On a rectangular grid it called FITPACK's `regrid` with s = 0 on z transposed and evaluated with `bispev`
    (scipy 1.13.1, `interpolate/_interpolate.py`, `interp2d.__init__` and `__call__`): the tensor product of interpolating
    cubic splines whose second and second last samples are no knots. Points outside of the grid are moved to its edge.
    RectBivariateSpline calls the same two routines.
    """
    spline = RectBivariateSpline(x, y, np.asarray(z, dtype=np.float64).T, kx=3, ky=3, s=0)
    return spline(new_x, new_y).T


def unilm_table(table: Tensor, old: int, new: int) -> Tensor:
    """BEiT's table of relative positions, [(2·old−1)²+3, heads] to [(2·new−1)²+3, heads]."""
    grid = np.array(geometric_grid(old, new))
    target = np.arange(-(new - 1), new, dtype=np.float64)
    heads = []
    for column in table[:-EXTRA_ROWS].T:
        surface = column.reshape(2 * old - 1, 2 * old - 1).float().numpy()
        heads.append(torch.from_numpy(interp2d_cubic(grid, grid, surface, target, target).astype(np.float32)).flatten())
    return torch.cat([torch.stack(heads, dim=1), table[-EXTRA_ROWS:]])


def timm_table(table: Tensor, old: int, new: int) -> Tensor:
    rows = (2 * new - 1) ** 2 + EXTRA_ROWS
    return resize_rel_pos_bias_table(table, (new, new), (rows, table.shape[1]), (old, old))


def huggingface_table(table: Tensor, old: int, new: int) -> Tensor:
    """The table that transformers makes on the way to the scores: it is read back from the scores, where every row stands."""
    config = transformers.BeitConfig(image_size=old, patch_size=1, num_attention_heads=table.shape[1], hidden_size=table.shape[1])
    module = BeitRelativePositionBias(config)
    module.relative_position_bias_table = nn.Parameter(table, requires_grad=False)
    scores = module((new, new))[0].flatten(1).T
    resized = torch.full(((2 * new - 1) ** 2 + EXTRA_ROWS, table.shape[1]), float("nan"))
    resized[module.generate_relative_position_index((new, new)).flatten()] = scores
    return resized


def bicubic(rows: Tensor, old: int, new: int) -> Tensor:
    """unilm's way with a table [old², width]: bicubic without antialias."""
    grid = rows.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = nn.functional.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return grid.permute(0, 2, 3, 1).flatten(0, 2)


def unilm_positions(positions: Tensor, old: int, new: int) -> Tensor:
    """BEiT's `pos_embed`, [1, old²+1, width]."""
    return torch.cat([positions[:, :1], bicubic(positions[0, 1:], old, new)[None]], dim=1)


def beit3_positions(positions: Tensor, old: int, new: int) -> Tensor:
    """BEiT-3's `embed_positions.A.weight`, [old²+3, width]."""
    return torch.cat([positions[:3], bicubic(positions[3:], old, new)])


def timm_positions(positions: Tensor, old: int, new: int, *, prefix: int = 1) -> Tensor:
    return resample_abs_pos_embed(positions, [new, new], [old, old], num_prefix_tokens=prefix)


def huggingface_positions(positions: Tensor, old: int, new: int) -> Tensor:
    width = positions.shape[2]
    module = ViTEmbeddings(transformers.ViTConfig(image_size=old, patch_size=1, hidden_size=width))
    module.position_embeddings = nn.Parameter(positions, requires_grad=False)
    return module.interpolate_pos_encoding(torch.zeros(1, new * new + 1, width), new, new)


TABLES: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "unilm": unilm_table, "timm": timm_table, "huggingface": huggingface_table,
}
POSITIONS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "unilm": unilm_positions, "timm": timm_positions, "huggingface": huggingface_positions,
}


def resized_state(code: str, state: dict[str, Tensor], old: int, new: int) -> dict[str, Tensor]:
    """A state dict under timm's names, moved to another grid as one of the three codes does it."""
    tensors = dict(state)
    for name, tensor in state.items():
        if name.endswith("relative_position_bias_table"):
            tensors[name] = TABLES[code](tensor, old, new)
        elif name == "pos_embed" and tensor.shape[1] == old * old:
            tensors[name] = timm_positions(tensor, old, new, prefix=0)
        elif name == "pos_embed":
            tensors[name] = POSITIONS[code](tensor, old, new)
    return tensors


def goldens(steps: tuple[tuple[int, int], ...] = ((3, 5), (5, 3), (14, 24)), heads: int = 2, width: int = 3) -> dict[str, Tensor]:
    """Tables and what each code makes of them: `KIND.G3` is the input, `CODE.KIND.G3_to_G5` the output."""
    tensors: dict[str, Tensor] = {}
    for old, new in steps:
        table = drawn(f"G{old}.relative_position_bias_table", ((2 * old - 1) ** 2 + EXTRA_ROWS, heads))
        positions = drawn(f"G{old}.pos_embed", (1, old * old + 1, width))
        beit3 = drawn(f"G{old}.embed_positions.A.weight", (old * old + 3, width))
        step = f"G{old}_to_G{new}"
        tensors |= {f"table.G{old}": table, f"positions.G{old}": positions, f"beit3_positions.G{old}": beit3}
        tensors |= {f"{code}.table.{step}": resize(table, old, new) for code, resize in TABLES.items()}
        tensors |= {f"{code}.positions.{step}": resize(positions, old, new) for code, resize in POSITIONS.items()}
        tensors[f"unilm.beit3_positions.{step}"] = beit3_positions(beit3, old, new)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(trained_like(name, shape, layers=12, seed=40))

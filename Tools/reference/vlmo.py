"""VLMo in PyTorch, written from what unilm's `vlmo` computes, with the names of its released checkpoints.

    vlmo.py                                makes Tests/Fixtures/vlmo
    vlmo.py --original UNILM               the same outputs, from the original's own code, for comparison

`--original` imports `UNILM/vlmo` (a checkout of microsoft/unilm) with small stand-ins for pytorch_lightning, sacred and
timm's old module names, loads every fixture into it with `load_state_dict` and compares each output. What that checked, at
commit 768a3c87: joint, text-only and image-only passes with VL experts, both token types of NLVR2's images, the indices of
text, image and both, absolute positions without a bias table, models without layer scale, pooler and all heads, and that
every key of a fixture is one of the original's parameters or one of the buffers below.

`BertEmbeddings` is not unilm's: VLMo pins transformers 4.8.1, whose class adds word, token type 0 and, only where
`position_embedding_type` is "absolute", positions, then normalises with ε = 1e-12. So models with relative positions never
read `position_embeddings`. Later versions of transformers dropped that switch; `--original` uses a class with 4.8.1's
arithmetic.

Not checked, because no released file could be downloaded: the values of trained weights, and which buffers the
fine-tuned files hold. The log in microsoft/unilm#1256 lists the keys of `vlmo_base_patch16_224_stage2.pt`: a bare state
dict with `relative_position_index`, `text_relative_position_index` and `text_imag_relative_position_index`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

import weights
from make_inputs import make_inputs

FIXTURES = Path(__file__).resolve().parents[2] / "Tests" / "Fixtures" / "vlmo"


@dataclass(frozen=True)
class Configuration:
    """The sizes of a VLMo and its task: pretraining, text_pretraining, vqa, nlvr2, retrieval or features."""

    task: str
    width: int = 16
    layers: int = 4
    heads: int = 4
    ffn: int = 24
    patch: int = 8
    image_size: int = 24
    vocabulary: int = 100
    text_length: int = 8
    table_text_length: int = 10
    """What the original calls max_text_len_of_initckpt: the text length that the bias table has rows for."""
    vl_start: int = 2
    answers: int = 6
    relative: bool = True
    """Relative position bias; without it absolute positions and no layer scale, as in base_plus."""
    buffers: bool = True
    """Whether the checkpoint holds the index buffers."""

    @property
    def grid(self) -> int:
        return self.image_size // self.patch

    @property
    def image_rows(self) -> int:
        return (2 * self.grid - 1) ** 2 + 3


def image_index(grid: int) -> Tensor:
    """Row of the bias table for every pair of class token and patches, [1 + grid², 1 + grid²]."""
    side, rows = 2 * grid - 1, (2 * grid - 1) ** 2 + 3
    y, x = torch.arange(grid * grid) // grid, torch.arange(grid * grid) % grid
    index = torch.empty(grid * grid + 1, grid * grid + 1, dtype=torch.long)
    index[1:, 1:] = (y[:, None] - y[None, :] + grid - 1) * side + x[:, None] - x[None, :] + grid - 1
    index[0, :], index[:, 0], index[0, 0] = rows - 3, rows - 2, rows - 1
    return index


def text_index(length: int, table_length: int, image_rows: int) -> Tensor:
    """Row of the bias table for every pair of text tokens, [length, length]. Distances run the other way than in images."""
    rows = image_rows + 2 * table_length + 2
    place = torch.arange(length - 1)
    index = torch.empty(length, length, dtype=torch.long)
    index[1:, 1:] = place[None, :] - place[:, None] + table_length - 2 + image_rows + 2
    index[0, :], index[:, 0], index[0, 0] = rows - 3, rows - 2, rows - 1
    return index


def joint_index(text: Tensor, image: Tensor, image_rows: int) -> Tensor:
    """The index of text tokens followed by image tokens: one row for text that sees image, one for image that sees text."""
    seen_image = torch.full((len(text), len(image)), image_rows)
    seen_text = torch.full((len(image), len(text)), image_rows + 1)
    return torch.cat([torch.cat([text, seen_image], 1), torch.cat([seen_text, image], 1)], 0)


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, keep: Tensor, bias: Tensor | None) -> Tensor:
        batch, tokens, width = x.shape
        parts = F.linear(x, self.qkv.weight, torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias]))
        q, k, v = parts.view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        scores = q * (width // self.heads) ** -0.5 @ k.transpose(-2, -1)
        if bias is not None:
            scores = scores + bias
        scores = scores.masked_fill(~keep[:, None, None, :], -math.inf)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    """Attention for all tokens, then the feed-forward network of their modality, or one for both."""

    def __init__(self, c: Configuration, has_vl: bool):
        super().__init__()
        self.text_length, self.has_vl = c.text_length, has_vl
        self.norm1 = nn.LayerNorm(c.width, eps=1e-6)
        self.attn = Attention(c.width, c.heads)
        for name in ("text", "imag") + (("vl",) if has_vl else ()):
            setattr(self, f"norm2_{name}", nn.LayerNorm(c.width, eps=1e-6))
            setattr(self, f"mlp_{name}", Mlp(c.width, c.ffn))
        if c.relative:
            self.gamma_1, self.gamma_2 = nn.Parameter(torch.ones(c.width)), nn.Parameter(torch.ones(c.width))
        else:
            self.gamma_1 = self.gamma_2 = 1.0

    def feed(self, x: Tensor, expert: str) -> Tensor:
        return x + self.gamma_2 * getattr(self, f"mlp_{expert}")(getattr(self, f"norm2_{expert}")(x))

    def forward(self, x: Tensor, keep: Tensor, experts: str, bias: Tensor | None) -> Tensor:
        x = x + self.gamma_1 * self.attn(self.norm1(x), keep, bias)
        if experts != "vl":
            return self.feed(x, experts)
        if self.has_vl:
            return self.feed(x, "vl")
        return torch.cat([self.feed(x[:, : self.text_length], "text"), self.feed(x[:, self.text_length :], "imag")], 1)


class PatchEmbed(nn.Module):
    def __init__(self, c: Configuration):
        super().__init__()
        self.proj = nn.Conv2d(3, c.width, c.patch, c.patch)


class Transformer(nn.Module):
    def __init__(self, c: Configuration):
        super().__init__()
        self.patch_embed = PatchEmbed(c)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.width))
        self.pos_embed = None if c.relative else nn.Parameter(torch.zeros(1, c.grid**2 + 1, c.width))
        start = c.layers if c.task == "text_pretraining" else c.vl_start
        self.blocks = nn.ModuleList(Block(c, layer >= start) for layer in range(c.layers))
        self.norm = nn.LayerNorm(c.width, eps=1e-6)

    def embed(self, image: Tensor) -> Tensor:
        patches = self.patch_embed.proj(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(image), -1, -1), patches], 1)
        return x if self.pos_embed is None else x + self.pos_embed


class TextEmbeddings(nn.Module):
    """transformers 4.8.1's BertEmbeddings."""

    def __init__(self, c: Configuration):
        super().__init__()
        self.absolute = not c.relative
        self.word_embeddings = nn.Embedding(c.vocabulary, c.width)
        self.position_embeddings = nn.Embedding(c.text_length, c.width)
        self.token_type_embeddings = nn.Embedding(2, c.width)
        self.LayerNorm = nn.LayerNorm(c.width, eps=1e-12)
        self.register_buffer("position_ids", torch.arange(c.text_length)[None])

    def forward(self, ids: Tensor) -> Tensor:
        x = self.word_embeddings(ids) + self.token_type_embeddings.weight[0]
        if self.absolute:
            x = x + self.position_embeddings.weight
        return self.LayerNorm(x)


class Pooler(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.dense = nn.Linear(width, width)


class OneLayer(nn.Module):
    """ITMHead and ITCHead: a linear layer called `fc`."""

    def __init__(self, width: int, outputs: int, bias: bool):
        super().__init__()
        self.fc = nn.Linear(width, outputs, bias=bias)


class MaskedLanguage(nn.Module):
    """MLMHead: dense, GELU, LayerNorm, and a decoder with a bias beside it."""

    def __init__(self, c: Configuration):
        super().__init__()
        self.transform = nn.Module()
        self.transform.dense = nn.Linear(c.width, c.width)
        self.transform.LayerNorm = nn.LayerNorm(c.width, eps=1e-12)
        self.decoder = nn.Linear(c.width, c.vocabulary, bias=False)
        self.bias = nn.Parameter(torch.zeros(c.vocabulary))

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.transform.LayerNorm(F.gelu(self.transform.dense(x)))) + self.bias


def classifier(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, outputs))


class Model(nn.Module):
    """VLMo for one task."""

    def __init__(self, c: Configuration):
        super().__init__()
        self.configuration = c
        self.transformer = Transformer(c)
        if c.relative:
            image, rows = image_index(c.grid), c.image_rows
            text = text_index(c.text_length, c.table_text_length, rows)
            both = joint_index(text, image, rows)
            self.relative_position_bias_table = nn.Parameter(
                torch.zeros(rows + 2 * c.table_text_length + 2, c.heads * c.layers)
            )
            for name, index in (
                ("relative_position_index", image),
                ("text_relative_position_index", text),
                ("text_imag_relative_position_index", both),
            ):
                self.register_buffer(name, index, persistent=c.buffers)
        self.text_embeddings = TextEmbeddings(c)
        self.token_type_embeddings = nn.Embedding(3 if c.task == "nlvr2" else 2, c.width)
        self.pooler = Pooler(c.width)
        if c.task in ("pretraining", "text_pretraining"):
            self.mlm_score = MaskedLanguage(c)
        if c.task == "pretraining":
            self.itm_score = OneLayer(c.width, 2, bias=True)
        kinds = {"pretraining": ("", "vl_"), "retrieval": ("",)}.get(c.task, ())
        for kind in kinds:
            for modality in ("text", "image"):
                setattr(self, f"itc_{kind}{modality}_proj", OneLayer(c.width, c.width, bias=False))
            setattr(self, f"logit_{kind}scale", nn.Parameter(torch.tensor(0.0)))
        if c.task == "vqa":
            self.vqa_classifier = classifier(c.width, c.width * 2, c.answers)
        if c.task == "nlvr2":
            self.nlvr2_classifier = classifier(c.width * 2, c.width * 2, 2)

    def bias(self, index: str, layer: int) -> Tensor | None:
        """The bias of a layer, [heads, tokens, tokens]: its heads are a range of the table's columns."""
        if not self.configuration.relative:
            return None
        heads = self.configuration.heads
        columns = self.relative_position_bias_table[:, layer * heads : (layer + 1) * heads]
        return columns[getattr(self, index)].permute(2, 0, 1)

    def text(self, ids: Tensor) -> Tensor:
        return self.text_embeddings(ids) + self.token_type_embeddings.weight[0]

    def image(self, image: Tensor, kind: int = 1) -> Tensor:
        return self.transformer.embed(image) + self.token_type_embeddings.weight[kind]

    def encode(self, x: Tensor, keep: Tensor, index: str, experts: list[str]) -> Tensor:
        for layer, (block, expert) in enumerate(zip(self.transformer.blocks, experts, strict=True)):
            x = block(x, keep, expert, self.bias(index, layer))
        return self.transformer.norm(x)

    def joint(self, inputs: dict[str, Tensor], image: str = "image", kind: int = 1) -> Tensor:
        """Text tokens, then image tokens."""
        pixels = self.image(inputs[image], kind)
        keep = torch.cat([inputs["padding_mask"] == 0, torch.ones(pixels.shape[:2], dtype=torch.bool)], 1)
        x = torch.cat([self.text(inputs["text"]), pixels], 1)
        return self.encode(x, keep, "text_imag_relative_position_index", ["vl"] * self.configuration.layers)

    def alone(self, inputs: dict[str, Tensor], modality: str, start: int) -> Tensor:
        """One modality with its own experts up to layer `start` and VL experts from there on."""
        c = self.configuration
        if modality == "text":
            x, keep, index = self.text(inputs["text"]), inputs["padding_mask"] == 0, "text_relative_position_index"
        else:
            x, index = self.image(inputs["image"]), "relative_position_index"
            keep = torch.ones(x.shape[:2], dtype=torch.bool)
        expert = "text" if modality == "text" else "imag"
        return self.encode(x, keep, index, [expert] * start + ["vl"] * (c.layers - start))

    def pooled(self, x: Tensor) -> Tensor:
        return torch.tanh(self.pooler.dense(x[:, 0]))

    def contrast(self, inputs: dict[str, Tensor], kind: str, start: int) -> dict[str, Tensor]:
        result = {}
        for modality in ("text", "image"):
            project = getattr(self, f"itc_{kind}{modality}_proj").fc
            x = project(self.alone(inputs, modality, start)[:, 0])
            result[f"{modality}_{kind}embedding"] = x / x.norm(dim=-1, keepdim=True)
        return result

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs of the task, under the names that `multiway run` gives them."""
        c = self.configuration
        if c.task == "text_pretraining":
            return {"mlm_logits": self.mlm_score(self.alone(inputs, "text", c.layers))}
        if c.task == "retrieval":
            return self.contrast(inputs, "", c.layers)
        x = self.joint(inputs)
        if c.task == "features":
            return {"features": x, "pooled": self.pooled(x)}
        if c.task == "vqa":
            return {"logits": self.vqa_classifier(self.pooled(x))}
        if c.task == "nlvr2":
            second = self.joint(inputs, "image2", 2)
            return {"logits": self.nlvr2_classifier(torch.cat([self.pooled(x), self.pooled(second)], -1))}
        return {
            "mlm_logits": self.mlm_score(x[:, : c.text_length]),
            "itm_logits": self.itm_score.fc(self.pooled(x)),
            **self.contrast(inputs, "", c.layers),
            **self.contrast(inputs, "vl_", c.vl_start),
        }


def make_state(c: Configuration, seed: int) -> OrderedDict[str, Tensor]:
    """Weights that are spread as trained ones are, and the index buffers as they are."""
    return OrderedDict(
        (name, torch.from_numpy(weights.trained_like(name, tuple(value.shape), c.layers, seed)) if value.is_floating_point() else value)
        for name, value in Model(c).state_dict().items()
    )


def model_of(c: Configuration, state: OrderedDict[str, Tensor]) -> Model:
    model = Model(c)
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


CASES: dict[str, tuple[Configuration, str]] = {
    "pretraining": (Configuration("pretraining", width=32, ffn=36), "bare"),
    "text_pretraining": (Configuration("text_pretraining", table_text_length=8, layers=2), "bare"),
    "vqa": (Configuration("vqa", table_text_length=196, buffers=False, layers=2, vl_start=1), "state_dict"),
    "nlvr2": (Configuration("nlvr2", layers=2, vl_start=1), "module"),
    "retrieval": (Configuration("retrieval", layers=2, vl_start=1), "model"),
    "features": (Configuration("features", layers=2, vl_start=1), "bare"),
    "absolute": (Configuration("vqa", heads=2, relative=False, buffers=False, layers=2, vl_start=1), "state_dict"),
}
"""Each fixture: its configuration, and the key that its state dict lies under. `module` is DeepSpeed's, with `module.` before
every key."""

FIRST_SEED = 40
"""The seed of the first case; the others follow."""


def make_all_inputs() -> dict[str, Tensor]:
    """Two rows of everything that a case can read: all cases have the same image size, text length and vocabulary."""
    c = Configuration("features")
    arrays = make_inputs(
        images=2, texts=2, image_size=c.image_size, text_length=c.text_length, vocabulary=c.vocabulary, seed=4, second=True
    )
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def wrapped(state: OrderedDict[str, Tensor], wrapper: str) -> dict[str, Any]:
    """A checkpoint file's content: bare, or as Lightning or DeepSpeed saves it."""
    if wrapper == "bare":
        return state
    if wrapper == "module":
        return {"module": OrderedDict((f"module.{name}", tensor) for name, tensor in state.items()), "global_steps": 100}
    return {"epoch": 9, "global_step": 100, "pytorch-lightning_version": "1.5.5", wrapper: state}


def make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    inputs = make_all_inputs()
    save_file(inputs, folder / "inputs.safetensors")
    for seed, (name, (c, wrapper)) in enumerate(CASES.items(), start=FIRST_SEED):
        state = make_state(c, seed)
        results = {key: value.contiguous() for key, value in model_of(c, state)(inputs).items()}
        torch.save(wrapped(state, wrapper), folder / f"{name}.pth")
        save_file(results, folder / f"{name}_outputs.safetensors")
    files = list(folder.iterdir())
    print(f"{len(files)} files, {sum(file.stat().st_size for file in files):,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", type=Path, metavar="UNILM", help="compare with the original in this checkout")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.original is None:
        make(FIXTURES)
        return
    from vlmo_original import compare

    sys.exit(0 if compare(options.original, CASES) else 1)


if __name__ == "__main__":
    main()

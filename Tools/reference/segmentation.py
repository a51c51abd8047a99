"""Semantic segmentation with BEiT and UperNet: checkpoints in both layouts and what transformers computes for them.

    segmentation.py fixtures                               # Tests/Fixtures/tiny/segmentation, the same bytes each time
    segmentation.py model --size base --image-size 512 --out FOLDER
    segmentation.py compare FOLDER/outputs.safetensors LOGITS.safetensors [--name logits_unilm]

A model is a folder: `huggingface/` with config.json and model.safetensors, `mmseg.pth` with the same weights under the keys
of the released files, `inputs.safetensors`, and `outputs.safetensors` with the logits of the taps that each layout means.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import BeitConfig, BeitForSemanticSegmentation

from weights import trained_like

FIXTURES = Path(__file__).resolve().parents[2] / "Tests" / "Fixtures" / "tiny" / "segmentation"


@dataclass
class Size:
    width: int
    layers: int
    heads: int
    ffn: int
    image_size: int
    patch: int = 16
    classes: int = 150
    auxiliary: int = 256

    @property
    def grid(self) -> int:
        return self.image_size // self.patch

    @property
    def unilm_taps(self) -> list[int]:
        """After how many blocks unilm taps: [4, 6, 8, 12] of 12, [8, 12, 16, 24] of 24."""
        return [self.layers // 3, self.layers // 2, self.layers * 2 // 3, self.layers]

    @property
    def out_indices(self) -> list[int]:
        """What unilm's configurations call these taps, counting blocks from 0. transformers takes hidden_states[i - 1] for
        each i of them, which is the output after i - 1 blocks: [2, 4, 6, 10] of 12."""
        return [tap - 1 for tap in self.unilm_taps]

    @property
    def huggingface_taps(self) -> list[int]:
        return [index - 1 for index in self.out_indices]


SIZES = {
    "tiny": Size(width=16, layers=6, heads=2, ffn=24, image_size=96, classes=7, auxiliary=8),
    "base": Size(width=768, layers=12, heads=12, ffn=3072, image_size=512),
    "large": Size(width=1024, layers=24, heads=16, ffn=4096, image_size=512),
}


def shapes(size: Size) -> OrderedDict[str, tuple[int, ...]]:
    """Every floating-point key of a released file, in the order of the modules."""
    width, grid = size.width, size.grid
    result: OrderedDict[str, tuple[int, ...]] = OrderedDict()
    result["backbone.cls_token"] = (1, 1, width)
    result["backbone.patch_embed.proj.weight"] = (width, 3, size.patch, size.patch)
    result["backbone.patch_embed.proj.bias"] = (width,)
    for index in range(size.layers):
        block = f"backbone.blocks.{index}."
        result[block + "gamma_1"] = (width,)
        result[block + "gamma_2"] = (width,)
        for norm in ("norm1", "norm2"):
            result[block + norm + ".weight"] = (width,)
            result[block + norm + ".bias"] = (width,)
        result[block + "attn.q_bias"] = (width,)
        result[block + "attn.v_bias"] = (width,)
        result[block + "attn.relative_position_bias_table"] = ((2 * grid - 1) ** 2 + 3, size.heads)
        result[block + "attn.qkv.weight"] = (3 * width, width)
        for name, outputs, inputs in (
            ("attn.proj", width, width), ("mlp.fc1", size.ffn, width), ("mlp.fc2", width, size.ffn),
        ):
            result[block + name + ".weight"] = (outputs, inputs)
            result[block + name + ".bias"] = (outputs,)
    for name in ("fpn1.0", "fpn1.3", "fpn2.0"):
        result[f"backbone.{name}.weight"] = (width, width, 2, 2)
        result[f"backbone.{name}.bias"] = (width,)
    norms = ["backbone.fpn1.1"]

    def convolution(name: str, outputs: int, inputs: int, kernel: int) -> None:
        result[name + ".conv.weight"] = (outputs, inputs, kernel, kernel)
        norms.append(name + ".bn")

    for index in range(4):
        convolution(f"decode_head.psp_modules.{index}.1", width, width, 1)
    convolution("decode_head.bottleneck", width, 5 * width, 3)
    for index in range(3):
        convolution(f"decode_head.lateral_convs.{index}", width, width, 1)
        convolution(f"decode_head.fpn_convs.{index}", width, width, 3)
    convolution("decode_head.fpn_bottleneck", width, 4 * width, 3)
    convolution("auxiliary_head.convs.0", size.auxiliary, width, 3)
    for head, inputs in (("decode_head", width), ("auxiliary_head", size.auxiliary)):
        result[head + ".conv_seg.weight"] = (size.classes, inputs, 1, 1)
        result[head + ".conv_seg.bias"] = (size.classes,)
    for norm in norms:
        channels = size.auxiliary if norm.startswith("auxiliary") else width
        for name in ("weight", "bias", "running_mean", "running_var"):
            result[f"{norm}.{name}"] = (channels,)
    return result


def parameter(name: str, shape: tuple[int, ...], size: Size, seed: int) -> Tensor:
    """Weights as `weights.py` draws them; statistics of batch norms and biases of positions as training leaves them."""
    array = trained_like(name, shape, size.layers, seed)
    generator = np.random.default_rng([seed, len(name), shape[0]])
    if name.endswith("running_mean"):
        array = (generator.standard_normal(shape) * 0.3).astype(np.float32)
    elif name.endswith("running_var"):
        array = np.exp(generator.standard_normal(shape) * 0.5).astype(np.float32)
    elif name.endswith("relative_position_bias_table"):
        array = (generator.standard_normal(shape) * 0.5).astype(np.float32)
    elif name.endswith(("q_bias", "v_bias")):
        array = (generator.standard_normal(shape) * 0.1).astype(np.float32)
    elif name.endswith(("gamma_1", "gamma_2")):
        array = (array * 0.4).astype(np.float32)
    elif ".fpn" in name and name.endswith("weight") and len(shape) == 4 and name.startswith("backbone"):
        # Inputs come first in a transposed convolution, and each output has one tap alone.
        array = array * np.float32(math.sqrt(shape[2] * shape[3]))
    elif name.endswith("conv_seg.weight"):
        array = array * np.float32(2)
    return torch.from_numpy(np.ascontiguousarray(array))


def relative_position_index(grid: int) -> Tensor:
    """The buffer that unilm stores: the row of the table for each pair of tokens, the class token first."""
    side = 2 * grid - 1
    rows, columns = np.divmod(np.arange(grid * grid), grid)
    index = np.empty((grid * grid + 1, grid * grid + 1), dtype=np.int64)
    index[1:, 1:] = (rows[:, None] - rows[None] + grid - 1) * side + columns[:, None] - columns[None] + grid - 1
    index[0, :], index[:, 0], index[0, 0] = side * side, side * side + 1, side * side + 2
    return torch.from_numpy(index)


def mmseg_state(size: Size, seed: int) -> OrderedDict[str, Tensor]:
    state = OrderedDict((name, parameter(name, shape, size, seed)) for name, shape in shapes(size).items())
    for name in list(state):
        if name.endswith("running_var"):
            state[name.replace("running_var", "num_batches_tracked")] = torch.tensor(160000)
        if name.endswith("relative_position_bias_table"):
            state[name.replace("bias_table", "index")] = relative_position_index(size.grid)
    return state


RENAMED = {
    "norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense", "gamma_1": "lambda_1", "gamma_2": "lambda_2",
    "attn.q_bias": "attention.attention.query.bias", "attn.v_bias": "attention.attention.value.bias",
    "attn.relative_position_bias_table":
        "attention.attention.relative_position_bias.relative_position_bias_table",
}


def huggingface_state(state: OrderedDict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the names of files that transformers writes."""
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        name = name.replace("conv_seg", "classifier").removeprefix("backbone.")
        if name.endswith("relative_position_index"):
            continue
        if name == "cls_token":
            name = "beit.embeddings.cls_token"
        elif name.startswith("patch_embed.proj"):
            name = name.replace("patch_embed.proj", "beit.embeddings.patch_embeddings.projection")
        elif name.startswith("blocks."):
            _, index, rest = name.split(".", 2)
            prefix = f"beit.encoder.layer.{index}."
            if rest == "attn.qkv.weight":
                for part, rows in zip(("query", "key", "value"), tensor.chunk(3)):
                    result[f"{prefix}attention.attention.{part}.weight"] = rows.contiguous()
                continue
            key = next(key for key in RENAMED if rest == key or rest.startswith(key + "."))
            name = prefix + RENAMED[key] + rest.removeprefix(key)
        result[name] = tensor
    return result


def configuration(size: Size) -> BeitConfig:
    return BeitConfig(
        hidden_size=size.width, num_hidden_layers=size.layers, num_attention_heads=size.heads,
        intermediate_size=size.ffn, image_size=size.image_size, patch_size=size.patch, num_labels=size.classes,
        layer_norm_eps=1e-6, use_relative_position_bias=True, use_mean_pooling=True, out_indices=size.out_indices,
        layer_scale_init_value=0.1, auxiliary_channels=size.auxiliary,
    )


def load(folder: Path) -> BeitForSemanticSegmentation:
    model, report = BeitForSemanticSegmentation.from_pretrained(folder, output_loading_info=True)
    problems = {kind: sorted(keys) for kind, keys in report.items() if keys}
    assert not problems, problems
    return model.eval().requires_grad_(False)


def logits(model: BeitForSemanticSegmentation, image: Tensor, taps: list[int]) -> Tensor:
    """What the model's own neck and head make of the outputs after so many blocks."""
    states = model.beit(image, output_hidden_states=True).hidden_states
    side = image.shape[-1] // model.config.patch_size
    maps = tuple(states[tap][:, 1:].transpose(1, 2).unflatten(2, (side, side)) for tap in taps)
    return model.decode_head(model.fpn(maps))


def make_model(size: Size, folder: Path, images: int, seed: int) -> None:
    state = mmseg_state(size, seed)
    huggingface = folder / "huggingface"
    huggingface.mkdir(parents=True, exist_ok=True)
    save_file(huggingface_state(state), huggingface / "model.safetensors", metadata={"format": "pt"})
    config = configuration(size).to_dict()
    config["architectures"] = ["BeitForSemanticSegmentation"]
    (huggingface / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    torch.save({"meta": {"CLASSES": [f"class {index}" for index in range(size.classes)]}, "state_dict": state},
               folder / "mmseg.pth")
    generator = np.random.default_rng([seed, 1])
    pixels = generator.standard_normal((images, 3, size.image_size, size.image_size), dtype=np.float32)
    image = torch.from_numpy(pixels)
    save_file({"image": image}, folder / "inputs.safetensors")
    model = load(huggingface)
    start = time.perf_counter()
    own = model(image).logits
    print(f"transformers: {time.perf_counter() - start:.2f} s for {images} images, logits {tuple(own.shape)}, "
          f"standard deviation {own.std():.2f}")
    assert torch.equal(own, logits(model, image, size.huggingface_taps))
    unilm = logits(model, image, size.unilm_taps)
    save_file({"logits_huggingface": own, "logits_unilm": unilm}, folder / "outputs.safetensors")


def feature_maps(path: Path) -> None:
    """PyTorch's own answers for every operation on feature maps; `Tests/MultiwayReferenceTests` reads the cases by name."""
    generator = torch.Generator().manual_seed(5)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    values: dict[str, Tensor] = {}
    x = values["x"] = noise(2, 8, 5, 7)
    for kernel in (1, 3, 5):
        weight = values[f"convolution_{kernel}.weight"] = noise(6, 8, kernel, kernel)
        bias = values[f"convolution_{kernel}.bias"] = noise(6)
        values[f"convolution_{kernel}"] = functional.conv2d(x, weight, bias, padding=kernel // 2)
    weight = values["transposed.weight"] = noise(8, 3, 2, 2)
    bias = values["transposed.bias"] = noise(3)
    values["transposed"] = functional.conv_transpose2d(x, weight, bias, stride=2)
    values["max_pool"] = functional.max_pool2d(x, 2, 2)
    for bins in (1, 2, 3, 6, 9):
        values[f"average_pool_{bins}"] = functional.adaptive_avg_pool2d(x, bins)
    for height, width in ((10, 14), (3, 2), (5, 9), (1, 1), (23, 17)):
        values[f"resize_{height}_{width}"] = functional.interpolate(
            x, size=(height, width), mode="bilinear", align_corners=False)
    norm = nn.BatchNorm2d(6).eval()
    for name, tensor in (("weight", noise(6)), ("bias", noise(6)), ("running_mean", noise(6)),
                         ("running_var", noise(6).exp())):
        getattr(norm, name).data = tensor
        values[f"batch_norm.{name}"] = tensor
    with torch.no_grad():
        values["batch_norm"] = norm(values["convolution_3"])
    save_file({name: tensor.contiguous() for name, tensor in values.items()}, path)


def compare(reference: Path, candidate: Path, name: str) -> None:
    expected, found = load_file(reference)[name].double(), load_file(candidate)["logits"].double()
    assert expected.shape == found.shape, (expected.shape, found.shape)
    quality = 10 * torch.log10(expected.square().sum() / (expected - found).square().sum()).item()
    classes = (expected.argmax(1) == found.argmax(1)).double().mean().item()
    print(f"{quality:.1f} dB, {classes:.4%} of positions with the same class")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fixtures")
    model = commands.add_parser("model")
    model.add_argument("--size", choices=list(SIZES), default="base")
    model.add_argument("--image-size", type=int)
    model.add_argument("--images", type=int, default=1)
    model.add_argument("--seed", type=int, default=0)
    model.add_argument("--out", type=Path, required=True)
    comparison = commands.add_parser("compare")
    comparison.add_argument("reference", type=Path)
    comparison.add_argument("candidate", type=Path)
    comparison.add_argument("--name", default="logits_huggingface")
    arguments = parser.parse_args()
    if arguments.command == "fixtures":
        # The order of a sum depends on how many threads share it.
        torch.set_num_threads(1)
        make_model(SIZES["tiny"], FIXTURES, images=2, seed=7)
        # The names that transformers 5 has in memory.
        load(FIXTURES / "huggingface").save_pretrained(FIXTURES / "huggingface5", save_original_format=False)
        feature_maps(FIXTURES / "feature_maps.safetensors")
    elif arguments.command == "model":
        size = SIZES[arguments.size]
        if arguments.image_size:
            size.image_size = arguments.image_size
        make_model(size, arguments.out, arguments.images, arguments.seed)
    else:
        compare(arguments.reference, arguments.candidate, arguments.name)


if __name__ == "__main__":
    with torch.no_grad():
        main()

"""Opens a file or directory in any of the three key layouts as the module of the code base that the layout belongs to, strictly."""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from timm.models.beit import gen_relative_position_index
from torch import Tensor

import beit3
import checkpoints
import family
import layouts
from family import Configuration

Run = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""A model that is open: inputs and outputs by the names of `multiway run`."""

LAYOUTS = ("unilm", "timm", "huggingface")
PREFIXES = {"beit": "beit.", "vit": "vit.", "data2vec": "data2vec_vision."}


def read(path: Path) -> dict[str, Tensor]:
    """The state dict of a file, or of a directory's model file."""
    if path.is_dir():
        whole, pickled = path / "model.safetensors", path / "pytorch_model.bin"
        path = whole if whole.exists() else pickled
    if path.suffix == ".safetensors":
        return load_file(path)
    return dict(checkpoints.unwrap(torch.load(path, map_location="cpu", weights_only=False, mmap=True)))


def open_strictly(path: Path, layout: str, heads: int | None = None, epsilon: float | None = None) -> Run:
    """The module with this file's tensors. Raises where one is missing, left over or has another shape."""
    state = read(path)
    if layout == "huggingface":
        return open_huggingface(path, state, heads, epsilon)
    if any(name.startswith("beit3.") for name in state):
        return open_beit3(path, state, heads)
    configuration = configuration_of(state, heads, epsilon)
    if layout == "unilm":
        state = without_index_buffers(configuration, state)
    elif any("relative_position_index" in name or name == "mask_token" for name in state):
        raise ValueError(f"{path} has buffers or a mask token: timm has no place for them")
    family.timm_oracle(configuration, state)  # Now, so that what does not load is an error of opening.
    return lambda inputs: family.run(configuration, state, inputs["image"])


def open_beit3(path: Path, state: Mapping[str, Tensor], heads: int | None) -> Run:
    """The whole BEiT-3 in torchscale; or, where a file lacks the text half, a model whose text half is zero."""
    model = checkpoints.model_of(state, heads or state["beit3.vision_embed.proj.weight"].shape[0] // 64)
    required = beit3.REQUIRED_INPUTS.get(model.configuration.task, ())

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        missing = [name for name in required if name not in inputs]
        if missing:
            raise ValueError(f"{path} needs {' and '.join(missing)}")
        with torch.inference_mode():
            return {name: value.contiguous() for name, value in model(dict(inputs)).items()}

    return run


def without_index_buffers(configuration: Configuration, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of unilm's without its buffers: there must be one for every table, and each must be the right one."""
    expected = layouts.unilm(configuration, {name: t for name, t in state.items() if "relative_position_index" not in name})
    if expected.keys() != state.keys():
        raise ValueError(f"index buffers are missing or left over: {sorted(expected.keys() ^ state.keys())}")
    index = gen_relative_position_index((configuration.grid, configuration.grid))
    wrong = [name for name, tensor in state.items() if "relative_position_index" in name and not torch.equal(tensor, index)]
    if wrong:
        raise ValueError(f"index buffers with other values: {wrong}")
    return {name: tensor for name, tensor in state.items() if "relative_position_index" not in name}


def open_huggingface(path: Path, state: Mapping[str, Tensor], heads: int | None, epsilon: float | None) -> Run:
    """transformers' module. A bare file is opened beside a config.json that its shapes imply."""
    if path.is_dir():
        kind = getattr(transformers, json.loads((path / "config.json").read_text())["architectures"][0])
        model = layouts.load_huggingface(path, kind, **pooler_option(kind, state))
    else:
        # transformers 5 takes the layer norm's epsilon of the hub's configurations for granted.
        configuration = configuration_of(canonical(state), heads, epsilon or 1e-12, architecture_of(state))
        kind = layouts.huggingface_class(configuration)
        with tempfile.TemporaryDirectory() as folder:
            layouts.huggingface_configuration(configuration).save_pretrained(folder)
            shutil.copyfile(path, Path(folder) / "model.safetensors")
            model = layouts.load_huggingface(Path(folder), kind, **pooler_option(kind, state))
    return lambda inputs: layouts.run_huggingface(model, inputs["image"])


def pooler_option(kind: type[transformers.PreTrainedModel], state: Mapping[str, Tensor]) -> dict[str, bool]:
    """Headless models are built with or without a pooler."""
    if kind not in (transformers.BeitModel, transformers.ViTModel, transformers.Data2VecVisionModel):
        return {}
    return {"add_pooling_layer": any(name.startswith("pooler.") for name in state)}


def architecture_of(state: Mapping[str, Tensor]) -> str:
    """The architecture of a file in Hugging Face's layout. A headless one has no prefix: ViT's keys have a bias, BEiT's not."""
    for architecture, prefix in PREFIXES.items():
        if any(name.startswith(prefix) for name in state):
            return architecture
    return "vit" if any(name.endswith("key.bias") for name in state) else "beit"


def canonical(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Hugging Face's tensors under timm's names, as far as shapes and presence tell a configuration; on disk alone."""
    rules = (
        (r"^(?:beit|vit|data2vec_vision)\.", ""),
        (r"^embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.", ""),
        (r"^encoder\.relative_position_bias", "rel_pos_bias"),
        (r"^encoder\.layer\.", "blocks."),
        (r"attention\.attention\.query\.weight$", "attn.qkv.weight"),
        (r"attention\.attention\.key\.bias$", "attn.qkv.bias"),
        (r"attention\.attention\.relative_position_bias", "attn"),
        (r"(\d\.)intermediate\.dense", r"\1mlp.fc1"),
        (r"\.lambda_", ".gamma_"),
        (r"^pooler\.layernorm", "fc_norm"),
        (r"^layernorm", "norm"),
        (r"^classifier", "head"),
    )
    tensors = {}
    for name, tensor in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        tensors[name] = tensor
    return tensors


def configuration_of(
    state: Mapping[str, Tensor], heads: int | None, epsilon: float | None, architecture: str | None = None
) -> Configuration:
    """The configuration that names and shapes under timm's names imply. No shape tells a ViT's heads: they have 64 channels
    unless `heads` says otherwise."""
    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    tables = [name for name in state if name.endswith("relative_position_bias_table")]
    if architecture is None:
        fused_bias = "blocks.0.attn.qkv.bias" in state
        architecture = "beit3" if "blocks.0.attn.norm.weight" in state else "vit" if fused_bias else "beit"
    head = "pretrained" if "lm_head.weight" in state else "classification" if "head.weight" in state else "features"
    found = Configuration(
        architecture=architecture,
        head=head,
        width=width,
        layers=1 + max(int(match[1]) for match in (re.match(r"blocks\.(\d+)\.", name) for name in state) if match),
        heads=state[tables[0]].shape[1] if tables else heads or max(width // 64, 1),
        ffn=state["blocks.0.mlp.fc1.weight"].shape[0],
        patch=patch,
        classes=state["head.weight"].shape[0] if head == "classification" else 0,
        visual_codes=state["lm_head.weight"].shape[0] if head == "pretrained" else 0,
        mean_pooling=head != "pretrained" and not any(name.startswith("norm.") for name in state),
        positions="pos_embed" in state,
        block_bias=any(name.startswith("blocks.") for name in tables),
        shared_bias=any(name.startswith("rel_pos_bias.") for name in tables),
        layer_scale=any(name.startswith(("blocks.0.gamma_", "blocks.0.ls1")) for name in state),
        pooler="pooler.dense.weight" in state,
        epsilon=epsilon or (1e-5 if architecture == "beit3" else 1e-6),
    )
    if tables:
        side = (math.isqrt(state[tables[0]].shape[0] - 3) + 1) // 2
        return replace(found, image_size=side * patch)
    rows = state["pos_embed"].shape[1]
    side = math.isqrt(rows)
    return replace(found, image_size=side * patch, positions_for_class=side * side != rows)

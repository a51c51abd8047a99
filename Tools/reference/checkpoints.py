"""Reads and writes checkpoints in the layout of the released files."""

from __future__ import annotations

import argparse
import math
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import beit3
import family

WRAPPERS = ("model", "module", "state_dict")


def unwrap(checkpoint: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The state dict inside a checkpoint, looked up as unilm's loader does."""
    for key in WRAPPERS:
        if key in checkpoint and isinstance(checkpoint[key], Mapping):
            return checkpoint[key]
    return checkpoint


def task_of(names: set[str]) -> str:
    """The task that a state dict was trained for, from the names of its head."""
    if "fc_norm.weight" in names:
        return "classification"
    if "pooler.dense.weight" in names:
        return "vqa"
    if "head.dense1.weight" in names:
        return "nlvr2"
    if "mim_head.weight" in names:
        return "pretraining"
    if "mlm_head.weight" in names:
        return "captioning"
    if "vision_head.weight" in names:
        return "retrieval"
    return "features"


def heads_of(checkpoint: Mapping[str, Any]) -> int | None:
    """The number of attention heads according to the training arguments; no tensor tells it."""
    arguments = checkpoint.get("args")
    if not isinstance(arguments, argparse.Namespace):
        return None
    if hasattr(arguments, "encoder_attention_heads"):
        return int(arguments.encoder_attention_heads)
    for size in beit3.SIZES.values():
        if str(getattr(arguments, "model", "")).startswith(size.name + "_"):
            return size.heads
    return None


def configuration_of(state: Mapping[str, Tensor], heads: int) -> beit3.Configuration:
    """The configuration that a state dict's shapes imply. A file without its text half gets a text half of one row."""
    task = task_of(set(state))
    width, _, patch, _ = state["beit3.vision_embed.proj.weight"].shape
    rows = state["beit3.encoder.embed_positions.A.weight"].shape[0]
    layers = 1 + max(int(m[1]) for m in (re.match(r"beit3\.encoder\.layers\.(\d+)\.", name) for name in state) if m)
    text_embed = state.get("beit3.text_embed.weight")
    text_positions = state.get("beit3.encoder.embed_positions.B.weight")
    last = {"classification": "head.weight", "vqa": "head.3.weight", "nlvr2": "head.dense2.weight"}.get(task)
    return beit3.Configuration(
        width=width,
        layers=layers,
        heads=heads,
        ffn=state["beit3.encoder.layers.0.ffn.A.fc1.weight"].shape[0],
        patch=patch,
        image_size=math.isqrt(rows - 3) * patch,
        visual_codes=state["mim_head.weight"].shape[0] if task == "pretraining" else 0,
        vocabulary=1 if text_embed is None else text_embed.shape[0],
        text_positions=3 if text_positions is None else text_positions.shape[0],
        task=task,
        classes=state[last].shape[0] if last else 0,
        name="beit3_custom",
    )


def is_text_half(name: str) -> bool:
    """Whether a parameter serves text alone."""
    return ".B." in name or name == "beit3.text_embed.weight"


def load(path: Path, heads: int | None = None) -> beit3.Model:
    """Opens a checkpoint in the released layout as an fp32 model, ready to run."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=False, mmap=zipfile.is_zipfile(path))
    heads = heads or heads_of(checkpoint)
    if heads is None:
        raise ValueError("no training arguments tell the number of attention heads; give --heads")
    return model_of(unwrap(checkpoint), heads)


def model_of(state: Mapping[str, Tensor], heads: int) -> beit3.Model:
    """The fp32 model of a state dict, which may lack the text half."""
    with torch.device("meta"):
        model = beit3.Model(configuration_of(state, heads))
    tensors = {name: tensor.float() for name, tensor in state.items()}
    for name, parameter in model.state_dict().items():
        if name not in tensors and (is_text_half(name) or name == "beit3.vision_embed.mask_token"):
            tensors[name] = torch.zeros(parameter.shape)
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.eval().requires_grad_(False)


TRAINING_ARGUMENTS: dict[str, Any] = {
    "drop_path": 0.15,
    "checkpoint_activations": None,
    "sentencepiece_model": "beit3.spm",
    "num_max_bpe_tokens": 64,
    "model_ema": False,
    "model_ema_decay": 0.9999,
    "opt": "adamw",
    "opt_eps": 1e-8,
    "opt_betas": [0.9, 0.999],
    "clip_grad": None,
    "momentum": 0.9,
    "weight_decay": 0.05,
    "lr": 0.0005,
    "layer_decay": 0.65,
    "task_head_lr_weight": 0,
    "warmup_lr": 1e-06,
    "min_lr": 1e-06,
    "warmup_epochs": 5,
    "batch_size": 128,
    "epochs": 50,
    "update_freq": 1,
    "randaug": True,
    "train_interpolation": "bicubic",
    "finetune": "",
    "model_key": "model|module",
    "model_prefix": "",
    "device": "cuda",
    "seed": 0,
    "eval": False,
    "world_size": 8,
    "distributed": True,
}


def training_arguments(configuration: beit3.Configuration, **extra: Any) -> argparse.Namespace:
    """The `args` that training leaves in a checkpoint: plain values, a path and a NumPy scalar among them."""
    values = dict(
        TRAINING_ARGUMENTS,
        model=configuration.model_name,
        task=beit3.UNILM_TASK_NAMES[configuration.task],
        input_size=configuration.image_size,
        vocab_size=configuration.vocabulary,
        nb_classes=configuration.classes,
        output_dir=Path("output") / configuration.model_name,
        best_accuracy=np.float64(0.0),
    )
    if not any(configuration.name == size.name for size in beit3.SIZES.values()):
        values["encoder_attention_heads"] = configuration.heads
    return argparse.Namespace(**{**values, **extra})


def family_arguments(configuration: family.Configuration) -> argparse.Namespace:
    """The `args` that unilm's fine-tuning and pretraining of BEiT leave in a checkpoint."""
    values = dict(
        TRAINING_ARGUMENTS,
        model=configuration.model_name,
        input_size=configuration.image_size,
        rel_pos_bias=configuration.block_bias or configuration.shared_bias,
        abs_pos_emb=configuration.positions,
        use_mean_pooling=configuration.mean_pooling,
        layer_scale_init_value=0.1 if configuration.layer_scale else 0.0,
        nb_classes=configuration.classes,
        output_dir=Path("output") / configuration.model_name,
    )
    return argparse.Namespace(**values)


def wrap(
    state: Mapping[str, Tensor], configuration: beit3.Configuration, *, wrapper: str = "model", **options: Any
) -> dict[str, Any]:
    """A BEiT-3 checkpoint as training saves it. Options that `training_checkpoint` does not know go into `args`."""
    known = {name: options.pop(name) for name in ("optimizer", "moments", "epoch") if name in options}
    return training_checkpoint(state, training_arguments(configuration, **options), wrapper=wrapper, **known)


def training_checkpoint(
    state: Mapping[str, Tensor],
    arguments: argparse.Namespace,
    *,
    wrapper: str = "model",
    optimizer: bool = True,
    moments: tuple[Tensor, Tensor] | None = None,
    epoch: int = 49,
) -> dict[str, Any]:
    """A checkpoint as training saves it. `bare` is the state dict alone.

    The optimizer has an entry for the CLS token only: a reader meets everything that it would meet in a large one.
    """
    if wrapper == "bare":
        return OrderedDict(state)
    checkpoint: dict[str, Any] = {wrapper: OrderedDict(state)}
    if optimizer:
        first = next(tensor for name, tensor in state.items() if name.endswith("cls_token")).float()
        average, square = moments or (first * 1e-3, first.square() * 1e-6)
        checkpoint["optimizer"] = {
            "state": {0: {"step": torch.tensor(62550.0), "exp_avg": average, "exp_avg_sq": square}},
            "param_groups": [
                {
                    "weight_decay": 0.05,
                    "lr_scale": 1.0,
                    "lr": 1e-6,
                    "betas": (0.9, 0.999),
                    "eps": 1e-8,
                    "amsgrad": False,
                    "params": [0],
                }
            ],
        }
    checkpoint["epoch"] = epoch
    if wrapper == "model":
        checkpoint["scaler"] = {
            "scale": 65536.0,
            "growth_factor": 2.0,
            "backoff_factor": 0.5,
            "growth_interval": 2000,
            "_growth_tracker": 1278,
        }
    checkpoint["args"] = arguments
    return checkpoint

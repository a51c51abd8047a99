"""BEiT-3 in PyTorch: the oracle that everything else in this project is judged against.

The backbone is torchscale's own `BEiT3`, the implementation that the released checkpoints were trained with. Around it
stand the task heads of unilm's `modeling_finetune.py`, so that the state dict has the names of the released files.
"""

from __future__ import annotations

import argparse
import math
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchscale.architecture.config import EncoderConfig
from torchscale.model.BEiT3 import BEiT3

TASKS = ("classification", "vqa", "nlvr2", "captioning", "retrieval", "pretraining", "features")
"""Every head; `features` is the backbone alone."""

TASKS_WITHOUT_FINAL_NORM = ("classification", "vqa")
"""unilm builds these with `normalize_output=False`: their files hold no `beit3.encoder.layer_norm.*`."""

UNILM_TASK_NAMES = {
    "classification": "imagenet",
    "vqa": "vqav2",
    "nlvr2": "nlvr2",
    "captioning": "coco_captioning",
    "retrieval": "coco_retrieval",
    "pretraining": "pretraining",
    "features": "features",
}

DEFAULT_CLASSES = {"classification": 1000, "vqa": 3129, "nlvr2": 2}


@dataclass(frozen=True)
class Configuration:
    """Everything that decides the shape of a model."""

    width: int = 768
    layers: int = 12
    heads: int = 12
    ffn: int = 3072
    patch: int = 16
    image_size: int = 224
    vocabulary: int = 64010
    text_positions: int = 1024
    visual_codes: int = 8192
    """Rows of pretraining's `mim_head`: the codebook of BEiT-2's tokenizer."""
    task: str = "classification"
    classes: int = 1000
    name: str = "beit3_base"

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"task {self.task!r} is none of {', '.join(TASKS)}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        if self.image_size % self.patch:
            raise ValueError(f"image size {self.image_size} is not a multiple of patch {self.patch}")

    @property
    def patches(self) -> int:
        return (self.image_size // self.patch) ** 2

    @property
    def model_name(self) -> str:
        """The name that training would have stored in `args.model`."""
        suffix = UNILM_TASK_NAMES[self.task]
        return f"{self.name}_patch{self.patch}_{self.image_size}_{suffix}"

    def encoder_config(self) -> EncoderConfig:
        return EncoderConfig(
            img_size=self.image_size,
            patch_size=self.patch,
            vocab_size=self.vocabulary,
            multiway=True,
            layernorm_embedding=False,
            normalize_output=self.task not in TASKS_WITHOUT_FINAL_NORM,
            no_output_layer=True,
            encoder_embed_dim=self.width,
            encoder_attention_heads=self.heads,
            encoder_ffn_embed_dim=self.ffn,
            encoder_layers=self.layers,
            max_source_positions=self.text_positions,
            layernorm_eps=1e-5,
        )


SIZES = {
    "base": Configuration(),
    "large": Configuration(width=1024, layers=24, heads=16, ffn=4096, name="beit3_large"),
    "giant": Configuration(width=1408, layers=40, heads=16, ffn=6144, patch=14, name="beit3_giant"),
}


class Pooler(nn.Module):
    """VQA's pooler: the vision CLS row, normalised, through one tanh layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dense = nn.Linear(width, width)

    def forward(self, sequence: Tensor) -> Tensor:
        return torch.tanh(self.dense(self.norm(sequence[:, 0])))


class TwoLayerMLP(nn.Module):
    """NLVR2's head."""

    def __init__(self, width: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.dense1 = nn.Linear(width, hidden)
        self.norm2 = nn.LayerNorm(hidden)
        self.dense2 = nn.Linear(hidden, classes)

    def forward(self, rows: Tensor) -> Tensor:
        rows = self.norm2(self.dense1(self.norm1(rows)))
        return self.dense2(nn.functional.gelu(rows))


class Model(nn.Module):
    """A backbone and one task head, under the released key names.

    `forward` takes and returns tensors by the names of the command line's contract: `image`, `image2`, `text` and
    `padding_mask` in; `logits`, `features`, `image_embedding` and `text_embedding` out.
    """

    def __init__(self, configuration: Configuration) -> None:
        super().__init__()
        width, classes, vocabulary = configuration.width, configuration.classes, configuration.vocabulary
        self.configuration = configuration
        task = configuration.task
        if task == "retrieval":
            self.logit_scale = nn.Parameter(torch.ones([]) * math.log(1 / 0.07))
        self.beit3 = BEiT3(configuration.encoder_config())
        if task == "classification":
            self.fc_norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, classes)
        elif task == "vqa":
            self.pooler = Pooler(width)
            self.head = nn.Sequential(
                nn.Linear(width, width * 2), nn.LayerNorm(width * 2), nn.GELU(), nn.Linear(width * 2, classes)
            )
        elif task == "nlvr2":
            self.head = TwoLayerMLP(width * 4, width * 2, classes)
        elif task == "captioning":
            self.mlm_head = nn.Linear(width, vocabulary)
        elif task == "retrieval":
            self.language_head = nn.Linear(width, width, bias=False)
            self.vision_head = nn.Linear(width, width, bias=False)
        elif task == "pretraining":
            self.mlm_head = nn.Linear(width, vocabulary)
            self.mim_head = nn.Linear(width, configuration.visual_codes)

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return getattr(self, f"_{self.configuration.task}")(
            inputs.get("image"), inputs.get("text"), inputs.get("padding_mask"), inputs.get("image2")
        )

    def encode(
        self, image: Tensor | None, text: Tensor | None, padding: Tensor | None, mask: Tensor | None = None
    ) -> Tensor:
        """The backbone: every row of the joint sequence, vision first."""
        if text is None:
            padding = None
        return self.beit3(
            textual_tokens=text, visual_tokens=image, text_padding_position=padding, attn_mask=mask
        )["encoder_out"]

    def _classification(self, image, text, padding, image2) -> dict[str, Tensor]:
        sequence = self.encode(image, None, None)
        pooled = sequence[:, 1:].mean(1)
        return {"logits": self.head(self.fc_norm(pooled))}

    def _vqa(self, image, text, padding, image2) -> dict[str, Tensor]:
        return {"logits": self.head(self.pooler(self.encode(image, text, padding)))}

    def _nlvr2(self, image, text, padding, image2) -> dict[str, Tensor]:
        both = self.encode(
            torch.cat([image, image2]),
            torch.cat([text, text]),
            None if padding is None else torch.cat([padding, padding]),
        )
        rows = torch.cat([both[:, 0], both[:, self.configuration.patches + 1]], dim=-1)
        first, second = rows.chunk(2)
        return {"logits": self.head(torch.cat([first, second], dim=-1))}

    def _captioning(self, image, text, padding, image2) -> dict[str, Tensor]:
        vision, words = self.configuration.patches + 1, text.shape[1]
        hidden = torch.ones(vision + words, vision + words, dtype=torch.long)
        hidden[:, :vision] = 0
        hidden[vision:, vision:] = 1 - torch.tril(torch.ones(words, words, dtype=torch.long))
        return {"logits": self.mlm_head(self.encode(image, text, padding, mask=hidden)[:, vision:])}

    def _retrieval(self, image, text, padding, image2) -> dict[str, Tensor]:
        outputs = {}
        if image is not None:
            rows = self.vision_head(self.encode(image, None, None)[:, 0])
            outputs["image_embedding"] = nn.functional.normalize(rows, dim=-1)
        if text is not None:
            rows = self.language_head(self.encode(None, text, padding)[:, 0])
            outputs["text_embedding"] = nn.functional.normalize(rows, dim=-1)
        return outputs

    def _pretraining(self, image, text, padding, image2) -> dict[str, Tensor]:
        sequence = self.encode(image, text, padding)
        outputs = {"features": sequence}
        vision = 0 if image is None else self.configuration.patches + 1
        if image is not None:
            outputs["mim_logits"] = self.mim_head(sequence[:, 1:vision])
        if text is not None:
            outputs["mlm_logits"] = self.mlm_head(sequence[:, vision:])
        return outputs

    def _features(self, image, text, padding, image2) -> dict[str, Tensor]:
        return {"features": self.encode(image, text, padding)}


# MARK: every intermediate value

STREAMS = {"A": "vision", "B": "text"}


@contextmanager
def recorded(model: Model) -> Iterator[dict[str, Tensor]]:
    """While open, every intermediate value of `model` is kept under its name, taken from torchscale's own modules.

    A module that exists once for each modality is watched in both copies, so a value never has to be cut out of a
    joint sequence, except where torchscale only has the joint one: the input of the first layer and what layers return.
    """
    values: dict[str, Tensor] = {}
    handles = []
    encoder, width_of_vision = model.beit3.encoder, model.configuration.patches + 1

    def keep(name: str, value: Tensor) -> None:
        values[name] = value.detach().clone()

    def output(module: nn.Module, name: str) -> None:
        handles.append(module.register_forward_hook(lambda _m, _i, value: keep(name, value)))

    def input(module: nn.Module, name: str) -> None:
        handles.append(module.register_forward_pre_hook(lambda _m, arguments: keep(name, arguments[0])))

    def keep_streams(name: str, joint: Tensor, position: int) -> None:
        if position == -1:
            position = joint.shape[1]
        for stream, rows in (("vision", joint[:, :position]), ("text", joint[:, position:])):
            if rows.shape[1]:
                keep(name.format(stream), rows)

    def rows_of(name: str, like: str) -> None:
        """Gives a value that the feed-forward network flattened its batch dimension back."""
        if name in values:
            values[name] = values[name].unflatten(0, values[like].shape[:2])

    output(model.beit3.vision_embed.proj, "vision.patches")
    handles.append(
        encoder.layers[0].register_forward_pre_hook(
            lambda _m, arguments, named: keep_streams("{}.embedding", arguments[0], named["multiway_split_position"]),
            with_kwargs=True,
        )
    )
    for index, layer in enumerate(encoder.layers):
        attention = layer.self_attn
        for branch, stream in STREAMS.items():
            prefix = f"layers.{index}.{stream}"
            feed_forward = getattr(layer.ffn, branch)
            output(getattr(layer.self_attn_layer_norm, branch), f"{prefix}.attention_norm")
            output(getattr(attention.q_proj, branch), f"{prefix}.query")
            output(getattr(attention.k_proj, branch), f"{prefix}.key")
            output(getattr(attention.v_proj, branch), f"{prefix}.value")
            input(getattr(attention.inner_attn_ln, branch), f"{prefix}.attention")
            output(getattr(attention.inner_attn_ln, branch), f"{prefix}.attention_inner_norm")
            output(getattr(attention.out_proj, branch), f"{prefix}.attention_out")
            input(getattr(layer.final_layer_norm, branch), f"{prefix}.attention_residual")
            output(getattr(layer.final_layer_norm, branch), f"{prefix}.feed_forward_norm")
            output(feed_forward.fc1, f"{prefix}.feed_forward_in")
            input(feed_forward.ffn_layernorm, f"{prefix}.feed_forward_activation")
            output(feed_forward.ffn_layernorm, f"{prefix}.feed_forward_inner_norm")
            output(feed_forward.fc2, f"{prefix}.feed_forward_out")
        handles.append(
            layer.register_forward_hook(
                lambda _m, _a, named, value, index=index: keep_streams(
                    f"layers.{index}.{{}}.output", value[0], named["multiway_split_position"]
                ),
                with_kwargs=True,
            )
        )
    if encoder.layer_norm is not None:
        for branch, stream in STREAMS.items():
            output(getattr(encoder.layer_norm, branch), f"{stream}.final_norm")
    if model.configuration.task == "classification":
        input(model.fc_norm, "pooled")
        output(model.fc_norm, "pooled_norm")
    try:
        yield values
    finally:
        for handle in handles:
            handle.remove()
    if "vision.patches" in values:
        values["vision.patches"] = values["vision.patches"].flatten(2).transpose(1, 2)
    for index in range(model.configuration.layers):
        for stream in STREAMS.values():
            prefix = f"layers.{index}.{stream}"
            for name in ("in", "activation", "inner_norm", "out"):
                rows_of(f"{prefix}.feed_forward_{name}", like=f"{prefix}.feed_forward_norm")


# MARK: reading checkpoints

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
    for size in SIZES.values():
        if str(getattr(arguments, "model", "")).startswith(size.name + "_"):
            return size.heads
    return None


def configuration_of(state: Mapping[str, Tensor], heads: int) -> Configuration:
    """The configuration that a state dict's shapes imply. A file without its text half gets a text half of one row."""
    task = task_of(set(state))
    width, _, patch, _ = state["beit3.vision_embed.proj.weight"].shape
    rows = state["beit3.encoder.embed_positions.A.weight"].shape[0]
    layers = 1 + max(int(m[1]) for m in (re.match(r"beit3\.encoder\.layers\.(\d+)\.", name) for name in state) if m)
    text_embed = state.get("beit3.text_embed.weight")
    text_positions = state.get("beit3.encoder.embed_positions.B.weight")
    last = {"classification": "head.weight", "vqa": "head.3.weight", "nlvr2": "head.dense2.weight"}.get(task)
    return Configuration(
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


def load(path: Path, heads: int | None = None) -> Model:
    """Opens a checkpoint in the released layout as an fp32 model, ready to run."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=False, mmap=zipfile.is_zipfile(path))
    state = unwrap(checkpoint)
    heads = heads or heads_of(checkpoint)
    if heads is None:
        raise SystemExit(f"{path}: no training arguments tell the number of attention heads; give --heads")
    configuration = configuration_of(state, heads)
    with torch.device("meta"):
        model = Model(configuration)
    tensors = {name: tensor.float() for name, tensor in state.items()}
    for name, parameter in model.state_dict().items():
        if name not in tensors and (is_text_half(name) or name == "beit3.vision_embed.mask_token"):
            tensors[name] = torch.zeros(parameter.shape)
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.eval().requires_grad_(False)


# MARK: writing checkpoints

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


def training_arguments(configuration: Configuration, **extra: Any) -> argparse.Namespace:
    """The `args` that training leaves in a checkpoint: plain values, a path and a NumPy scalar among them."""
    import numpy

    values = dict(
        TRAINING_ARGUMENTS,
        model=configuration.model_name,
        task=UNILM_TASK_NAMES[configuration.task],
        input_size=configuration.image_size,
        vocab_size=configuration.vocabulary,
        nb_classes=configuration.classes,
        output_dir=Path("output") / configuration.model_name,
        best_accuracy=numpy.float64(0.0),
    )
    if not any(configuration.name == size.name for size in SIZES.values()):
        values["encoder_attention_heads"] = configuration.heads
    return argparse.Namespace(**{**values, **extra})


def wrap(
    state: Mapping[str, Tensor],
    configuration: Configuration,
    *,
    wrapper: str = "model",
    optimizer: bool = True,
    moments: tuple[Tensor, Tensor] | None = None,
    epoch: int = 49,
    **arguments: Any,
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
    checkpoint["args"] = training_arguments(configuration, **arguments)
    return checkpoint


# MARK: command line

def add_shape_options(parser: argparse.ArgumentParser) -> None:
    """The flags that choose a configuration: a size, and what to change in it."""
    parser.add_argument("--size", choices=[*SIZES, "custom"], default="base", help="the size to start from; custom starts from base under another name")
    parser.add_argument("--task", choices=TASKS, default="classification", help="the head")
    for name, meaning in (
        ("width", "hidden size"),
        ("layers", "encoder layers"),
        ("heads", "attention heads"),
        ("ffn", "inner size of the feed-forward network"),
        ("patch", "side of a patch in pixels"),
        ("image-size", "side of the image in pixels"),
        ("vocabulary", "rows of the text embedding"),
        ("text-positions", "rows of the text position table, the two unused ones included"),
        ("visual-codes", "outputs of the masked image head of pretraining"),
        ("classes", "outputs of the head"),
    ):
        parser.add_argument(f"--{name}", type=int, metavar="N", help=meaning)


def configuration_from(options: argparse.Namespace) -> Configuration:
    """The configuration that the flags of `add_shape_options` ask for."""
    fields = (
        "width", "layers", "heads", "ffn", "patch", "image_size", "vocabulary", "text_positions", "visual_codes", "classes",
    )
    given = {name: getattr(options, name) for name in fields if getattr(options, name) is not None}
    start = SIZES.get(options.size, SIZES["base"])
    resized = {"width", "layers", "heads", "ffn"} & set(given)
    name = "beit3_custom" if resized or options.size == "custom" else start.name
    classes = DEFAULT_CLASSES.get(options.task, 0)
    return replace(start, **{"task": options.task, "classes": classes, "name": name, **given})

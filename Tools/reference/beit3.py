"""BEiT-3 in PyTorch: the oracle that everything else in this project is judged against.

The backbone is torchscale's own `BEiT3`, the implementation that the released checkpoints were trained with. Around it
stand the task heads of unilm's `modeling_finetune.py`, so that the state dict has the names of the released files.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # torchscale imports timm by names that timm has moved.
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

REQUIRED_INPUTS = {
    "classification": ("image",),
    "vqa": ("image", "text"),
    "nlvr2": ("image", "image2", "text"),
    "captioning": ("image", "text"),
}
"""What a task cannot do without. The others take an image, a text or both."""

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
        return getattr(self, f"_{self.configuration.task}")(inputs)

    def encode(
        self,
        image: Tensor | None = None,
        text: Tensor | None = None,
        padding: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The backbone: every row of the joint sequence, vision first. `mask` has ones where attention may not look."""
        padding = None if text is None else padding
        outputs = self.beit3(textual_tokens=text, visual_tokens=image, text_padding_position=padding, attn_mask=mask)
        return outputs["encoder_out"]

    def encode_both(self, inputs: Mapping[str, Tensor], mask: Tensor | None = None) -> Tensor:
        return self.encode(inputs.get("image"), inputs.get("text"), inputs.get("padding_mask"), mask)

    def _features(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"features": self.encode_both(inputs)}

    def _classification(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        pooled = self.encode(inputs["image"])[:, 1:].mean(1)
        return {"logits": self.head(self.fc_norm(pooled))}

    def _vqa(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"logits": self.head(self.pooler(self.encode_both(inputs)))}

    def _nlvr2(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        padding = inputs.get("padding_mask")
        both = self.encode(
            torch.cat([inputs["image"], inputs["image2"]]),
            torch.cat([inputs["text"]] * 2),
            None if padding is None else torch.cat([padding] * 2),
        )
        rows = torch.cat([both[:, 0], both[:, self.configuration.patches + 1]], dim=-1)
        first, second = rows.chunk(2)
        return {"logits": self.head(torch.cat([first, second], dim=-1))}

    def _captioning(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        vision, words = self.configuration.patches + 1, inputs["text"].shape[1]
        mask = torch.ones(vision + words, vision + words, dtype=torch.long)
        mask[:, :vision] = 0
        mask[vision:, vision:].triu_(1)
        return {"logits": self.mlm_head(self.encode_both(inputs, mask)[:, vision:])}

    def _retrieval(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = {}
        if "image" in inputs:
            rows = self.vision_head(self.encode(inputs["image"])[:, 0])
            outputs["image_embedding"] = nn.functional.normalize(rows, dim=-1)
        if "text" in inputs:
            rows = self.language_head(self.encode(None, inputs["text"], inputs.get("padding_mask"))[:, 0])
            outputs["text_embedding"] = nn.functional.normalize(rows, dim=-1)
        return outputs

    def _pretraining(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        sequence = self.encode_both(inputs)
        outputs = {"features": sequence}
        vision = self.configuration.patches + 1 if "image" in inputs else 0
        if "image" in inputs:
            outputs["mim_logits"] = self.mim_head(sequence[:, 1:vision])
        if "text" in inputs:
            outputs["mlm_logits"] = self.mlm_head(sequence[:, vision:])
        return outputs

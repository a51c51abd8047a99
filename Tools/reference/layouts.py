"""The key layouts of BEiT, ViT and Data2VecVision, from timm's names (`family.py`) to unilm's and Hugging Face's.

Hugging Face's layout is written by transformers itself, so that the names in a directory are the hub's.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from timm.models.beit import gen_relative_position_index
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from family import Configuration, shapes, timm_model

TRAINING_ONLY = ("cls_pt_layers.0", "cls_pt_layers.1")
"""The two blocks that BEiT v2's pretraining has beside the encoder."""


def unilm(configuration: Configuration, state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """The state dict of a released file: with the index buffer after every table of relative positions."""
    index = gen_relative_position_index((configuration.grid, configuration.grid))
    tensors: OrderedDict[str, Tensor] = OrderedDict()
    for name, tensor in state.items():
        tensors[name] = tensor
        if name.endswith("relative_position_bias_table"):
            tensors[name.removesuffix("bias_table") + "index"] = index.clone()
    return tensors


def training_blocks(configuration: Configuration, state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """What BEiT v2's pretraining leaves beside the encoder: two further blocks. Inference has no use for them."""
    blocks = ((place, name, tensor) for place in TRAINING_ONLY for name, tensor in state.items())
    return OrderedDict(
        (name.replace("blocks.0", place), tensor * 0.5) for place, name, tensor in blocks if name.startswith("blocks.0.")
    )


def timm(state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """timm's file. It has no mask token."""
    return OrderedDict((name, tensor.contiguous()) for name, tensor in state.items() if name != "mask_token")


def beit3_timm(configuration: Configuration, state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """The vision half of a BEiT-3 checkpoint as timm's own loader renames it, in timm's order."""
    renamed = checkpoint_filter_fn(dict(state), timm_model(configuration))
    return OrderedDict((name, renamed[name].contiguous()) for name in shapes(configuration))


# The names of a block, then those outside of blocks, by pattern and replacement; {prefix} is the model's, {layer} a layer's.
BLOCK_NAMES = {
    r"attn\.proj\.": "attention.output.dense.",
    r"mlp\.fc1\.": "intermediate.dense.",
    r"mlp\.fc2\.": "output.dense.",
    r"norm1\.": "layernorm_before.",
    r"norm2\.": "layernorm_after.",
    r"gamma_(\d)$": r"lambda_\1",
    r"attn\.relative_position_(\w+)$": r"attention.attention.relative_position_bias.relative_position_\1",
}
OTHER_NAMES = {
    r"(cls_token|mask_token)$": r"{prefix}embeddings.\1",
    r"pos_embed$": "{prefix}embeddings.position_embeddings",
    r"patch_embed\.proj\.": "{prefix}embeddings.patch_embeddings.projection.",
    r"rel_pos_bias\.": "{prefix}encoder.relative_position_bias.",
    r"fc_norm\.": "{prefix}pooler.layernorm.",
    r"pooler\.": "{prefix}pooler.",
    r"head\.": "classifier.",
    r"lm_head\.": "lm_head.",
}


def huggingface(configuration: Configuration, state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """The names and tensors of a model on the hub."""
    prefix = {"beit": "beit.", "vit": "vit.", "data2vec": "data2vec_vision."}[configuration.architecture]
    prefix = "" if configuration.head == "features" else prefix
    final_norm = "layernorm." if configuration.head == "pretrained" else prefix + "layernorm."
    names = {**OTHER_NAMES, r"norm\.": final_norm}
    tensors: OrderedDict[str, Tensor] = OrderedDict()
    for name, tensor in state.items():
        block = re.match(r"blocks\.(\d+)\.(.+)", name)
        if block:
            for inner, part in block_tensors(block[2], tensor):
                tensors[f"{prefix}encoder.layer.{block[1]}.{inner}"] = part.contiguous()
        else:
            tensors[renamed(name, names).format(prefix=prefix)] = tensor.contiguous()
    return tensors


def block_tensors(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """A tensor of a block under Hugging Face's names: the fused projection is three there."""
    projections = ("query", "key", "value")
    if name in ("attn.qkv.weight", "attn.qkv.bias"):
        for projection, part in zip(projections, tensor.chunk(3)):
            yield f"attention.attention.{projection}.{name.rpartition('.')[2]}", part
    elif name in ("attn.q_bias", "attn.v_bias"):
        yield f"attention.attention.{'query' if name == 'attn.q_bias' else 'value'}.bias", tensor
    else:
        yield renamed(name, BLOCK_NAMES), tensor


def renamed(name: str, table: Mapping[str, str]) -> str:
    for pattern, replacement in table.items():
        if re.match(pattern, name):
            return re.sub("^" + pattern, replacement, name)
    raise ValueError(f"no Hugging Face name for {name}")


def huggingface_configuration(configuration: Configuration) -> transformers.PreTrainedConfig:
    """The config.json of a model."""
    c = configuration
    common = dict(
        hidden_size=c.width,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        intermediate_size=c.ffn,
        hidden_act="gelu",
        layer_norm_eps=c.epsilon,
        image_size=c.image_size,
        patch_size=c.patch,
        num_channels=3,
    )
    if c.head == "classification":
        common["id2label"] = {index: f"class {index}" for index in range(c.classes)}
    if c.architecture == "vit":
        return transformers.ViTConfig(**common)
    common.update(
        use_mask_token=c.head == "pretrained",
        use_absolute_position_embeddings=c.positions,
        use_relative_position_bias=c.block_bias,
        use_shared_relative_position_bias=c.shared_bias,
        layer_scale_init_value=0.1 if c.layer_scale else 0.0,
        # The pretrained files on the hub keep their norm outside the encoder, which then must not have one.
        use_mean_pooling=c.mean_pooling or c.head == "pretrained",
    )
    if c.architecture == "data2vec":
        return transformers.Data2VecVisionConfig(**common)
    return transformers.BeitConfig(**common, vocab_size=c.visual_codes)


def huggingface_class(configuration: Configuration) -> type[transformers.PreTrainedModel]:
    architecture, head = configuration.architecture, configuration.head
    return {
        ("beit", "classification"): transformers.BeitForImageClassification,
        ("beit", "pretrained"): transformers.BeitForMaskedImageModeling,
        ("beit", "features"): transformers.BeitModel,
        ("vit", "classification"): transformers.ViTForImageClassification,
        ("vit", "features"): transformers.ViTModel,
        ("data2vec", "classification"): transformers.Data2VecVisionForImageClassification,
        ("data2vec", "features"): transformers.Data2VecVisionModel,
    }[architecture, head]


def load_huggingface(folder: Path, kind: type[transformers.PreTrainedModel], **options: object) -> nn.Module:
    """A directory as transformers opens it, refusing what from_pretrained would only warn about."""
    with quietly():
        model, report = kind.from_pretrained(folder, output_loading_info=True, dtype=torch.float32, **options)
    problems = {kind: sorted(map(str, names)) for kind, names in report.items() if names}
    if problems:
        raise ValueError(f"{folder} does not load strictly: {problems}")
    return model.eval().requires_grad_(False)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without transformers' bars and notes about weights."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)


def huggingface_model(configuration: Configuration, state: Mapping[str, Tensor], *, pooler: bool = True) -> nn.Module:
    """transformers' module with these weights, opened strictly from a directory in the hub's layout."""
    config = huggingface_configuration(configuration)
    kind = huggingface_class(configuration)
    config.architectures = [kind.__name__]
    options = {"add_pooling_layer": pooler} if configuration.head == "features" else {}
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        tensors = huggingface(configuration, state)
        if not pooler:
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("pooler.")}
        save_file(tensors, Path(folder) / "model.safetensors", metadata={"format": "pt"})
        return load_huggingface(Path(folder), kind, **options)


def run_huggingface(model: nn.Module, image: Tensor, **options: bool) -> dict[str, Tensor]:
    """What transformers computes, by the names of `multiway run`."""
    with torch.inference_mode():
        outputs = model(pixel_values=image, **options)
    if isinstance(model, transformers.BeitForMaskedImageModeling):
        return {"mim_logits": outputs.logits.contiguous()}
    if hasattr(outputs, "logits"):
        return {"logits": outputs.logits.contiguous()}
    found = {"features": outputs.last_hidden_state.contiguous()}
    if outputs.pooler_output is not None:
        found["pooled"] = outputs.pooler_output.contiguous()
    return found


PREPROCESSOR = {
    "do_normalize": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
}


def save_huggingface(folder: Path, model: nn.Module, *, original_names: bool = True) -> None:
    """A directory as save_pretrained leaves it; with `original_names` false, under transformers 5's names in memory."""
    with quietly():
        model.save_pretrained(folder, save_original_format=original_names)
    kind = "BeitImageProcessor" if model.config.model_type != "vit" else "ViTImageProcessor"
    size = model.config.image_size
    preprocessor = {**PREPROCESSOR, "image_processor_type": kind, "size": {"height": size, "width": size}}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2, sort_keys=True) + "\n")



"""The vision transformers around BEiT-3: what decides their shape, their weights, and timm's forward pass as the oracle.

Every model is held under timm's names, which are those of unilm's BEiT files too; `layouts.py` knows the other layouts.
timm's `Beit` and `VisionTransformer` are loaded strictly, so a name or a shape that timm would not take is an error here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import timm.models.beit
import timm.models.vision_transformer
import torch
from torch import Tensor, nn

from weights import trained_like

ARCHITECTURES = ("beit", "vit", "data2vec", "beit3")
"""`beit3` is timm's form of BEiT-3's vision half; `data2vec` is Hugging Face's Data2VecVision, the graph of `beit`."""

HEADS = ("classification", "pretrained", "features")
"""`pretrained` predicts a visual code for every patch; `features` is the backbone alone."""


@dataclass(frozen=True)
class Configuration:
    """Everything that decides the shape of a model, and the numbers that no shape tells."""

    architecture: str = "beit"
    head: str = "classification"
    width: int = 768
    layers: int = 12
    heads: int = 12
    ffn: int = 3072
    patch: int = 16
    image_size: int = 224
    classes: int = 1000
    visual_codes: int = 8192
    mean_pooling: bool = True
    """The mean of the patches through `fc_norm`; else `norm` on every token, and the CLS token."""
    positions: bool = False
    """A table of absolute positions."""
    positions_for_class: bool = True
    """Whether that table has a row for the CLS token: DeiT-3's has not."""
    block_bias: bool = True
    """A table of relative positions in every block."""
    shared_bias: bool = False
    """A table of relative positions for all blocks. With `block_bias` too, both are added."""
    layer_scale: bool = True
    pooler: bool = False
    """ViT features with Hugging Face's tanh pooler."""
    epsilon: float = 1e-6
    stem: float = 1.0
    """What the patch projection and the CLS token are multiplied with: a small one makes the first norm's epsilon matter."""
    name: str = "beit_base"

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES or self.head not in HEADS:
            raise ValueError(f"{self.architecture!r} with head {self.head!r} is not known")
        if self.width % self.heads or self.image_size % self.patch:
            raise ValueError("the width must be a multiple of the heads, and the image of the patch")

    @property
    def grid(self) -> int:
        return self.image_size // self.patch

    @property
    def model_name(self) -> str:
        """The name that unilm's training would have stored in `args.model`."""
        return f"{self.name}_patch{self.patch}_{self.image_size}"

    @property
    def outputs(self) -> int:
        """Rows of the last linear layer; 0 where there is none."""
        return {"classification": self.classes, "pretrained": self.visual_codes, "features": 0}[self.head]


def timm_model(configuration: Configuration) -> nn.Module:
    """timm's module of this shape, with weights of its own making."""
    c = configuration
    common = dict(
        img_size=c.image_size,
        patch_size=c.patch,
        embed_dim=c.width,
        depth=c.layers,
        num_heads=c.heads,
        mlp_ratio=c.ffn / c.width,
        num_classes=c.outputs,
        global_pool="avg" if c.mean_pooling else "token",
        init_values=0.1 if c.layer_scale else None,
        norm_layer=partial(timm.layers.LayerNorm, eps=c.epsilon),
    )
    if c.architecture in ("beit", "data2vec"):
        return timm.models.beit.Beit(
            **common,
            use_abs_pos_emb=c.positions,
            use_rel_pos_bias=c.block_bias,
            use_shared_rel_pos_bias=c.shared_bias,
        )
    return timm.models.vision_transformer.VisionTransformer(
        **common,
        no_embed_class=not c.positions_for_class,
        scale_attn_norm=c.architecture == "beit3",
        scale_mlp_norm=c.architecture == "beit3",
    )


def shapes(configuration: Configuration) -> OrderedDict[str, tuple[int, ...]]:
    """The name and the shape of every parameter: timm's, and those of the pretrained files that timm has no place for."""
    with torch.device("meta"):
        found = timm_model(configuration).state_dict()
    parameters = OrderedDict((name, tuple(tensor.shape)) for name, tensor in found.items())
    if configuration.head == "pretrained":
        parameters = OrderedDict((name.replace("head.", "lm_head."), shape) for name, shape in parameters.items())
        parameters["mask_token"] = (1, 1, configuration.width)
    if configuration.pooler:
        parameters["pooler.dense.weight"] = (configuration.width, configuration.width)
        parameters["pooler.dense.bias"] = (configuration.width,)
    return parameters


def make_state(configuration: Configuration, seed: int) -> OrderedDict[str, Tensor]:
    """Trained-like weights for every parameter of `shapes`."""
    state: OrderedDict[str, Tensor] = OrderedDict()
    for name, shape in shapes(configuration).items():
        tensor = torch.from_numpy(trained_like(name, shape, configuration.layers, seed))
        if configuration.stem != 1 and (name == "cls_token" or name.startswith("patch_embed.")):
            tensor = tensor * configuration.stem
        state[name] = tensor
    return state


def timm_oracle(configuration: Configuration, state: Mapping[str, Tensor]) -> nn.Module:
    """timm's module with these weights, loaded strictly. What timm has no place for is the caller's: see `run`."""
    with torch.device("meta"):
        model = timm_model(configuration)
    tensors = {name.replace("lm_head.", "head."): tensor.float() for name, tensor in state.items()}
    for name in ("mask_token", "pooler.dense.weight", "pooler.dense.bias"):
        tensors.pop(name, None)
    model.load_state_dict(tensors, strict=True, assign=True)
    for module in model.modules():
        if hasattr(module, "init_non_persistent_buffers"):
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, torch.empty_like(buffer, device="cpu"))
            module.init_non_persistent_buffers()
    return model.eval().requires_grad_(False)


def run(configuration: Configuration, state: Mapping[str, Tensor], image: Tensor) -> dict[str, Tensor]:
    """What timm computes, by the names of `multiway run`; `pooled` is what follows the tokens of a headless model."""
    with torch.inference_mode():
        return outputs_of(configuration, state, timm_oracle(configuration, state), image)


def outputs_of(
    configuration: Configuration, state: Mapping[str, Tensor], model: nn.Module, image: Tensor
) -> dict[str, Tensor]:
    """The same of a module that is loaded."""
    tokens = model.forward_features(image)
    if configuration.head == "pretrained":
        return {"mim_logits": model.head(tokens[:, 1:]).contiguous()}
    if configuration.head == "classification":
        return {"logits": model.forward_head(tokens).contiguous()}
    if configuration.pooler:
        weight, bias = state["pooler.dense.weight"], state["pooler.dense.bias"]
        pooled = torch.tanh(nn.functional.linear(tokens[:, 0], weight, bias))
    else:
        pooled = model.forward_head(tokens).contiguous()
    return {"features": tokens.contiguous(), "pooled": pooled}

"""Runs unilm's own VLMo on the fixtures of vlmo.py and compares outputs: `vlmo.py --original UNILM`.

The original wants pytorch_lightning 1.5, timm 0.4.12 and transformers 4.8.1, none of which runs beside a current PyTorch.
What it takes from them is little, and stands in for them here: a base class with hyper-parameters, a registry that it only
writes to, and BERT's embeddings with the arithmetic of 4.8.1. Metrics and learning-rate schedules are left out.
"""

from __future__ import annotations

import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import vlmo


def install(**modules: dict[str, Any]) -> None:
    """Puts modules with these members where imports look first; `__` in a name is a dot."""
    for name, members in modules.items():
        module = types.ModuleType(name.replace("__", "."))
        module.__dict__.update(members)
        sys.modules[module.__name__] = module


class LightningModule(nn.Module):
    """What VLMo uses of a Lightning module: `save_hyperparameters` keeps the constructor's `config`."""

    def save_hyperparameters(self) -> None:
        config = sys._getframe(1).f_locals["config"]
        self.hparams = types.SimpleNamespace(config=config)


class BertEmbeddings(nn.Module):
    """transformers 4.8.1's arithmetic: positions are added only where they are absolute."""

    def __init__(self, config: Any):
        super().__init__()
        self.is_absolute = config.position_embedding_type == "absolute"
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.register_buffer("position_ids", torch.arange(config.max_position_embeddings).expand((1, -1)))

    def forward(self, input_ids: Tensor) -> Tensor:
        embeddings = self.word_embeddings(input_ids) + self.token_type_embeddings(torch.zeros_like(input_ids))
        if self.is_absolute:
            embeddings = embeddings + self.position_embeddings(self.position_ids[:, : input_ids.shape[1]])
        return self.LayerNorm(embeddings)


class BertConfig:
    """The defaults of BERT's configuration that VLMo relies on."""

    def __init__(self, **values: Any):
        self.__dict__.update(
            dict(pad_token_id=0, type_vocab_size=2, layer_norm_eps=1e-12, hidden_act="gelu", **values)
        )


class DropPath(nn.Identity):
    def __init__(self, _rate: float):
        super().__init__()


def original_class(unilm: Path) -> type[nn.Module]:
    """The original's VLMo, imported from a checkout."""
    from transformers.models.bert import modeling_bert

    sys.path.insert(0, str(unilm / "vlmo"))
    identity = dict(register_model=lambda function: function)
    layers = dict(DropPath=DropPath, to_2tuple=lambda x: (x, x), trunc_normal_=nn.init.trunc_normal_)
    install(
        pytorch_lightning=dict(LightningModule=LightningModule),
        pytorch_lightning__utilities={},
        pytorch_lightning__utilities__distributed=dict(rank_zero_info=lambda *_: None),
        timm={},
        timm__models=dict(create_model=create_transformer),
        timm__models__layers=layers,
        timm__models__registry=identity,
        vlmo__modules__vlmo_utils=dict(set_metrics=lambda _model: None),
        transformers__models__bert__modeling_bert=dict(
            BertConfig=BertConfig,
            BertEmbeddings=BertEmbeddings,
            BertPredictionHeadTransform=modeling_bert.BertPredictionHeadTransform,
        ),
    )
    # The package of the original has the name of our own module.
    sys.modules.pop("vlmo", None)
    from vlmo.modules.vlmo_module import VLMo

    # The original moves masks to where the image is, by a number that CPUs do not have.
    torch.Tensor.get_device = lambda _tensor: torch.device("cpu")
    return VLMo


def create_transformer(c: vlmo.Configuration, **arguments: Any) -> nn.Module:
    from vlmo.modules.multiway_transformer import MultiWayTransformer

    own = dict(img_size=c.image_size, drop_rate=0, drop_path_rate=0, attn_drop_rate=0, config=arguments["config"])
    return MultiWayTransformer(
        patch_size=c.patch, embed_dim=c.width, depth=c.layers, num_heads=c.heads, mlp_ratio=c.ffn / c.width,
        vlffn_start_layer_index=c.vl_start, use_abs_pos_emb=not c.relative, need_relative_position_embed=c.relative,
        layer_scale_init_values=0.1 if c.relative else None, **own,
    )


LOSSES = {
    "pretraining": ("itm", "itc", "mlm"), "text_pretraining": ("textmlm",), "vqa": ("vqa",), "nlvr2": ("nlvr2",),
    "retrieval": ("irtr",), "features": (),
}


def configuration(c: vlmo.Configuration) -> dict[str, Any]:
    names = ("itm", "itc", "mlm", "textmlm", "vqa", "nlvr2", "irtr")
    return dict(
        image_size=c.image_size, model_arch=c, drop_path_rate=0, vocab_size=c.vocabulary, max_text_len=c.text_length,
        max_text_len_of_initckpt=c.table_text_length, vqav2_label_size=c.answers, load_path="", test_only=False,
        loss_names={name: int(name in LOSSES[c.task]) for name in names},
    )


def outputs(model: nn.Module, c: vlmo.Configuration, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the original's objectives compute before they take a loss of it."""
    batch = {"text_ids": inputs["text"], "text_labels": None, "text_masks": (inputs["padding_mask"] == 0).long()}
    batch |= {"image_0": [inputs["image"]], "image_1": [inputs["image2"]]}
    if c.task == "text_pretraining":
        return {"mlm_logits": model.mlm_score(model.infer_text_mlm(batch)["text_feats"])}
    if c.task == "retrieval":
        image, text = model.infer_image_ft(batch), model.infer_text_ft(batch)
        return {"image_embedding": image["cls_feats"], "text_embedding": text["cls_feats"]}
    first = model.infer(batch)
    if c.task == "features":
        return {"features": torch.cat([first["text_feats"], first["image_feats"]], 1), "pooled": first["cls_feats"]}
    if c.task == "vqa":
        return {"logits": model.vqa_classifier(first["cls_feats"])}
    if c.task == "nlvr2":
        second = model.infer(batch, image_token_type_idx=2)
        return {"logits": model.nlvr2_classifier(torch.cat([first["cls_feats"], second["cls_feats"]], -1))}
    image, text = model.infer_image(batch), model.infer_text(batch)
    return {
        "mlm_logits": model.mlm_score(first["text_feats"]),
        "itm_logits": model.itm_score(first["cls_feats"]),
        "image_embedding": image["cls_feats"],
        "text_embedding": text["cls_feats"],
        "image_vl_embedding": image["cls_vlffn_feats"],
        "text_vl_embedding": text["cls_vlffn_feats"],
    }


def compare(unilm: Path, cases: dict[str, tuple[vlmo.Configuration, str]]) -> bool:
    """Prints the largest difference of every output of every case; false where one is more than rounding."""
    kind = original_class(unilm)
    good = True
    for seed, (name, (c, _)) in enumerate(cases.items(), start=vlmo.FIRST_SEED):
        state, inputs = vlmo.make_state(c, seed), vlmo.make_all_inputs()
        original = kind(configuration(c)).eval().requires_grad_(False)
        missing, unexpected = original.load_state_dict(state, strict=False)
        # The indices are plain attributes of the published code, and buffers in the published files.
        unexpected = [key for key in unexpected if not key.endswith("relative_position_index")]
        ours, theirs = vlmo.model_of(c, OrderedDict(state))(inputs), outputs(original, c, inputs)
        difference = {key: (ours[key] - value).abs().max().item() for key, value in theirs.items()}
        good &= not missing and not unexpected and ours.keys() == theirs.keys()
        good &= all(value < 2e-5 for value in difference.values())
        print(name, missing, unexpected, {key: f"{value:.1e}" for key, value in difference.items()})
    return good

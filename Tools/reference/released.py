"""Every shape of model that was released, by the names of the files: architecture × head × key layout × size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import beit3
from family import Configuration

ALL_LAYOUTS = ("unilm", "timm", "huggingface")


@dataclass(frozen=True)
class Release:
    """One released file, or several of one shape, and the layouts that it is found in."""

    name: str
    configuration: Configuration | beit3.Configuration
    layouts: tuple[str, ...]
    training_blocks: bool = False
    """Whether the file holds the two further blocks of BEiT v2's pretraining."""

    @property
    def task(self) -> str:
        if isinstance(self.configuration, beit3.Configuration):
            return self.configuration.task
        return "masked_image_modeling" if self.configuration.head == "pretrained" else self.configuration.head


TINY = dict(width=192, layers=12, heads=3, ffn=768)
SMALL = dict(width=384, layers=12, heads=6, ffn=1536)
BASE = dict(width=768, layers=12, heads=12, ffn=3072)
LARGE = dict(width=1024, layers=24, heads=16, ffn=4096)
HUGE = dict(width=1280, layers=32, heads=16, ffn=5120, patch=14)
SIZES = {"tiny": TINY, "small": SMALL, "base": BASE, "large": LARGE, "huge": HUGE}

IMAGENET_22K, IMAGENET_21K = 21841, 21843
PRETRAINED = dict(head="pretrained", mean_pooling=False, block_bias=False, shared_bias=True)
PLAIN = dict(architecture="vit", mean_pooling=False, positions=True, block_bias=False, layer_scale=False)


def shape(size: str, **changes: object) -> Configuration:
    return replace(Configuration(name=f"beit_{size}"), **{**SIZES[size], **changes})


def beit() -> list[Release]:
    releases = []
    for size, image_sizes in (("base", (224, 384)), ("large", (224, 384, 512))):
        releases += [
            Release(f"beit_{size}_patch16_{image}_pt22k_ft22kto1k", shape(size, image_size=image), ALL_LAYOUTS)
            for image in image_sizes
        ]
        pretrained = shape(size, **PRETRAINED)
        releases += [
            Release(f"beit_{size}_patch16_224_pt22k_ft22k", shape(size, classes=IMAGENET_22K), ALL_LAYOUTS),
            Release(f"beit_{size}_patch16_224_pt22k", pretrained, ("unilm", "huggingface")),
            Release(f"beitv2_{size}_patch16_224_pt1k", replace(pretrained, name=f"beitv2_{size}"), ("unilm",), True),
            Release(f"beitv2_{size}_patch16_224_pt1k_ft1k", shape(size, name=f"beitv2_{size}"), ("unilm", "timm")),
            Release(f"beit_{size}_patch16_224 headless", shape(size, head="features"), ("timm", "huggingface")),
            Release(f"data2vec-vision-{size}-ft1k", shape(size, architecture="data2vec"), ("huggingface",)),
            Release(
                f"data2vec-vision-{size}",
                shape(size, architecture="data2vec", head="features", block_bias=False, shared_bias=True),
                ("huggingface",),
            ),
        ]
    absolute = shape("base", mean_pooling=False, positions=True, block_bias=False, layer_scale=False)
    releases.append(Release("beit_base_patch16_224 with absolute positions", absolute, ALL_LAYOUTS))
    return releases


def vit() -> list[Release]:
    both = ("timm", "huggingface")
    releases = [Release(f"vit_{size}_patch16_224", shape(size, **PLAIN), both) for size in ("tiny", "small", "base", "large")]
    releases += [Release(f"vit_{size}_patch16_384", shape(size, **PLAIN, image_size=384), both) for size in ("base", "large")]
    releases.append(Release("vit_base_patch32_224", shape("base", **{**PLAIN, "patch": 32}), both))
    for size in ("base", "large"):
        releases += [
            Release(f"vit_{size}_patch16_224_in21k", shape(size, **PLAIN, classes=IMAGENET_21K), ("timm",)),
            Release(f"vit-{size}-patch16-224-in21k", shape(size, **PLAIN, head="features", pooler=True), ("huggingface",)),
            Release(f"vit_{size}_patch16_224.mae headless", shape(size, **PLAIN, head="features"), ("timm",)),
        ]
    scaled = {**PLAIN, "layer_scale": True, "positions_for_class": False}
    releases += [
        Release(f"deit3_{size}_patch{SIZES[size].get('patch', 16)}_224", shape(size, **scaled), ("timm",))
        for size in ("small", "base", "large", "huge")
    ]
    return releases


def beit3_family() -> list[Release]:
    releases = []
    for size in ("base", "large"):
        name = f"beit3_{size}"
        vision = shape(
            size, architecture="beit3", positions=True, block_bias=False, layer_scale=False, epsilon=1e-5, name=name
        )
        releases += [
            Release(f"{name}_patch16_224.in22k_ft_in1k", vision, ("timm",)),
            Release(f"{name}_patch16_224.pt", replace(vision, head="features"), ("timm",)),
        ]
        tasks = [
            ("224", "pretraining", 224), ("itc_patch16_224", "retrieval", 224), ("224_in1k", "classification", 224),
            ("224_nlvr2", "nlvr2", 224), ("480_vqa", "vqa", 480), ("480_coco_captioning", "captioning", 480),
            ("384_coco_retrieval", "retrieval", 384),
        ]
        if size == "large":
            tasks.append(("indomain_patch16_768_vgqaaug_vqa", "vqa", 768))
        for suffix, task, image in tasks:
            configuration = replace(
                beit3.SIZES[size], task=task, image_size=image, classes=beit3.DEFAULT_CLASSES.get(task, 0)
            )
            separator = "_" if "patch16" in suffix else "_patch16_"
            releases.append(Release(f"{name}{separator}{suffix}", configuration, ("unilm",)))
    return releases


def all_releases() -> list[Release]:
    return [*beit3_family(), *beit(), *vit()]

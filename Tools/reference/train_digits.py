"""Trains the small model that the project carries: BEiT-3's ImageNet head on the digits that ship inside scikit-learn.

    train_digits.py --out ../../Tests/Fixtures

Writes digits.pth, saved as training saves a checkpoint, and digits_test.safetensors: the test images, their labels and
PyTorch's logits for them. The split, the initialisation and the order of batches are fixed; the sums inside PyTorch are not
the same on every machine, so a model trained again is as good but not the same bytes.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional

import beit3
import checkpoints
from run import run

CONFIGURATION = beit3.Configuration(
    width=128, layers=4, heads=4, ffn=256, patch=4, image_size=24, vocabulary=64, text_positions=32, classes=10,
    name="beit3_digits",
)
TEST_IMAGES = 360
"""A fifth of the 1797."""
REQUIRED_ACCURACY = 0.975


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images, training labels, test images, test labels; images are [N, 1, 20, 20] in −1…1."""
    source = load_digits()
    images = torch.from_numpy(source.images.astype(np.float32))[:, None]
    images = functional.interpolate(images, size=(20, 20), mode="bilinear", align_corners=False) / 8 - 1
    labels = torch.from_numpy(source.target.astype(np.int64))
    train, test = train_test_split(
        np.arange(len(labels)), test_size=TEST_IMAGES, random_state=0, stratify=source.target
    )
    return images[train], labels[train], images[test], labels[test]


def on_canvas(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Three equal channels of 24×24: in the middle, or at a random place where a generator is given."""
    size, side = CONFIGURATION.image_size, images.shape[-1]
    canvas = images.new_full((len(images), 3, size, size), -1)
    for index, image in enumerate(images):
        free = size - side + 1
        top, left = (free // 2, free // 2) if generator is None else torch.randint(free, (2,), generator=generator).tolist()
        canvas[index, :, top : top + side, left : left + side] = image
    return canvas


def train(model: beit3.Model, images: Tensor, labels: Tensor, epochs: int, seed: int) -> torch.optim.Optimizer:
    """AdamW under a cosine schedule with warm-up, random places on the canvas and a little noise."""
    generator = torch.Generator().manual_seed(seed)
    used = [parameter for name, parameter in model.named_parameters() if not checkpoints.is_text_half(name)]
    optimizer = torch.optim.AdamW(used, lr=1e-3, weight_decay=0.05)
    batch, warm_up = 64, 3
    steps = epochs * math.ceil(len(labels) / batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) * epochs / (warm_up * steps), 0.5 * (1 + math.cos(math.pi * step / steps))),
    )
    model.train()
    for epoch in range(epochs):
        start, total = time.perf_counter(), 0.0
        for chosen in torch.randperm(len(labels), generator=generator).split(batch):
            batch_images = on_canvas(images[chosen], generator)
            batch_images += 0.1 * torch.randn(batch_images.shape, generator=generator)
            loss = functional.cross_entropy(
                model({"image": batch_images})["logits"], labels[chosen], label_smoothing=0.05
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(used, 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chosen)
        if epoch % 10 == 9 or epoch == epochs - 1:
            print(f"epoch {epoch + 1}: loss {total / len(labels):.4f}, {time.perf_counter() - start:.1f} s", flush=True)
    model.eval()
    return optimizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write the two files to")
    parser.add_argument("--epochs", type=int, default=60, metavar="N", help="passes over the training images")
    parser.add_argument("--seed", type=int, default=0, help="of the initialisation, the batches and the augmentation")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    train_images, train_labels, test_images, test_labels = digits()
    model = beit3.Model(CONFIGURATION)
    for token in (model.beit3.vision_embed.cls_token, model.beit3.vision_embed.mask_token):
        torch.nn.init.trunc_normal_(token, std=0.02)
    optimizer = train(model, train_images, train_labels, options.epochs, options.seed)

    images = on_canvas(test_images)
    model.requires_grad_(False)
    logits = run(model, {"image": images})["logits"]
    accuracy = (logits.argmax(-1) == test_labels).double().mean().item()
    print(f"test accuracy {accuracy:.4f} on {len(test_labels)} images")
    if accuracy < REQUIRED_ACCURACY:
        raise SystemExit(f"the test accuracy is below {REQUIRED_ACCURACY}: nothing was written")

    moments = optimizer.state[model.beit3.vision_embed.cls_token]
    checkpoint = checkpoints.wrap(
        OrderedDict(model.state_dict()),
        CONFIGURATION,
        moments=(moments["exp_avg"], moments["exp_avg_sq"]),
        epoch=options.epochs - 1,
        epochs=options.epochs,
        lr=1e-3,
        batch_size=64,
        seed=options.seed,
        best_accuracy=np.float64(accuracy),
    )
    torch.save(checkpoint, options.out / "digits.pth")
    save_file(
        {"image": images.contiguous(), "labels": test_labels, "logits": logits},
        options.out / "digits_test.safetensors",
        metadata={"accuracy": f"{accuracy:.6f}", "torch": torch.__version__},
    )


if __name__ == "__main__":
    main()

"""Makes seeded inputs for a model, as the safetensors file that `multiway run --inputs` and `run.py --inputs` read.

    make_inputs.py --images 16 --image-size 224 --out inputs.safetensors
    make_inputs.py --images 2 --texts 2 --text-length 12 --vocabulary 64010 --out inputs.safetensors

Row i depends on the seed and on i alone: the first two rows of a file of sixteen are the rows of a file of two.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

BEGIN, PAD, END = 0, 1, 2
"""XLM-RoBERTa's ids; ordinary pieces start at 4."""


def smooth(generator: np.random.Generator, channels: int, cells: int, size: int) -> np.ndarray:
    """Noise on a grid of `cells` × `cells`, drawn out to `size` × `size` by straight lines between the points."""
    grid = generator.standard_normal((channels, cells + 1, cells + 1))
    place = np.arange(size) * cells / size
    low = place.astype(int)
    part = place - low
    rows = grid[:, low] * (1 - part)[:, None] + grid[:, low + 1] * part[:, None]
    return rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part


def image(index: int, size: int, seed: int) -> np.ndarray:
    """One normalised image, [3, size, size]: noise whose amplitude falls with frequency as a photograph's does, with a
    brightness and a contrast of its own, and channels that move together."""
    generator = np.random.default_rng([seed, 1, index])
    pixels = np.zeros((3, size, size))
    cells = 1
    while cells <= size // 2:
        grey, colour = smooth(generator, 1, cells, size), smooth(generator, 3, cells, size)
        pixels += (grey + 0.4 * colour) / cells ** generator.uniform(0.6, 1.0)
        cells *= 2
    pixels = (pixels - pixels.mean()) / pixels.std()
    pixels = pixels * generator.uniform(0.6, 1.2) + generator.normal(0, 0.4) + generator.normal(0, 0.15, (3, 1, 1))
    return pixels.clip(-2.1, 2.6).astype(np.float32)


def text(index: int, length: int, vocabulary: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One sentence and its padding mask (1 = padded), [length] each. Row 0 alone is never padded."""
    generator = np.random.default_rng([seed, 2, index])
    words = length if index == 0 else int(generator.integers(3, max(length, 4)))
    ids = np.full(length, PAD, dtype=np.int64)
    ids[:words] = generator.integers(4, vocabulary, words)
    ids[0], ids[words - 1] = BEGIN, END
    return ids, (np.arange(length) >= words).astype(np.int64)


def make_inputs(
    *, images: int, texts: int, image_size: int, text_length: int, vocabulary: int, seed: int, second: bool = False
) -> dict[str, np.ndarray]:
    """The named tensors of an inputs file."""
    tensors: dict[str, np.ndarray] = {}
    if images:
        tensors["image"] = np.stack([image(index, image_size, seed) for index in range(images)])
    if images and second:
        tensors["image2"] = np.stack([image(1_000_000 + index, image_size, seed) for index in range(images)])
    if texts:
        rows = [text(index, text_length, vocabulary, seed) for index in range(texts)]
        tensors["text"] = np.stack([ids for ids, _ in rows])
        tensors["padding_mask"] = np.stack([mask for _, mask in rows])
    return tensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.safetensors", help="the file to write")
    parser.add_argument("--images", type=int, default=0, metavar="N", help="how many images")
    parser.add_argument("--texts", type=int, default=0, metavar="N", help="how many texts")
    parser.add_argument("--second-image", action="store_true", help="a second image for each, as NLVR2 needs")
    parser.add_argument("--image-size", type=int, default=224, metavar="N", help="side of an image in pixels")
    parser.add_argument("--text-length", type=int, default=16, metavar="N", help="tokens of a text, padding included; at least 3")
    parser.add_argument("--vocabulary", type=int, default=64002, metavar="N", help="token ids are smaller than this")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not options.images and not options.texts:
        parser.error("nothing to make: give --images, --texts or both")
    if options.text_length < 3:
        parser.error("--text-length must be at least 3")
    tensors = make_inputs(
        images=options.images,
        texts=options.texts,
        image_size=options.image_size,
        text_length=options.text_length,
        vocabulary=options.vocabulary,
        seed=options.seed,
        second=options.second_image,
    )
    save_file(tensors, options.out)
    print(f"{options.out}: " + ", ".join(f"{name} {list(value.shape)}" for name, value in tensors.items()))


if __name__ == "__main__":
    main()

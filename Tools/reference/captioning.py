"""Writes captions with the oracle: beam search over torchscale's incremental state, as unilm's captioning does it.

    captioning.py captioning.pth --inputs images.safetensors --outputs captions.safetensors

The image goes in once, with the first word and a mask; afterwards the last word and a mask, whose keys and values are
dropped again. Outputs: `tokens` [images, length] (begin, words, end, padding) and `scores` [images].
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import beit3
import checkpoints

BEGIN, PAD, END, MASK = 0, 1, 2, 64001
"""The special tokens of the released vocabulary."""


@dataclass(frozen=True)
class Search:
    """How captions are searched for; the defaults are those of unilm's command line."""

    beams: int = 3
    length: int = 64
    penalty: float = 0.6
    mask: int = MASK
    end: int = END


class Decoder:
    """The model with what it remembers of the text so far."""

    def __init__(self, model: beit3.Model, image: Tensor, mask: int) -> None:
        self.model, self.image, self.mask = model, image, mask
        self.vision = model.configuration.patches + 1
        self.state: dict[int, dict[str, Tensor]] = {layer: {} for layer in range(model.configuration.layers)}

    def logits(self, words: Tensor, length: int) -> Tensor:
        """[rows, vocabulary] at the mask behind `words` [rows], when text and mask are `length` tokens."""
        forbidden = torch.ones(self.vision + length, self.vision + length, dtype=torch.long)
        forbidden[:, : self.vision] = 0
        forbidden[self.vision :, self.vision :].triu_(1)
        ids = torch.stack([words, torch.full_like(words, self.mask)], dim=1)
        first = length == 2
        sequence = self.model.beit3(
            textual_tokens=ids,
            visual_tokens=self.image if first else None,
            text_padding_position=torch.zeros_like(ids) if first else None,
            attn_mask=forbidden if first else forbidden[-2:],
            incremental_state=self.state,
            positions=None if first else torch.arange(length, length + 2).unsqueeze(0),
        )["encoder_out"]
        return self.model.mlm_head(sequence[:, -1])

    def reorder(self, parents: Tensor) -> None:
        """Goes on with the rows `parents`, without the mask."""
        for layer in self.state.values():
            for name, value in layer.items():
                layer[name] = value[parents, :, :-1]


@torch.inference_mode()
def search(model: beit3.Model, image: Tensor, options: Search) -> dict[str, Tensor]:
    """Captions for a batch of images."""
    images, beams = image.shape[0], options.beams
    decoder = Decoder(model, image.repeat_interleave(beams, 0), options.mask)
    texts = [[[BEGIN] for _ in range(beams)] for _ in range(images)]
    sums = torch.full((images, beams), -1e9)
    sums[:, 0] = 0
    best: list[tuple[float, list[int]] | None] = [None] * images
    done = [False] * images
    for length in range(2, options.length):
        words = torch.tensor([text[-1] for row in texts for text in row])
        chances = torch.log_softmax(decoder.logits(words, length), -1).view(images, beams, -1)
        vocabulary = chances.shape[-1]
        scores, places = (sums.unsqueeze(-1) + chances).flatten(1).topk(3 * beams, 1)
        following: list[tuple[float, int, int]] = []
        for row in range(images):
            kept: list[tuple[float, int, int]] = []
            found = best[row]
            if found is not None and found[0] >= scores[row, 0].item() / (options.length - 1) ** options.penalty:
                done[row] = True
            for score, place in zip(scores[row].tolist(), places[row].tolist()):
                beam, word = divmod(place, vocabulary)
                if done[row] or len(kept) == beams:
                    break
                if word == options.end or length + 1 == options.length:
                    rated = score / length**options.penalty
                    if best[row] is None or rated > best[row][0]:
                        best[row] = (rated, texts[row][beam])
                else:
                    kept.append((score, word, beam))
            following += kept + [(0.0, PAD, 0)] * (beams - len(kept))
        if all(done):
            break
        decoder.reorder(torch.tensor([place // beams * beams + beam for place, (_, _, beam) in enumerate(following)]))
        texts = [
            [texts[row][beam] + [word] for _, word, beam in following[row * beams : (row + 1) * beams]] for row in range(images)
        ]
        sums = torch.tensor([score for score, _, _ in following]).view(images, beams)
    tokens = torch.full((images, options.length), PAD)
    for row, found in enumerate(best):
        if found is not None:
            caption = [*found[1], options.end]
            tokens[row, : len(caption)] = torch.tensor(caption)
    return {"tokens": tokens, "scores": torch.tensor([0.0 if found is None else found[0] for found in best])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a captioning model's .pth file")
    parser.add_argument("--inputs", type=Path, required=True, metavar="FILE", help="safetensors: image")
    parser.add_argument("--outputs", type=Path, required=True, metavar="FILE", help="the safetensors file to write")
    parser.add_argument("--beams", type=int, default=3, metavar="N")
    parser.add_argument("--max-length", type=int, default=64, metavar="N")
    parser.add_argument("--length-penalty", type=float, default=0.6, metavar="X")
    parser.add_argument("--mask-token", type=int, default=MASK, metavar="ID")
    parser.add_argument("--heads", type=int, metavar="N", help="attention heads, where the checkpoint's args do not tell")
    options = parser.parse_args()
    model = checkpoints.load(options.checkpoint, options.heads)
    if model.configuration.task != "captioning":
        parser.error(f"{options.checkpoint} is for {model.configuration.task}")
    how = Search(options.beams, options.max_length, options.length_penalty, options.mask_token)
    captions: dict[str, Any] = search(model, load_file(options.inputs)["image"], how)
    save_file(captions, options.outputs, metadata={"torch": torch.__version__})
    for row in captions["tokens"].tolist():
        print(" ".join(str(word) for word in row if word != PAD))


if __name__ == "__main__":
    main()

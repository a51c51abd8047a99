"""Compares captioning with PyTorch: how many tokens a second, and do the texts agree?

    captions.py base_captioning.pth --inputs image.safetensors --ours base_int8.gguf --ours base_captioning.pth \\
        --multiway .build/release/multiway --beams 1 --beams 3 --tokens 20

PyTorch runs torchscale's BEiT3 in fp32 with its incremental state, as unilm's captioning does: the image and the first word open a
caption, each step takes the last word and a mask. The engines take turns, round by round, and every figure is a median over the rounds; the
first round does not count. A step's time runs from the end of the one before, so it has its part of the beam search. The image
is opened once a caption; `tokens/s` is about the steps after it, `caption s` about all. All engines get the same threads and images.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "reference"))

import captioning
import checkpoints
from compare import print_table


@dataclass
class Caption:
    """One round of an engine: seconds, and the tokens of each image."""

    opening: float
    steps: list[float]
    tokens: list[list[int]]


@dataclass
class Engine:
    name: str
    write: Callable[[int], Caption]
    """Captions with so many beams."""


class TimedDecoder(captioning.Decoder):
    """Notes when each call ends."""

    ends: list[float] = []

    def logits(self, words: Tensor, length: int) -> Tensor:
        found = super().logits(words, length)
        TimedDecoder.ends.append(time.perf_counter())
        return found


def pytorch(checkpoint: Path, heads: int | None, image: Tensor, length: int, mask: int) -> Engine:
    model = checkpoints.load(checkpoint, heads)
    captioning.Decoder = TimedDecoder

    def write(beams: int) -> Caption:
        TimedDecoder.ends = [time.perf_counter()]
        found = captioning.search(model, image, captioning.Search(beams=beams, length=length, mask=mask))
        ends = TimedDecoder.ends
        tokens = [[token for token in row if token != captioning.PAD] for row in found["tokens"].tolist()]
        return Caption(ends[1] - ends[0], [after - before for before, after in zip(ends[1:], ends[2:])], tokens)

    return Engine("PyTorch fp32", write)


def ours(arguments: str, binary: Path, inputs: Path, length: int, mask: int, threads: int) -> Engine:
    model, *extra = shlex.split(arguments)

    def write(beams: int) -> Caption:
        command = [binary, "bench", model, "--captions", "--inputs", inputs, "--runs", "1", "--beams", str(beams)]
        command += ["--max-length", str(length), "--mask-token", str(mask), "--threads", str(threads), *extra, "--json"]
        report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return Caption(report["opening_ms"] / 1000, [step / 1000 for step in report["steps_ms"]], report["captions"])

    return Engine(f"multiway, {' '.join([Path(model).name, *extra])}", write)


def agreement(oracle: list[list[int]], own: list[list[int]]) -> str:
    """How many tokens stand at the same place, of those of the longer text."""
    same = sum(a == b for texts in zip(oracle, own) for a, b in zip(*texts))
    return f"{same} of {sum(max(map(len, texts)) for texts in zip(oracle, own))}"


def measure(engines: list[Engine], beams: int, rounds: int) -> list[list[str]]:
    """A row for each engine."""
    captions: list[list[Caption]] = [[] for _ in engines]
    for number in range(rounds + 1):
        for engine, own in zip(engines, captions):
            caption = engine.write(beams)
            if number:
                own.append(caption)
    rates = [statistics.median(len(each.steps) / sum(each.steps) for each in own) for own in captions]
    return [
        [
            engine.name,
            str(beams),
            f"{statistics.median(each.opening for each in own):.2f}",
            f"{statistics.median(step for each in own for step in each.steps) * 1000:.1f}",
            f"{rate:.1f}",
            f"{rate / rates[0]:.2f}",
            f"{statistics.median(each.opening + sum(each.steps) for each in own):.2f}",
            agreement(captions[0][0].tokens, own[0].tokens),
        ]
        for engine, own, rate in zip(engines, captions, rates)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a captioning model's .pth file")
    parser.add_argument("--inputs", type=Path, required=True, metavar="FILE", help="safetensors: image")
    parser.add_argument("--ours", action="append", default=[], metavar="MODEL", help="a model for our binary, and options after it in the same argument; may be given again")
    parser.add_argument("--multiway", type=Path, default=Path("multiway"), metavar="PATH", help="our binary")
    parser.add_argument("--heads", type=int, metavar="N", help="attention heads, where the checkpoint's args do not tell")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="threads for every engine")
    parser.add_argument("--beams", type=int, action="append", metavar="N", help="texts followed at once; may be given again; 1 and 3 by default")
    parser.add_argument("--tokens", type=int, default=20, metavar="N", help="the most tokens of a caption, begin and end included")
    parser.add_argument("--mask-token", type=int, default=captioning.MASK, metavar="ID")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds that count")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    image = load_file(options.inputs)["image"]
    engines = [pytorch(options.checkpoint, options.heads, image, options.tokens, options.mask_token)]
    engines += [
        ours(arguments, options.multiway, options.inputs, options.tokens, options.mask_token, options.threads)
        for arguments in options.ours
    ]
    header = ["engine", "beams", "opening s", "ms a step", "tokens/s", "× PyTorch", "caption s", "same tokens"]
    print_table(header, [row for beams in options.beams or [1, 3] for row in measure(engines, beams, options.rounds)])


if __name__ == "__main__":
    main()

"""Makes a checkpoint of any size and head, in the layout of the released files, with weights spread as trained ones are.

    make_checkpoint.py --size base --task classification --seed 0 --out base_in1k.pth
"""

from __future__ import annotations

import argparse
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import beit3
import checkpoints
from weights import trained_like

SHAPE_FIELDS = {
    "width": "hidden size",
    "layers": "encoder layers",
    "heads": "attention heads",
    "ffn": "inner size of the feed-forward network",
    "patch": "side of a patch in pixels",
    "image_size": "side of the image in pixels",
    "vocabulary": "rows of the text embedding",
    "text_positions": "rows of the text position table, the two unused ones included",
    "visual_codes": "outputs of the masked image head of pretraining",
    "classes": "outputs of the head",
}


def make_state(
    configuration: beit3.Configuration,
    seed: int,
    *,
    half: bool = False,
    strip_text: bool = False,
    allocate: Callable[[int, torch.dtype], Tensor] = lambda count, dtype: torch.empty(count, dtype=dtype),
) -> OrderedDict[str, Tensor]:
    """The state dict of a model that has never been held in memory as a module."""
    with torch.device("meta"):
        shapes = beit3.Model(configuration).state_dict()
    state: OrderedDict[str, Tensor] = OrderedDict()
    for name, parameter in shapes.items():
        if strip_text and checkpoints.is_text_half(name):
            continue
        tensor = allocate(parameter.numel(), torch.float16 if half else torch.float32)
        values = trained_like(name, tuple(parameter.shape), configuration.layers, seed)
        tensor.copy_(torch.from_numpy(values).flatten())
        state[name] = tensor.view(parameter.shape)
    return state


def add_shape_options(parser: argparse.ArgumentParser) -> None:
    """The flags that choose a configuration: a size, and what to change in it."""
    parser.add_argument("--size", choices=[*beit3.SIZES, "custom"], default="base", help="the size to start from; custom starts from base under another name")
    parser.add_argument("--task", choices=beit3.TASKS, default="classification", help="the head")
    for field, meaning in SHAPE_FIELDS.items():
        parser.add_argument("--" + field.replace("_", "-"), type=int, metavar="N", help=meaning)


def configuration_from(options: argparse.Namespace) -> beit3.Configuration:
    """The configuration that the flags of `add_shape_options` ask for."""
    given = {field: getattr(options, field) for field in SHAPE_FIELDS if getattr(options, field) is not None}
    start = beit3.SIZES.get(options.size, beit3.SIZES["base"])
    custom = options.size == "custom" or not given.keys().isdisjoint(("width", "layers", "heads", "ffn"))
    name = "beit3_custom" if custom else start.name
    classes = beit3.DEFAULT_CLASSES.get(options.task, 0)
    return replace(start, **{"task": options.task, "classes": classes, "name": name, **given})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_shape_options(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.pth", help="the file to write")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parser.add_argument("--wrapper", choices=[*checkpoints.WRAPPERS, "bare"], default="model", help="the key that holds the state dict; bare: the state dict is the file")
    parser.add_argument("--bare", dest="wrapper", action="store_const", const="bare", help="the same as --wrapper bare")
    parser.add_argument("--half", action="store_true", help="store fp16")
    parser.add_argument("--no-optimizer", action="store_true", help="leave the optimizer out")
    parser.add_argument("--strip-b", action="store_true", help="leave out the text half: every B expert and the text embedding")
    parser.add_argument("--stream", action="store_true", help="keep tensors in temporary files beside the output, not in memory")
    options = parser.parse_args()
    try:
        configuration = configuration_from(options)
    except ValueError as error:
        parser.error(str(error))

    with tempfile.TemporaryDirectory(dir=options.out.parent, prefix=".make_checkpoint-") as folder:

        def mapped(count: int, dtype: torch.dtype) -> Tensor:
            name = Path(folder) / str(len(list(Path(folder).iterdir())))
            return torch.from_file(str(name), shared=True, size=count, dtype=dtype)

        choice = {"allocate": mapped} if options.stream else {}
        state = make_state(configuration, options.seed, half=options.half, strip_text=options.strip_b, **choice)
        checkpoint = checkpoints.wrap(
            state, configuration, wrapper=options.wrapper, optimizer=not options.no_optimizer, seed=options.seed
        )
        torch.save(checkpoint, options.out)
        parameters = sum(tensor.numel() for tensor in state.values())
        print(f"{options.out}: {configuration.model_name}, {len(state)} tensors, {parameters:,} parameters")
        del state, checkpoint


if __name__ == "__main__":
    main()

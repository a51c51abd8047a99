"""Makes a checkpoint of any size and head, in the layout of the released files, with weights spread as trained ones are.

    make_checkpoint.py --size base --task classification --seed 0 --out base_in1k.pth
"""

from __future__ import annotations

import argparse
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import beit3
from weights import trained_like


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
        if strip_text and beit3.is_text_half(name):
            continue
        tensor = allocate(parameter.numel(), torch.float16 if half else torch.float32)
        values = trained_like(name, tuple(parameter.shape), configuration.layers, seed)
        tensor.copy_(torch.from_numpy(values).flatten())
        state[name] = tensor.view(parameter.shape)
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beit3.add_shape_options(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.pth", help="the file to write")
    parser.add_argument("--seed", type=int, default=0, help="the weights depend on this and on nothing else")
    parser.add_argument("--wrapper", choices=[*beit3.WRAPPERS, "bare"], default="model", help="the key that holds the state dict; bare: the state dict is the file")
    parser.add_argument("--bare", dest="wrapper", action="store_const", const="bare", help="the same as --wrapper bare")
    parser.add_argument("--half", action="store_true", help="store fp16")
    parser.add_argument("--no-optimizer", action="store_true", help="leave the optimizer out")
    parser.add_argument("--strip-b", action="store_true", help="leave out the text half: every B expert and the text embedding")
    parser.add_argument("--stream", action="store_true", help="keep tensors in temporary files beside the output, not in memory")
    options = parser.parse_args()
    configuration = beit3.configuration_from(options)

    with tempfile.TemporaryDirectory(dir=options.out.parent, prefix=".make_checkpoint-") as folder:

        def mapped(count: int, dtype: torch.dtype) -> Tensor:
            name = Path(folder) / str(len(list(Path(folder).iterdir())))
            return torch.from_file(str(name), shared=True, size=count, dtype=dtype)

        choice = {"allocate": mapped} if options.stream else {}
        state = make_state(configuration, options.seed, half=options.half, strip_text=options.strip_b, **choice)
        checkpoint = beit3.wrap(
            state, configuration, wrapper=options.wrapper, optimizer=not options.no_optimizer, seed=options.seed
        )
        torch.save(checkpoint, options.out)
        parameters = sum(tensor.numel() for tensor in state.values())
        print(f"{options.out}: {configuration.model_name}, {len(state)} tensors, {parameters:,} parameters")
        del state, checkpoint


if __name__ == "__main__":
    main()

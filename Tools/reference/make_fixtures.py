"""Makes every small fixture under Tests/Fixtures/tiny, the same bytes each time.

    make_fixtures.py

digits.pth is a trained model and comes from train_digits.py. Tests/Fixtures/README.md says what each file is for.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

import beit3
import captioning
import checkpoints
import make_formats
from make_checkpoint import make_state
from make_inputs import make_inputs
from run import run

FIXTURES = Path(__file__).resolve().parents[2] / "Tests" / "Fixtures" / "tiny"

SMALL = beit3.Configuration(
    width=32, layers=2, heads=2, ffn=48, patch=4, image_size=12, vocabulary=40, text_positions=16, classes=10,
    name="beit3_tiny",
)
"""The model of the goldens: large enough that every axis has a size of its own."""

SMALLEST = beit3.Configuration(
    width=8, layers=1, heads=2, ffn=12, patch=4, image_size=8, vocabulary=20, text_positions=12, visual_codes=24, classes=4,
    name="beit3_tiny",
)
"""The model of the heads and of the containers, where the file matters and not the arithmetic."""


def model_of(configuration: beit3.Configuration, state: OrderedDict[str, Tensor]) -> beit3.Model:
    with torch.device("meta"):
        model = beit3.Model(configuration)
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def inputs_for(configuration: beit3.Configuration) -> dict[str, Tensor]:
    """Two rows of what a task reads."""
    arrays = make_inputs(
        images=2,
        texts=0 if configuration.task == "classification" else 2,
        image_size=configuration.image_size,
        text_length=8,
        vocabulary=configuration.vocabulary,
        seed=0,
        second=configuration.task == "nlvr2",
    )
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def golden(configuration: beit3.Configuration, stem: Path, seed: int, *, every_value: bool) -> None:
    """A checkpoint, its inputs, and what PyTorch makes of them."""
    state = make_state(configuration, seed)
    inputs = inputs_for(configuration)
    results = run(model_of(configuration, state), inputs, every_value=every_value)
    torch.save(checkpoints.wrap(state, configuration, seed=seed), stem.with_name(stem.name + ".pth"))
    save_file(inputs, stem.with_name(stem.name + "_inputs.safetensors"))
    kind = "values" if every_value else "outputs"
    save_file(results, stem.with_name(f"{stem.name}_{kind}.safetensors"))


CAPTIONS = {
    "default": captioning.Search(length=11, mask=19),
    "greedy": captioning.Search(beams=1, length=11, mask=19),
    "short": captioning.Search(beams=4, length=5, mask=18),
    "other_end": captioning.Search(beams=2, length=11, penalty=1.5, mask=19, end=7),
}
"""Searches over the smallest captioning model, whose texts have at most ten tokens."""


def captions(stem: Path) -> None:
    """What beam search finds for images, all together and each alone."""
    model = checkpoints.load(stem.with_suffix(".pth"))
    arrays = make_inputs(
        images=5, texts=0, image_size=model.configuration.image_size, text_length=0, vocabulary=0, seed=4
    )
    image = torch.from_numpy(arrays["image"])
    tensors = {"image": image}
    for name, options in CAPTIONS.items():
        alone = [captioning.search(model, image[row : row + 1], options) for row in range(len(image))]
        for field, together in captioning.search(model, image, options).items():
            tensors[f"{name}.{field}"] = together
            tensors[f"{name}.{field}_alone"] = torch.cat([result[field] for result in alone])
    save_file(tensors, stem.with_name(stem.name + "_search.safetensors"))


def containers(folder: Path) -> None:
    """One state dict in every container that training code writes."""
    state = make_state(SMALLEST, seed=3)
    training = checkpoints.wrap(state, SMALLEST)
    averaged = OrderedDict((name, tensor * 0.5) for name, tensor in state.items())
    halved = make_state(SMALLEST, seed=3, half=True)
    save_file(state, folder / "expected.safetensors")
    torch.save(training, folder / "model.pth")
    torch.save(checkpoints.wrap(state, SMALLEST, wrapper="bare"), folder / "bare.pth")
    torch.save(checkpoints.wrap(state, SMALLEST, wrapper="module"), folder / "module.pth")
    torch.save(checkpoints.wrap(state, SMALLEST, wrapper="state_dict"), folder / "state_dict.pth")
    torch.save(checkpoints.wrap(halved, SMALLEST), folder / "half.pth")
    torch.save({**training, "model_ema": averaged}, folder / "ema.pth")
    torch.save(training, folder / "protocol4.pth", pickle_protocol=4)
    torch.save(training, folder / "protocol5.pth", pickle_protocol=5)
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    np.savez(folder / "arrays.npz", **arrays)
    np.savez_compressed(folder / "compressed.npz", **arrays)
    (folder / "arrays.pkl").write_bytes(pickle.dumps(arrays, 4))
    (folder / "tar.pth").write_bytes(make_formats.tar_checkpoint(state))
    legacy = folder / "legacy.pth"
    if not (legacy.exists() and holds(torch.load(legacy, weights_only=False)["model"], state)):
        torch.save(training, legacy, _use_new_zipfile_serialization=False)
    tensors = folder / "tensors.pkl"
    if not (tensors.exists() and holds(pickle.loads(tensors.read_bytes())["model"], state)):
        tensors.write_bytes(pickle.dumps(training, 4))


def holds(model: Mapping[str, Tensor], state: OrderedDict[str, Tensor]) -> bool:
    """Whether a file already has this state dict. The format before 1.6, which pickles hold too, names each storage by its
    address, so a file that is written again has other bytes."""
    return list(model) == list(state) and all(torch.equal(model[name], tensor) for name, tensor in state.items())


def dtypes(generator: np.random.Generator) -> OrderedDict[str, Tensor]:
    """A tensor of every dtype that PyTorch stores and safetensors has a name for."""
    tensors: OrderedDict[str, Tensor] = OrderedDict()
    numbers = torch.from_numpy(generator.standard_normal((3, 5)))
    for name in (
        "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz",
    ):
        tensors[f"dtype.{name}"] = numbers.to(getattr(torch, name))
    for name in ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"):
        limits = torch.iinfo(getattr(torch, name))
        whole = generator.integers(limits.min, limits.max, (3, 5), dtype=name, endpoint=True)
        tensors[f"dtype.{name}"] = torch.from_numpy(whole)
    tensors["dtype.bool"] = numbers > 0
    tensors["dtype.complex64"] = torch.complex(numbers.float(), -numbers.float())
    extremes = torch.tensor([0.0, -0.0, 1e-45, -1e-40, 65504.0, 1e38, float("inf"), float("-inf"), float("nan")])
    for name in ("float32", "float16", "bfloat16"):
        tensors[f"extremes.{name}"] = extremes.to(getattr(torch, name))
    return tensors


def views() -> OrderedDict[str, Tensor]:
    """Tensors that are not the whole of their storage in order: what a reader must follow offsets and strides for."""
    base = torch.arange(120, dtype=torch.float32)
    table = base.view(10, 12)
    tied = torch.arange(6, dtype=torch.float32).view(2, 3) + 0.25
    return OrderedDict(
        {
            "view.whole": table,
            "view.transposed": table.t(),
            "view.permuted": base.view(2, 5, 12).permute(2, 0, 1),
            "view.strided": base[3::7],
            "view.columns": table[:, 2:9:3],
            "view.offset": base[20:44].view(4, 6),
            "view.expanded": base[5:9].view(4, 1).expand(4, 3),
            "view.expanded_whole": torch.tensor(1.5).expand(2, 3),
            "view.scalar": base[17],
            "view.empty": base[7:7],
            "view.overlapping": base.as_strided((3, 4), (2, 1), 50),
            "tied.first": tied,
            "tied.second": tied,
            "tied.transposed": tied.t(),
            "shape.scalar": torch.tensor(2.5),
            "shape.empty": torch.zeros(0, 3),
            "shape.empty_inside": torch.zeros(2, 0, 3),
            "shape.ones": torch.full((1, 1, 1), 7.0),
            "parameter": torch.nn.Parameter(torch.arange(4, dtype=torch.float32)),
            "parameter.frozen": torch.nn.Parameter(torch.arange(5, dtype=torch.float16), requires_grad=False),
        }
    )


def foreign_object() -> Any:
    """An instance of a class that no reader can import, as a trainer's own helpers are."""
    module = types.ModuleType("someones_training_code.ema")
    kind = type("ExponentialMovingAverage", (), {"__module__": module.__name__})
    module.ExponentialMovingAverage = kind
    sys.modules["someones_training_code"] = types.ModuleType("someones_training_code")
    sys.modules[module.__name__] = module
    helper = kind()
    helper.decay = 0.9999
    helper.shadow = {"weight": torch.arange(3, dtype=torch.float32)}
    return helper


def odd_checkpoint(folder: Path) -> None:
    """Views, dtypes, and every kind of object that stands beside the tensors of a real checkpoint."""
    tensors = OrderedDict([*views().items(), *dtypes(np.random.default_rng(5)).items()])
    checkpoint = {
        "model": tensors,
        "ema": foreign_object(),
        "args": checkpoints.training_arguments(SMALLEST),
        "best_accuracy": np.float32(0.5),
        "history": np.arange(6, dtype=np.float64).reshape(2, 3),
        "shape": torch.Size([2, 3]),
        "dtype": torch.bfloat16,
        "device": torch.device("cuda", 3),
        "layout": torch.strided,
        "big": 10**30,
        "negative": -(2**40),
        "nothing": None,
        "nested": [("pair", {"deep": (1, 2.5, True)}), {"set"}, 1 + 2j, b"\x00bytes\xff", "ünïcode ☃"],
    }
    torch.save(checkpoint, folder / "views.pth")
    expected = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    save_file(expected, folder / "views_expected.safetensors")


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    for name in ("heads", "containers"):
        (FIXTURES / name).mkdir(parents=True, exist_ok=True)
    for seed, task in ((1, "classification"), (2, "features")):
        golden(replace(SMALL, task=task), FIXTURES / task, seed, every_value=True)
    for seed, task in enumerate(("vqa", "nlvr2", "captioning", "retrieval", "pretraining"), start=10):
        classes = 2 if task == "nlvr2" else SMALLEST.classes
        golden(replace(SMALLEST, task=task, classes=classes), FIXTURES / "heads" / task, seed, every_value=False)
    captions(FIXTURES / "heads" / "captioning")
    containers(FIXTURES / "containers")
    odd_checkpoint(FIXTURES)
    files = [file for file in FIXTURES.rglob("*") if file.is_file()]
    print(f"{len(files)} files, {sum(file.stat().st_size for file in files):,} bytes")


if __name__ == "__main__":
    main()

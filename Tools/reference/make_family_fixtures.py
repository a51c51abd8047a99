"""Makes every small fixture under Tests/Fixtures/family, the same bytes each time.

    make_family_fixtures.py

Each folder is one model: the same weights in every layout that exists, `inputs.safetensors` and `outputs.safetensors`. What
timm and transformers make of the same weights is compared before anything is written; Tests/Fixtures/README.md says
what each folder is for.
"""

from __future__ import annotations

import argparse
import shutil
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import checkpoints
import family
import layouts
import resizing
from family import Configuration
from make_inputs import make_inputs
from measures import worst

FIXTURES = Path(__file__).resolve().parents[2] / "Tests" / "Fixtures"
FAMILY = FIXTURES / "family"

TINY = Configuration(
    width=32, layers=2, heads=2, ffn=48, patch=4, image_size=12, classes=10, visual_codes=24, name="beit_tiny"
)
"""The size of everything here."""

BEIT_ABSOLUTE = replace(TINY, mean_pooling=False, positions=True, block_bias=False, layer_scale=False)
BEIT_PRETRAINED = replace(TINY, head="pretrained", mean_pooling=False, block_bias=False, shared_bias=True, name="beitv2_tiny")
VIT = replace(
    TINY, architecture="vit", mean_pooling=False, positions=True, block_bias=False, layer_scale=False, name="vit_tiny"
)
DATA2VEC = replace(TINY, architecture="data2vec", name="data2vec_tiny")

AGREEMENT = 90.0
"""Decibels: how alike two oracles' results for the same weights must be. fp32 alone keeps them about 130 dB alike."""


def agree(where: str, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raises where two oracles differ."""
    ratio = worst(expected, found)
    if not ratio >= AGREEMENT:
        raise ValueError(f"{where}: the oracles agree to {ratio:.1f} dB only")


class Fixture:
    """One folder under `family/`: a model's weights, its inputs, and what timm computes of them."""

    def __init__(self, name: str, configuration: Configuration, seed: int) -> None:
        self.folder = FAMILY / name
        self.configuration = configuration
        self.state = family.make_state(configuration, seed)
        self.folder.mkdir(parents=True)
        self.inputs = images(configuration)
        self.outputs = family.run(configuration, self.state, self.inputs["image"])
        save_file(self.inputs, self.folder / "inputs.safetensors")
        save_file(self.outputs, self.folder / "outputs.safetensors")

    def unilm(self, name: str = "unilm.pth", wrapper: str = "model", more: Mapping[str, Tensor] | None = None) -> None:
        """A file as unilm's training saves it."""
        state = OrderedDict([*layouts.unilm(self.configuration, self.state).items(), *(more or {}).items()])
        arguments = checkpoints.family_arguments(self.configuration)
        checkpoint = checkpoints.training_checkpoint(state, arguments, wrapper=wrapper, optimizer=wrapper == "model")
        torch.save(checkpoint, self.folder / name)

    def timm(self) -> None:
        save_file(layouts.timm(self.state), self.folder / "timm.safetensors", metadata={"format": "pt"})

    def huggingface(
        self, name: str = "huggingface", *, pooler: bool = True, original_names: bool = True, epsilon: float | None = None
    ) -> None:
        """A directory, and a check that transformers computes from it what timm does. With another epsilon it is another
        function: its outputs are then written as `outputs_NAME.safetensors`."""
        configuration = self.configuration if epsilon is None else replace(self.configuration, epsilon=epsilon)
        layouts.save_huggingface(
            self.folder / name,
            layouts.huggingface_model(configuration, self.state, pooler=pooler),
            original_names=original_names,
        )
        options = {} if pooler else {"add_pooling_layer": False}
        opened = layouts.load_huggingface(self.folder / name, layouts.huggingface_class(configuration), **options)
        found = layouts.run_huggingface(opened, self.inputs["image"])
        if epsilon is None:
            agree(f"{self.folder.name}/{name}", self.outputs, found)
        else:
            save_file(found, self.folder / f"outputs_{name}.safetensors")


    def huggingface_bin(self) -> None:
        """A directory as the hub has held it since 2021: a pickle, with the index buffers."""
        folder = self.folder / "huggingface_bin"
        shutil.copytree(self.folder / "huggingface", folder)
        (folder / "model.safetensors").unlink()
        state = layouts.huggingface(self.configuration, layouts.unilm(self.configuration, self.state))
        torch.save(state, folder / "pytorch_model.bin")
        opened = layouts.load_huggingface(folder, layouts.huggingface_class(self.configuration))
        agree(f"{self.folder.name}/{folder.name}", self.outputs, layouts.run_huggingface(opened, self.inputs["image"]))

    def resized(self, image_size: int, codes: tuple[str, ...]) -> None:
        """The same weights on larger images: what each code computes, as `CODE.logits`, once it has resized the tables."""
        larger = replace(self.configuration, image_size=image_size)
        inputs, outputs = images(larger), {}
        for code in codes:
            state = resizing.resized_state(code, self.state, self.configuration.grid, larger.grid)
            outputs[f"{code}.logits"] = family.run(larger, state, inputs["image"])["logits"]
        if "huggingface" in codes:
            model = layouts.load_huggingface(self.folder / "huggingface", layouts.huggingface_class(larger))
            found = layouts.run_huggingface(model, inputs["image"], interpolate_pos_encoding=True)
            agree(f"{self.folder.name} resized", {"logits": outputs["huggingface.logits"]}, found)
        save_file(inputs, self.folder / f"inputs_{image_size}.safetensors")
        save_file(outputs, self.folder / f"outputs_{image_size}.safetensors")


def images(configuration: Configuration) -> dict[str, Tensor]:
    """Three images."""
    arrays = make_inputs(images=3, texts=0, image_size=configuration.image_size, text_length=0, vocabulary=0, seed=0)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def beit() -> None:
    fixture = Fixture("beit_classification", TINY, seed=20)
    fixture.unilm()
    fixture.unilm("unilm_module.pth", wrapper="module")
    fixture.timm()
    fixture.huggingface()
    fixture.huggingface("huggingface5", original_names=False)
    fixture.resized(20, ("unilm", "timm", "huggingface"))

    fixture = Fixture("beit_epsilon", replace(TINY, stem=0.005), seed=21)
    fixture.unilm()
    fixture.huggingface()
    fixture.huggingface("huggingface_eps12", epsilon=1e-12)

    fixture = Fixture("beit_absolute", BEIT_ABSOLUTE, seed=22)
    fixture.unilm()
    fixture.timm()
    fixture.huggingface()
    fixture.resized(20, ("unilm", "timm", "huggingface"))

    fixture = Fixture("beit_pretrained", BEIT_PRETRAINED, seed=23)
    fixture.unilm()
    fixture.unilm("unilm_v2.pth", more=layouts.training_blocks(fixture.configuration, fixture.state))
    fixture.huggingface()
    fixture.huggingface_bin()

    fixture = Fixture("beit_features", replace(TINY, head="features"), seed=24)
    fixture.timm()
    fixture.huggingface()
    fixture.huggingface("huggingface_without_pooler", pooler=False)


def vit() -> None:
    fixture = Fixture("vit_classification", replace(VIT, patch=8, image_size=24), seed=25)
    fixture.timm()
    fixture.huggingface()
    fixture.resized(40, ("timm", "huggingface"))

    fixture = Fixture("vit_layer_scale", replace(VIT, layer_scale=True, positions_for_class=False), seed=26)
    fixture.timm()
    fixture.resized(20, ("timm",))

    fixture = Fixture("vit_features", replace(VIT, head="features", pooler=True), seed=27)
    fixture.huggingface()
    fixture.huggingface("huggingface5", original_names=False)


def data2vec() -> None:
    Fixture("data2vec_classification", DATA2VEC, seed=28).huggingface()
    Fixture("data2vec_shared_bias", replace(DATA2VEC, block_bias=False, shared_bias=True), seed=29).huggingface()
    Fixture("data2vec_both_biases", replace(DATA2VEC, shared_bias=True), seed=30).huggingface()


def beit3() -> None:
    """The vision half of `tiny/classification.pth`, moved to timm's names by timm's own code."""
    folder = FAMILY / "beit3_timm"
    folder.mkdir(parents=True)
    tiny = FIXTURES / "tiny"
    state = torch.load(tiny / "classification.pth", weights_only=False)["model"]
    configuration = replace(
        TINY, architecture="beit3", positions=True, block_bias=False, layer_scale=False, epsilon=1e-5, name="beit3_tiny"
    )
    remapped = layouts.beit3_timm(configuration, state)
    expected = {"logits": load_file(tiny / "classification_values.safetensors")["logits"]}
    inputs = load_file(tiny / "classification_inputs.safetensors")
    agree("beit3_timm", expected, family.run(configuration, remapped, inputs["image"]))
    save_file(remapped, folder / "timm.safetensors", metadata={"format": "pt"})
    save_file(inputs, folder / "inputs.safetensors")
    save_file(expected, folder / "outputs.safetensors")

    rows = "beit3.encoder.embed_positions.A.weight"
    larger = replace(configuration, image_size=20)
    inputs = images(larger)
    state[rows] = resizing.beit3_positions(state[rows], configuration.grid, larger.grid)
    moved = family.run(larger, layouts.beit3_timm(larger, state), inputs["image"])
    timm = resizing.resized_state("timm", remapped, configuration.grid, larger.grid)
    logits = {"unilm.logits": moved["logits"], "timm.logits": family.run(larger, timm, inputs["image"])["logits"]}
    save_file(inputs, folder / "inputs_20.safetensors")
    save_file(logits, folder / "outputs_20.safetensors")

    folder = FAMILY / "beit3_features"
    folder.mkdir(parents=True)
    headless, inputs = replace(configuration, head="features"), images(configuration)
    tower = OrderedDict((name, tensor) for name, tensor in remapped.items() if not name.startswith("head."))
    save_file(tower, folder / "timm.safetensors", metadata={"format": "pt"})
    save_file(inputs, folder / "inputs.safetensors")
    save_file(family.run(headless, tower, inputs["image"]), folder / "outputs.safetensors")


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    if FAMILY.exists():
        for folder in FAMILY.iterdir():
            if folder.name in MADE_HERE:
                shutil.rmtree(folder)
    beit()
    vit()
    data2vec()
    beit3()
    (FAMILY / "resized").mkdir()
    save_file(resizing.goldens(), FAMILY / "resized" / "resize.safetensors")
    files = [file for name in MADE_HERE for file in (FAMILY / name).rglob("*") if file.is_file()]
    print(f"{len(files)} files, {sum(file.stat().st_size for file in files):,} bytes")


MADE_HERE = (
    "beit_classification", "beit_epsilon", "beit_absolute", "beit_pretrained", "beit_features", "vit_classification",
    "vit_layer_scale", "vit_features", "data2vec_classification", "data2vec_shared_bias", "data2vec_both_biases",
    "beit3_timm", "beit3_features", "resized",
)
"""Other scripts make the other folders."""

if __name__ == "__main__":
    main()

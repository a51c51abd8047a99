"""Times our ONNX export of a checkpoint in ONNX Runtime beside what the common route gives: torch.onnx, then quantize_dynamic.

    onnx_latency.py base_in1k.pth --inputs base_inputs.safetensors --runs 20

The checkpoint is one of BEiT-3 for image classification in the layout of the released files; it is unpickled, so only one that you trust.
All models run in one process on one thread, one after the other in each round, and the time is that of the thread's CPU: what else the
machine does counts as little as it can. Prints a Markdown table: the median and the smallest time of each model, its signal-to-noise ratio
against torch, and for each of ours the median of its rounds' ratios to the model of the other route. The status is 1 where that is above
`--most` (1.0).
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reference"))
import checkpoints  # noqa: E402
from onnx_check import ROOT, Arrays, Multiway, OnnxRuntime, ratio  # noqa: E402


class Classifier(torch.nn.Module):
    """BEiT-3 from an image to logits, as a module that torch.onnx traces."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.beit3, self.fc_norm, self.head = model.beit3, model.fc_norm, model.head

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.beit3(textual_tokens=None, visual_tokens=image, text_padding_position=None)["encoder_out"]
        return self.head(self.fc_norm(tokens[:, 1:].mean(1)))


def classifier(path: Path) -> Classifier:
    checkpoint = torch.load(path, map_location="cpu", weights_only=False, mmap=True)
    state = {name: tensor.float() for name, tensor in checkpoints.unwrap(checkpoint).items()}
    heads = checkpoints.heads_of(checkpoint) or state["beit3.vision_embed.proj.weight"].shape[0] // 64
    return Classifier(checkpoints.model_of(state, heads)).eval()


def export(model: Classifier, image: torch.Tensor, path: Path, opset: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (image,), str(path), dynamo=False, opset_version=opset, input_names=["image"], output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        )  # fmt: skip


def times(models: dict[str, Callable[[Arrays], Arrays]], feeds: Arrays, runs: int) -> dict[str, list[float]]:
    """CPU seconds of every run, the models one after the other in each round, and another one first in each."""
    found: dict[str, list[float]] = {name: [] for name in models}
    names = list(models)
    for name in names:
        models[name](feeds)
    for number in range(runs):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.thread_time()
            models[name](feeds)
            found[name].append(time.thread_time() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--inputs", type=Path, required=True, help="images, as for multiway run; the first is used")
    parser.add_argument("--multiway", type=Path, help="the program; that of the release build unless given")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--opset", type=int, default=17)
    parser.add_argument("--images", type=int, default=4, help="how many images the ratios are of")
    parser.add_argument("--most", type=float, default=1.0, help="the largest ratio that passes")
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    torch.set_num_threads(1)
    multiway = Multiway(options.multiway or ROOT / ".build" / "release" / "multiway")
    images = load_file(options.inputs)["image"]
    with tempfile.TemporaryDirectory() as folder:
        torch_fp32, torch_int8, plain, dynamic, qdq = (Path(folder) / f"{name}.onnx" for name in ("torch", "torch_int8", "plain", "dynamic", "qdq"))
        model = classifier(options.checkpoint)
        export(model, torch.from_numpy(images[:1]), torch_fp32, options.opset)
        with torch.inference_mode():
            wanted = np.concatenate([model(torch.from_numpy(images[i : i + 1])).numpy() for i in range(options.images)])
        quantize_dynamic(torch_fp32, torch_int8, weight_type=QuantType.QInt8, per_channel=True)
        multiway("convert", options.checkpoint, plain, "--opset", options.opset)
        multiway("convert", options.checkpoint, dynamic, "--opset", options.opset, "--int8", "dynamic", "--calibration", options.inputs)
        multiway("convert", options.checkpoint, qdq, "--opset", options.opset, "--int8", "qdq", "--calibration", options.inputs)
        paths = {"torch.onnx fp32": torch_fp32, "multiway fp32": plain, "torch.onnx + quantize_dynamic": torch_int8, "multiway int8 dynamic": dynamic, "multiway int8 QDQ": qdq}
        models = {name: OnnxRuntime(path, threads=1) for name, path in paths.items()}
        nodes = {name: len(onnx.load(str(path), load_external_data=False).graph.node) for name, path in paths.items()}
        measured = times(models, {"image": images[:1]}, options.runs)
        decibels = {name: ratio(np.concatenate([run({"image": images[i : i + 1]})["logits"] for i in range(options.images)]), wanted) for name, run in models.items()}
    print(f"{options.checkpoint.name}, one image, one thread, {options.runs} rounds, opset {options.opset}\n")
    print("| model | nodes | dB | median ms | smallest ms | to the other route |\n|---|---|---|---|---|---|")
    failed = False
    for name, seconds in measured.items():
        other = {"multiway fp32": "torch.onnx fp32", "multiway int8 dynamic": "torch.onnx + quantize_dynamic", "multiway int8 QDQ": "torch.onnx + quantize_dynamic"}.get(name)
        share = statistics.median(a / b for a, b in zip(seconds, measured[other], strict=True)) if other else None
        failed = failed or (share is not None and share > options.most)
        print(f"| {name} | {nodes[name]} | {decibels[name]:.1f} | {1000 * statistics.median(seconds):.0f} | {1000 * min(seconds):.0f} | {'' if share is None else f'{share:.2f} ×'} |")
    sys.exit(failed)


if __name__ == "__main__":
    main()

"""Compares engines on one classification checkpoint and the same images: how close are their logits to PyTorch's fp32?

    compare.py base_in1k.pth --inputs inputs.safetensors
    compare.py base_in1k.pth --inputs inputs.safetensors --artifact base.gguf --multiway .build/release/multiway --time

The checkpoint's vision half is exported to ONNX once and every peer starts from that file. SQNR is 10·log10(Σ ref² / Σ
(ref − x)²) over all logits of all images. Latencies are of one image, medians of interleaved rounds, so that a busy
machine slows every engine alike; a machine's figures are comparable within one table only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "reference"))

import checkpoints
import onnx_peer
from measures import sqnr

Run = Callable[[np.ndarray], np.ndarray]
"""An engine: normalised images in, logits out."""


@dataclass
class Engine:
    name: str
    run: Run
    bytes: int
    timed: Callable[[], float] | None = None
    """Milliseconds of one image, where an engine has to be asked instead of watched from outside."""


def pytorch(checkpoint: Path, heads: int | None, threads: int, work: Path) -> tuple[Engine, Path]:
    """PyTorch itself, and the ONNX file that the others start from."""
    torch.set_num_threads(threads)
    model = checkpoints.load(checkpoint, heads)
    if model.configuration.task != "classification":
        raise SystemExit(f"{checkpoint}: the task is {model.configuration.task}; the comparison needs classification")

    class Classifier(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.model({"image": image})["logits"]

    exported = work / "model.onnx"
    size = model.configuration.image_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Classifier().eval(),
            (torch.zeros(2, 3, size, size),),
            str(exported),
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )

    def run(image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model({"image": torch.from_numpy(image)})["logits"].numpy()

    used = sum(tensor.numel() for name, tensor in model.state_dict().items() if not checkpoints.is_text_half(name))
    return Engine("PyTorch fp32", run, used * 4), exported


def onnxruntime_engine(name: str, file: Path, threads: int) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return Engine(name, lambda image: session.run(None, {"image": image})[0], file.stat().st_size)


def onnxruntime_dynamic(exported: Path, threads: int) -> Engine:
    quantized = exported.with_name("dynamic_int8.onnx")
    onnx_peer.quantize(exported, quantized)
    return onnxruntime_engine("ONNX Runtime dynamic int8, per channel", quantized, threads)


def openvino_engines(exported: Path, threads: int, calibration: np.ndarray) -> list[Engine]:
    """OpenVINO in fp32 and, with NNCF beside it, in int8; none where they are not installed."""
    try:
        import openvino
    except ImportError:
        return []
    core = openvino.Core()

    def engine(name: str, model: openvino.Model) -> Engine:
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        compiled = core.compile_model(model, "CPU", settings)
        size = sum(node.get_data().nbytes for node in model.get_ops() if node.get_type_name() == "Constant")
        return Engine(name, lambda image: compiled([image])[0], size)

    engines = [engine("OpenVINO fp32", core.read_model(exported))]
    try:
        import nncf
    except ImportError:
        return engines
    images = nncf.Dataset([image[None] for image in calibration])
    quantized = nncf.quantize(core.read_model(exported), images, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(calibration))
    return [*engines, engine("OpenVINO + NNCF int8", quantized)]


def ours(artifact: Path, binary: Path, threads: int, work: Path) -> Engine:
    """`multiway run` on a file of inputs; its latency is what `multiway bench` reports, without the start of a process."""

    def run(image: np.ndarray) -> np.ndarray:
        inputs, outputs = work / "inputs.safetensors", work / "outputs.safetensors"
        save_file({"image": image}, inputs)
        outputs.unlink(missing_ok=True)
        subprocess.run(
            [binary, "run", artifact, "--inputs", inputs, "--outputs", outputs, "--threads", str(threads)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return load_file(outputs)["logits"]

    def timed() -> float:
        report = subprocess.run(
            [binary, "bench", artifact, "--batch", "1", "--threads", str(threads), "--json"],
            check=True,
            capture_output=True,
            text=True,
        )
        return float(json.loads(report.stdout)["median_ms"])

    return Engine(f"multiway, {artifact.name}", run, artifact.stat().st_size, timed)


def row(engine: Engine, reference: np.ndarray, logits: np.ndarray, latency: float | None) -> list[str]:
    a, b = reference.astype(np.float64), logits.astype(np.float64)
    cosine = np.sum(a * b, -1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    agreement = np.mean(a.argmax(-1) == b.argmax(-1))
    cells = [
        engine.name,
        f"{engine.bytes / 1e6:.1f}",
        f"{sqnr(torch.from_numpy(reference), torch.from_numpy(logits)):.1f}",
        f"{cosine.min():.7f}",
        f"{np.abs(a - b).max():.2g}",
        f"{agreement:.1%}",
    ]
    return cells if latency is None else [*cells, f"{latency:.1f}"]


def latencies(engines: list[Engine], image: np.ndarray, rounds: int) -> list[float]:
    """The median time of one image in each engine; the engines take turns."""
    samples: list[list[float]] = [[] for _ in engines]
    for number in range(rounds + 1):
        for engine, own in zip(engines, samples):
            if engine.timed:
                own.append(engine.timed())
                continue
            start = time.perf_counter()
            engine.run(image)
            elapsed = (time.perf_counter() - start) * 1000
            if number:
                own.append(elapsed)
    return [statistics.median(own) for own in samples]


def print_table(header: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]
    for line in [header, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a classification checkpoint, .pth")
    parser.add_argument("--inputs", type=Path, required=True, metavar="FILE", help="safetensors with image [N,3,H,W]; NNCF also calibrates on it")
    parser.add_argument("--artifact", type=Path, action="append", default=[], metavar="FILE", help="one of our files; may be given again")
    parser.add_argument("--multiway", type=Path, default=Path("multiway"), metavar="PATH", help="our binary")
    parser.add_argument("--heads", type=int, metavar="N", help="attention heads, where the checkpoint's args do not tell")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="threads for every engine")
    parser.add_argument("--time", action="store_true", help="measure the latency of one image as well")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="rounds of the latency measurement")
    options = parser.parse_args()

    images = load_file(options.inputs)["image"].astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        oracle, exported = pytorch(options.checkpoint, options.heads, options.threads, work)
        engines = [oracle, onnxruntime_engine("ONNX Runtime fp32", exported, options.threads)]
        engines.append(onnxruntime_dynamic(exported, options.threads))
        engines += openvino_engines(exported, options.threads, images)
        engines += [ours(artifact, options.multiway, options.threads, work) for artifact in options.artifact]

        # One image at a time: an engine that quantizes activations per tensor would otherwise share a scale among images.
        logits = [np.concatenate([engine.run(image[None]) for image in images]) for engine in engines]
        times = latencies(engines, images[:1], options.rounds) if options.time else [None] * len(engines)
    header = ["engine", "MB", "SQNR dB", "cosine", "max abs", "top-1"] + (["ms"] if options.time else [])
    print_table(header, [row(engine, logits[0], own, time) for engine, own, time in zip(engines, logits, times)])


if __name__ == "__main__":
    main()

"""Compares engines on one checkpoint and the same inputs: how close are their logits to PyTorch's fp32, and how fast are they?

    compare.py base_in1k.pth --inputs inputs.safetensors
    compare.py base_in1k.pth --inputs inputs.safetensors --ours base.gguf --ours "base_in1k.pth --compute bf16" \\
        --multiway .build/release/multiway --time --batch 1 --batch 8

The part of the checkpoint that its task reaches is exported to ONNX once and every peer starts from that file. SQNR is
10·log10(Σ ref² / Σ (ref − x)²) over all logits of all examples. Latencies are medians of interleaved rounds, so that a busy machine
slows every engine alike; a machine's figures are comparable within one table only. Static int8 is calibrated on the very inputs that it
is measured on. The last table is the time from the start of a process to the first logits, files in the page cache.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "reference"))

import checkpoints
import onnx_peer
from measures import sqnr

Inputs = dict[str, np.ndarray]
Run = Callable[[Inputs], np.ndarray]
"""An engine: named inputs in, logits out."""


@dataclass
class Engine:
    name: str
    run: Run
    bytes: int
    timed: Callable[[int], float] | None = None
    """Milliseconds of a batch of so many, where an engine has to be asked instead of watched from outside."""
    is_int8: bool = False
    command: list[str] = field(default_factory=list)
    """What makes the first logits in a process of its own, where that is measured."""


def pytorch(checkpoint: Path, heads: int | None, threads: int, example: Inputs, work: Path) -> tuple[Engine, Path]:
    """PyTorch itself, and the ONNX file that the others start from."""
    torch.set_num_threads(threads)
    model = checkpoints.load(checkpoint, heads)

    def run(inputs: Inputs) -> np.ndarray:
        with torch.inference_mode():
            return model({name: torch.from_numpy(value) for name, value in inputs.items()})["logits"].numpy()

    exported = work / "model.onnx"
    names = list(example)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            onnx_peer.Positional(model, lambda inputs: {"logits": model(inputs)["logits"]}, names).eval(),
            tuple(torch.from_numpy(np.concatenate([value, value])) for value in example.values()),
            str(exported),
            input_names=names,
            output_names=["logits"],
            dynamic_axes={name: {0: "batch"} for name in [*names, "logits"]},
            opset_version=17,
            dynamo=False,
        )
    reached = set(example) & {"text"}
    used = sum(tensor.numel() for name, tensor in model.state_dict().items() if reached or not checkpoints.is_text_half(name))
    return Engine("PyTorch fp32", run, used * 4), exported


def onnxruntime_engine(name: str, file: Path, threads: int, is_int8: bool = False) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    used = {each.name for each in session.get_inputs()}

    def run(inputs: Inputs) -> np.ndarray:
        return session.run(None, {name: value for name, value in inputs.items() if name in used})[0]

    return Engine(name, run, file.stat().st_size, None, is_int8)


def onnxruntime_engines(exported: Path, threads: int, inputs: Inputs) -> list[Engine]:
    """fp32, dynamic int8, and static int8 as quantize-dequantize pairs around the products with weights."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    dynamic, prepared, static = (exported.with_name(name) for name in ("dynamic.onnx", "prepared.onnx", "static.onnx"))
    onnx_peer.quantize(exported, dynamic)
    quant_pre_process(str(exported), str(prepared), skip_symbolic_shape=True)

    class Examples(CalibrationDataReader):
        def __init__(self) -> None:
            count = len(next(iter(inputs.values())))
            self.rest = iter([{name: value[i : i + 1] for name, value in inputs.items()} for i in range(count)])

        def get_next(self) -> Inputs | None:
            return next(self.rest, None)

    quantize_static(
        str(prepared),
        str(static),
        Examples(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )
    engines = [
        onnxruntime_engine("ONNX Runtime fp32", exported, threads),
        onnxruntime_engine("ONNX Runtime dynamic int8, per channel", dynamic, threads, True),
        onnxruntime_engine("ONNX Runtime static int8, QDQ", static, threads, True),
    ]
    engines[1].command = [sys.executable, str(Path(__file__).with_name("first_logits.py")), str(dynamic), str(threads)]
    return engines


def openvino_engines(exported: Path, threads: int, inputs: Inputs) -> list[Engine]:
    """OpenVINO in fp32 and bf16 and, with NNCF beside it, in int8; none where they are not installed."""
    try:
        import openvino
    except ImportError:
        return []
    core = openvino.Core()

    def engine(name: str, model: openvino.Model, precision: str = "f32", is_int8: bool = False) -> Engine:
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        compiled = core.compile_model(model, "CPU", settings)
        used = {each.any_name for each in compiled.inputs}
        size = sum(node.get_data().nbytes for node in model.get_ops() if node.get_type_name() == "Constant")

        def run(values: Inputs) -> np.ndarray:
            return compiled({name: value for name, value in values.items() if name in used})[0]

        return Engine(name, run, size, None, is_int8)

    engines = [engine("OpenVINO fp32", core.read_model(exported)), engine("OpenVINO bf16", core.read_model(exported), "bf16")]
    try:
        import nncf
    except ImportError:
        return engines
    count = len(next(iter(inputs.values())))
    model = core.read_model(exported)
    used = {each.any_name for each in model.inputs}
    examples = nncf.Dataset([{name: value[i : i + 1] for name, value in inputs.items() if name in used} for i in range(count)])
    quantized = nncf.quantize(model, examples, model_type=nncf.ModelType.TRANSFORMER, subset_size=count)
    return [*engines, engine("OpenVINO + NNCF int8", quantized, is_int8=True)]


def ours(arguments: str, binary: Path, threads: int, work: Path) -> Engine:
    """`multiway run` on a file of inputs; its latency is what `multiway bench` reports, without the start of a process."""
    model, *extra = shlex.split(arguments)
    common = [*extra, "--threads", str(threads)]

    def run(inputs: Inputs) -> np.ndarray:
        stored, outputs = work / "inputs.safetensors", work / "outputs.safetensors"
        save_file(inputs, stored)
        outputs.unlink(missing_ok=True)
        subprocess.run(
            [binary, "run", model, "--inputs", stored, "--outputs", outputs, *common], check=True, capture_output=True
        )
        return load_file(outputs)["logits"]

    def report(batch: int, runs: int) -> dict[str, float]:
        command = [binary, "bench", model, "--batch", str(batch), "--runs", str(runs), *common, "--json"]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    engine = Engine(f"multiway, {' '.join([Path(model).name, *extra])}", run, Path(model).stat().st_size)
    engine.timed = lambda batch: report(batch, 5)["median_ms"]
    if not extra and model.endswith(".gguf"):
        engine.command = [str(binary), "bench", model, "--runs", "1", *common, "--json"]
    return engine


def row(engine: Engine, reference: np.ndarray, logits: np.ndarray) -> list[str]:
    a, b = reference.astype(np.float64), logits.astype(np.float64)
    cosine = np.sum(a * b, -1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return [
        engine.name,
        f"{engine.bytes / 1e6:.1f}",
        f"{sqnr(torch.from_numpy(reference), torch.from_numpy(logits)):.1f}",
        f"{cosine.min():.7f}",
        f"{np.abs(a - b).max():.2g}",
        f"{np.mean(a.argmax(-1) == b.argmax(-1)):.1%}",
    ]


def latencies(engines: list[Engine], inputs: Inputs, batch: int, rounds: int) -> list[float]:
    """The median time of a batch in each engine; the engines take turns, and the first round does not count."""
    samples: list[list[float]] = [[] for _ in engines]
    count = len(next(iter(inputs.values())))
    rows = [index % count for index in range(batch)]
    values = {name: np.ascontiguousarray(value[rows]) for name, value in inputs.items()}
    for number in range(rounds + 1):
        for engine, own in zip(engines, samples):
            if engine.timed:
                elapsed = engine.timed(batch)
            else:
                start = time.perf_counter()
                engine.run(values)
                elapsed = (time.perf_counter() - start) * 1000
            if number:
                own.append(elapsed)
    return [statistics.median(own) for own in samples]


def ratios(engines: list[Engine], times: list[float]) -> list[str]:
    """Each time as a share of the fastest int8 engine that is not ours."""
    peers = [own for engine, own in zip(engines, times) if engine.is_int8]
    return [f"{own / min(peers):.2f}" if peers else "" for own in times]


def first_logits(engines: list[Engine], inputs: Path, rounds: int) -> list[list[str]]:
    """Seconds from the start of a process to its first logits, and its peak memory in MB."""
    rows = []
    for engine in engines:
        if not engine.command:
            continue
        times, peak = [], 0
        for _ in range(rounds):
            start = time.time()
            extra = [str(inputs)] if engine.command[0] == sys.executable else []
            report = json.loads(subprocess.run([*engine.command, *extra], check=True, capture_output=True, text=True).stdout)
            times.append(report["first_result_ms"] / 1000 if "first_result_ms" in report else report["finished"] - start)
            peak = max(peak, report["peak_memory_bytes"])
        rows.append([engine.name, f"{statistics.median(times):.3f}", f"{peak / 1e6:.0f}"])
    return rows


def print_table(header: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]
    for line in [header, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a checkpoint whose output is logits, .pth")
    parser.add_argument("--inputs", type=Path, required=True, metavar="FILE", help="safetensors with the model's inputs; static int8 calibrates on it")
    parser.add_argument("--ours", action="append", default=[], metavar="MODEL", help="a model for our binary, and options after it in the same argument; may be given again")
    parser.add_argument("--multiway", type=Path, default=Path("multiway"), metavar="PATH", help="our binary")
    parser.add_argument("--heads", type=int, metavar="N", help="attention heads, where the checkpoint's args do not tell")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="threads for every engine")
    parser.add_argument("--time", action="store_true", help="measure latencies, and the start of a process, as well")
    parser.add_argument("--batch", type=int, action="append", metavar="N", help="examples at a time in a latency; may be given again; 1 by default")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="rounds of the latency measurement")
    options = parser.parse_args()
    if options.multiway.exists():
        options.multiway = options.multiway.resolve()  # a bare name would be looked for on the path

    inputs = load_file(options.inputs)
    inputs = {name: inputs[name] for name in ("image", "image2", "text", "padding_mask") if name in inputs}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        example = {name: value[:1] for name, value in inputs.items()}
        oracle, exported = pytorch(options.checkpoint, options.heads, options.threads, example, work)
        engines = [oracle, *onnxruntime_engines(exported, options.threads, inputs)]
        engines += openvino_engines(exported, options.threads, inputs)
        engines += [ours(arguments, options.multiway, options.threads, work) for arguments in options.ours]

        # One example at a time: an engine that quantizes activations per tensor would otherwise share a scale among them.
        count = len(next(iter(inputs.values())))
        each = [{name: value[i : i + 1] for name, value in inputs.items()} for i in range(count)]
        logits = [np.concatenate([engine.run(one) for one in each]) for engine in engines]
        header = ["engine", "MB", "SQNR dB", "cosine", "max abs", "top-1"]
        rows = [row(engine, logits[0], own) for engine, own in zip(engines, logits)]
        for batch in (options.batch or [1]) if options.time else []:
            times = latencies(engines, inputs, batch, options.rounds)
            header += [f"ms, batch {batch}", "× int8 peer"]
            rows = [[*cells, f"{own:.1f}", ratio] for cells, own, ratio in zip(rows, times, ratios(engines, times))]
        print_table(header, rows)
        if options.time:
            alone = work / "example.safetensors"
            save_file(example, alone)
            print_table(["engine", "s to the first logits", "peak MB"], first_logits(engines, alone, options.rounds))


if __name__ == "__main__":
    main()

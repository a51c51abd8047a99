"""Exports every fixture as ONNX and runs it in other people's runtimes.

    onnx_check.py                                every model of Tests/Fixtures, opset 17
    onnx_check.py --opset 13 --opset 21          in other opsets
    onnx_check.py --dtype f16                    with weights in another dtype
    onnx_check.py --int8 dynamic                 int8 artifacts against ONNX Runtime's own quantize_dynamic
    onnx_check.py --int8 qdq                     static ranges against ONNX Runtime's own quantize_static
    onnx_check.py model.pth --inputs in.safetensors

Each export must pass `onnx.checker`, and what ONNX Runtime and OpenVINO compute from it must have a signal-to-noise ratio of at
least 95 dB against `multiway run` of the same weights. With --int8 the signal is the checkpoint's output on the fixture's inputs and on
batches drawn around them, as a few outputs of one tiny model are a throw of dice, and the ratio must be at most 1 dB below that of
ONNX Runtime's own quantization of the fp32 export. Static ranges are found on the first batches and judged on the others; there ONNX
Runtime quantizes the same layers as we do.
Prints a Markdown table; the status is 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "Tests" / "Fixtures"
LEAST_DB = 95.0
MOST_INT8_LOSS_DB = 1.0

Arrays = dict[str, np.ndarray]


@dataclass
class Case:
    model: Path
    inputs: Path
    options: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.model.relative_to(FIXTURES)) if self.model.is_relative_to(FIXTURES) else self.model.name


def fixtures() -> list[Case]:
    """Every model of the fixtures with inputs for it."""
    cases = [Case(FIXTURES / "digits.pth", FIXTURES / "digits_test.safetensors")]
    for model in sorted(FIXTURES.glob("tiny/*.pth")) + sorted(FIXTURES.glob("tiny/heads/*.pth")):
        inputs = model.with_name(model.stem + "_inputs.safetensors")
        if inputs.exists():
            cases.append(Case(model, inputs))
    folders = sorted(FIXTURES.glob("family/*")) + [FIXTURES / "tiny" / "segmentation", FIXTURES / "vlmo"]
    for folder in folders:
        models = [path for path in sorted(folder.iterdir()) if path.is_dir() or path.suffix == ".pth" or path.stem == "timm"]
        cases += [Case(model, folder / "inputs.safetensors") for model in models if (folder / "inputs.safetensors").exists()]
    operators = ROOT / "Formats" / "onnx" / "golden"
    cases += [Case(path, path.with_name(path.stem + "_inputs.safetensors")) for path in sorted(operators.glob("*.gguf"))]
    return cases


def ratio(found: np.ndarray, wanted: np.ndarray) -> float:
    """Signal to noise in dB; negative infinity where the shapes differ or a number is not finite."""
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return -np.inf
    wanted = wanted.astype(np.float64)
    noise = np.square(found - wanted).sum()
    return np.inf if noise == 0 else 10 * np.log10(np.square(wanted).sum() / noise)


def worst(found: Arrays, wanted: Arrays) -> float:
    if found.keys() != wanted.keys():
        return -np.inf
    return min(ratio(value, wanted[name]) for name, value in found.items())


def drawn(arrays: Arrays, batches: int) -> list[Arrays]:
    """The inputs themselves and more batches like them: images with noise, words in another order, masks as they are."""
    random = np.random.default_rng(0)
    found = [arrays]
    for _ in range(batches - 1):
        batch = {}
        for name, value in arrays.items():
            if value.dtype == np.float32:
                batch[name] = (value + value.std() * random.standard_normal(value.shape)).astype(np.float32)
            elif value.dtype == np.int64:
                batch[name] = np.concatenate([value[:, :1], random.permuted(value[:, 1:], axis=1)], axis=1)
            else:
                batch[name] = value
        found.append(batch)
    return found


def pooled(run: Callable[[Arrays], Arrays], batches: list[Arrays], wanted: list[Arrays]) -> float:
    """The ratio of all batches together, that of the worst output."""
    found = [run(batch) for batch in batches]
    return worst(*({name: np.concatenate([part[name].ravel() for part in parts]) for name in parts[0]} for parts in (found, wanted)))


class Multiway:
    def __init__(self, program: Path) -> None:
        self.program = program

    def __call__(self, *arguments: object) -> None:
        command = [str(self.program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"multiway {arguments[0]}: exit code {done.returncode}: {done.stderr.strip()}")


def feeds(model: onnx.ModelProto, given: Arrays) -> Arrays:
    """The model's inputs: token ids int64, masks uint8; a mask that is not given pads nothing."""
    types = {1: np.float32, 2: np.uint8, 7: np.int64}
    arrays = {}
    for value in model.graph.input:
        if value.name in given:
            arrays[value.name] = given[value.name].astype(types[value.type.tensor_type.elem_type])
        elif "padding_mask" in value.name:
            arrays[value.name] = np.zeros(given["text"].shape, np.uint8)
        else:
            raise RuntimeError(f"there is no input {value.name}")
    return arrays


def run_onnxruntime(path: Path, arrays: Arrays) -> Arrays:
    return OnnxRuntime(path)(arrays)


class OpenVino:
    """A model in OpenVINO."""

    def __init__(self, path: Path) -> None:
        core = openvino.Core()
        self.compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def __call__(self, arrays: Arrays) -> Arrays:
        results = self.compiled(dict(arrays))
        return {output.get_any_name(): results[output].copy() for output in self.compiled.outputs}


def run_openvino(path: Path, arrays: Arrays) -> Arrays:
    return OpenVino(path)(arrays)


def check(path: Path) -> onnx.ModelProto:
    """The checker, with types and shapes of every node."""
    onnx.checker.check_model(str(path), full_check=True)
    return onnx.load(str(path), load_external_data=False)


@dataclass
class Row:
    cells: list[str]
    faults: list[str]
    gain: float | None = None
    """How many dB our int8 is above quantize_dynamic."""


def decibels(value: float) -> str:
    return "the same bits" if value == np.inf else f"{value:.1f}"


def float_row(multiway: Multiway, case: Case, opset: int, dtype: str, folder: Path) -> Row:
    exported, outputs = folder / "model.onnx", folder / "outputs.safetensors"
    try:
        multiway("convert", case.model, exported, "--opset", opset, "--dtype", dtype, *case.options)
        model = check(exported)
        source = case.model
        if dtype != "keep":
            source = folder / "model.gguf"
            multiway("convert", case.model, source, "--dtype", dtype, *case.options)
        options = case.options if source == case.model else []
        arrays = feeds(model, load_file(case.inputs))
        kept = folder / "inputs.safetensors"
        save_file({name: value.astype(np.int64) if value.dtype == np.uint8 else value for name, value in arrays.items()}, kept)
        multiway("run", source, "--inputs", kept, "--outputs", outputs, *options)
        wanted = load_file(outputs)
        found = worst(run_onnxruntime(exported, arrays), wanted), worst(run_openvino(exported, arrays), wanted)
    except Exception as error:  # Whatever a consumer raises is a fault of the export.
        return Row([case.name, str(opset), dtype, "failed", "", ""], [f"{type(error).__name__}: {error}"])
    faults = [f"{decibels(value)} dB in {name}" for name, value in zip(("ONNX Runtime", "OpenVINO"), found, strict=True) if value < LEAST_DB]
    return Row([case.name, str(opset), dtype, str(len(model.graph.node)), *map(decibels, found)], faults)


class OnnxRuntime:
    """A model in ONNX Runtime."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.names = [output.name for output in self.session.get_outputs()]

    def __call__(self, arrays: Arrays) -> Arrays:
        return dict(zip(self.names, self.session.run(None, arrays), strict=True))


BATCHES = 64


def int8_row(multiway: Multiway, case: Case, opset: int, recipe: str, folder: Path) -> Row:
    """Our int8 artifact as ONNX and ONNX Runtime's own quantization, both against the checkpoint."""
    plain, artifact, exported, theirs = (folder / name for name in ("plain.onnx", "int8.gguf", "int8.onnx", "theirs.onnx"))
    try:
        multiway("convert", case.model, plain, "--opset", opset, *case.options)
        multiway("quantize", case.model, artifact, "--recipe", recipe, *case.options)
        multiway("convert", artifact, exported, "--opset", opset)
        batches = drawn(feeds(check(exported), load_file(case.inputs)), BATCHES)
        quantize_dynamic(plain, theirs, weight_type=QuantType.QInt8, per_channel=True)
        reference = OnnxRuntime(plain)
        wanted = [reference(batch) for batch in batches]
        found = [pooled(OnnxRuntime(path), batches, wanted) for path in (exported, theirs)]
        own = worst({name: value for name, value in run_multiway(multiway, artifact, batches[0], folder).items() if name in wanted[0]}, wanted[0])
    except Exception as error:
        return Row([case.name, str(opset), "failed", "", ""], [f"{type(error).__name__}: {error}"])
    faults = [f"{found[1] - found[0]:.1f} dB below quantize_dynamic"] if found[0] < found[1] - MOST_INT8_LOSS_DB else []
    return Row([case.name, str(opset), *map(decibels, [*found, own])], faults, found[0] - found[1])


class Batches(CalibrationDataReader):
    """Batches for ONNX Runtime's calibration."""

    def __init__(self, batches: list[Arrays]) -> None:
        self.left = iter(batches)

    def get_next(self) -> Arrays | None:
        return next(self.left, None)


CALIBRATION_BATCHES = 4


def qdq_row(multiway: Multiway, case: Case, opset: int, folder: Path) -> Row:
    """Our static ranges and ONNX Runtime's, found on the same inputs and for the same layers, both against the checkpoint."""
    plain, exported, theirs, examples = (folder / name for name in ("plain.onnx", "qdq.onnx", "theirs.onnx", "examples.safetensors"))
    try:
        multiway("convert", case.model, plain, "--opset", opset, *case.options)
        batches = drawn(feeds(check(plain), load_file(case.inputs)), BATCHES)
        known, new = batches[:CALIBRATION_BATCHES], batches[CALIBRATION_BATCHES:]
        save_file({name: np.concatenate([batch[name].astype(np.int64) if value.dtype == np.uint8 else batch[name] for batch in known]) for name, value in batches[0].items()}, examples)
        multiway("convert", case.model, exported, "--opset", opset, "--int8", "qdq", "--calibration", examples, *case.options)
        model = check(exported)
        layers = {node.input[1].removesuffix("_dequantized") for node in model.graph.node if node.op_type == "MatMul" and node.input[1].endswith("_dequantized")}
        same = [node.name for node in onnx.load(str(plain)).graph.node if node.op_type == "MatMul" and node.input[1].removesuffix("_transposed") in layers]
        quantize_static(
            plain, theirs, Batches(known), quant_format=QuantFormat.QDQ, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
            per_channel=True, nodes_to_quantize=same,
        )  # fmt: skip
        reference = OnnxRuntime(plain)
        wanted = [reference(batch) for batch in new]
        found = [pooled(OnnxRuntime(exported), new, wanted), pooled(OpenVino(exported), new, wanted), pooled(OnnxRuntime(theirs), new, wanted)]
    except Exception as error:
        return Row([case.name, str(opset), "failed", "", "", ""], [f"{type(error).__name__}: {error}"])
    faults = [f"{found[2] - value:.1f} dB below quantize_static in {name}" for name, value in zip(("ONNX Runtime", "OpenVINO"), found, strict=False) if value < found[2] - MOST_INT8_LOSS_DB]
    return Row([case.name, str(opset), f"{len(same)} of {len(layers)}", *map(decibels, found)], faults, found[0] - found[2])


def run_multiway(multiway: Multiway, model: Path, arrays: Arrays, folder: Path) -> Arrays:
    inputs, outputs = folder / "inputs.safetensors", folder / "outputs.safetensors"
    save_file({name: value.astype(np.int64) if value.dtype == np.uint8 else value for name, value in arrays.items()}, inputs)
    outputs.unlink(missing_ok=True)
    multiway("run", model, "--inputs", inputs, "--outputs", outputs)
    return load_file(outputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", help="a checkpoint or an artifact; every fixture unless given")
    parser.add_argument("--inputs", type=Path, help="inputs for it")
    parser.add_argument("--multiway", type=Path, help="the program; that of the release build unless given")
    parser.add_argument("--opset", type=int, action="append", help="17 unless given; may be repeated")
    parser.add_argument("--dtype", default="keep", choices=["keep", "f32", "f16", "bf16"])
    parser.add_argument("--int8", choices=["dynamic", "qdq"], help="check int8 layers of this form instead")
    parser.add_argument("--recipe", default="int8-all", help="what makes the int8 artifacts; int8-all quantizes what quantize_dynamic does")
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    if (options.model is None) != (options.inputs is None):
        parser.error("a model goes with --inputs")
    cases = [Case(options.model.resolve(), options.inputs)] if options.model else fixtures()
    multiway = Multiway(options.multiway or ROOT / ".build" / "release" / "multiway")
    titles = {
        "dynamic": ["model", "opset", "ONNX Runtime dB", "its quantize_dynamic dB", "multiway run dB"],
        "qdq": ["model", "opset", "layers", "ONNX Runtime dB", "OpenVINO dB", "quantize_static dB"],
        None: ["model", "opset", "dtype", "nodes", "ONNX Runtime dB", "OpenVINO dB"],
    }[options.int8]
    print("| " + " | ".join(titles) + " |")
    print("|" + "---|" * len(titles))
    failed = False
    gains = []
    for opset in options.opset or [17]:
        for case in cases:
            if options.int8 and case.model.suffix == ".gguf":
                continue
            with tempfile.TemporaryDirectory() as folder:
                if options.int8 == "qdq":
                    row = qdq_row(multiway, case, opset, Path(folder))
                elif options.int8:
                    row = int8_row(multiway, case, opset, options.recipe, Path(folder))
                else:
                    row = float_row(multiway, case, opset, options.dtype, Path(folder))
            print("| " + " | ".join(row.cells) + " |", flush=True)
            for fault in row.faults:
                print(f"{case.name}, opset {opset}: {fault}", file=sys.stderr)
            failed = failed or bool(row.faults)
            gains += [] if row.gain is None else [row.gain]
    if options.int8:
        mean = float(np.mean(gains)) if gains else -np.inf
        print(f"\nmean over ONNX Runtime's own: {mean:+.1f} dB")
    sys.exit(failed)


if __name__ == "__main__":
    main()

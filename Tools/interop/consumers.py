"""One check for each format and consumer: that the consumer takes the file, and that what it reads or computes is what it must be.

A new row is a function and a line in `ROWS`.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
import transformers
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig
from gguf import GGUFReader, GGMLQuantizationType
from gguf.quants import dequantize
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import check
import onnx_check
import opening
from bench import LEAST_INT8_DB, Bench, decibels, require, same_tensors, state_of

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


# PyTorch


def torch_load(bench: Bench, dtype: str) -> str:
    made = bench.make("convert", bench.beit3, "--dtype", dtype, to=f"beit3_{dtype}.pth")
    wanted = {name: tensor.to(DTYPES[dtype]) for name, tensor in opening.read(bench.beit3).items()}
    return same_tensors(state_of(made), wanted)


def unilm_loader(bench: Bench, name: str, options: Sequence[str] = ()) -> str:
    """As unilm's fine-tuning loads: `checkpoint["model"]` into torchscale's modules, strictly."""
    verb = "prune" if "--keep" in options else "convert"
    made = bench.make(verb, bench.beit3, *options, to=name)
    require("model" in torch.load(made, map_location="cpu", weights_only=True, mmap=True), "the file has no 'model'")
    run = opening.open_strictly(made, "unilm", heads=bench.heads)
    return decibels(run({"image": bench.image})["logits"], bench.logits(made))


def timm_loads_pth(bench: Bench) -> str:
    made = bench.make("convert", bench.beit, "--layout", "timm", to="beit_timm.pth")
    run = opening.open_strictly(made, "timm")
    return decibels(run({"image": bench.image})["logits"], bench.logits(bench.beit))


# safetensors


def safetensors_reads(bench: Bench, dtype: str) -> str:
    made = bench.make("convert", bench.beit3, "--dtype", dtype, to=f"beit3_{dtype}.safetensors")
    wanted = {name: tensor.to(DTYPES[dtype]) for name, tensor in opening.read(bench.beit3).items()}
    return same_tensors(load_file(made), wanted)


def safetensors_reads_shards(bench: Bench) -> str:
    made = bench.make("convert", bench.beit3, "--shard-size", bench.shard_size, to="beit3_shards")
    index = json.loads((made / "model.safetensors.index.json").read_text())
    found: dict[str, Tensor] = {}
    for name in sorted(set(index["weight_map"].values())):
        with safe_open(made / name, framework="pt") as file:
            for key in file.keys():
                require(index["weight_map"][key] == name, f"{key} is not where the index says")
                found[key] = file.get_tensor(key)
    return same_tensors(found, opening.read(bench.beit3)) + f" in {len(set(index['weight_map'].values()))} shards"


def transformers_loads(bench: Bench, dtype: str, name: str, options: Sequence[str] = ()) -> str:
    """By name alone: the class, the weights and the image processor from the folder."""
    made = bench.make("convert", bench.beit, "--layout", "huggingface", "--dtype", dtype, *options, to=name)
    model, report = transformers.AutoModelForImageClassification.from_pretrained(made, output_loading_info=True, dtype=torch.float32)
    problems = {kind: sorted(map(str, names)) for kind, names in report.items() if names}
    require(not problems, f"not strict: {problems}")
    processor = transformers.AutoImageProcessor.from_pretrained(made)
    pixels = processor(np.zeros((300, 280, 3), np.uint8), return_tensors="pt")["pixel_values"]
    require(list(pixels.shape[2:]) == [224, 224] and abs(float(pixels.min()) + 1) < 1e-6, "the image processor prepares otherwise")
    with torch.inference_mode():
        found = model.eval()(pixel_values=bench.image).logits
    return f"{type(model).__name__}: " + decibels(found, bench.logits(made))


def timm_loads(bench: Bench, source: str, dtype: str) -> str:
    """By name alone: `local-dir:` finds the architecture, its sizes and the image's preparation."""
    model_path = bench.beit3 if source == "beit3" else bench.beit
    made = bench.make("convert", model_path, "--layout", "timm", "--dtype", dtype, to=f"{source}_timm_{dtype}")
    model = timm.create_model(f"local-dir:{made}", pretrained=True).eval()
    mean = timm.data.resolve_model_data_config(model)["mean"]
    require(tuple(mean) == ((0.485, 0.456, 0.406) if source == "beit3" else (0.5, 0.5, 0.5)), f"images would have the mean {mean}")
    with torch.inference_mode():
        found = model(bench.image)
    return f"{type(model).__name__}: " + decibels(found, bench.logits(made))


def int8_folder(bench: Bench) -> Path:
    return bench.make("quantize", bench.beit, "--layout", "huggingface", to="beit_int8")


def compressed_tensors_reads(bench: Bench) -> str:
    """Every layer as the library decompresses it, against int8 times scale."""
    made = int8_folder(bench)
    configuration = QuantizationConfig.model_validate(json.loads((made / "config.json").read_text())["quantization_config"])
    compressor = BaseCompressor.get_value_from_registry(configuration.format)
    schemes = {group.weights.group_size: group for group in configuration.config_groups.values()}
    state = load_file(made / "model.safetensors")
    layers = [name.removesuffix("_scale") for name in state if name.endswith(".weight_scale")]
    for name in layers:
        weight, scale = state[name], state[name + "_scale"]
        length = weight.shape[1] // scale.shape[1]
        scheme = schemes[None if scale.shape[1] == 1 else length]
        found = compressor.decompress({"weight": weight, "weight_scale": scale}, scheme)["weight"]
        wanted = (weight.float().reshape(weight.shape[0], scale.shape[1], length) * scale[:, :, None]).reshape(weight.shape)
        require(torch.equal(found, wanted), f"{name} decompresses to other values")
    return f"{len(layers)} layers, the same values"


def transformers_loads_int8(bench: Bench) -> str:
    made = int8_folder(bench)
    model, report = transformers.AutoModelForImageClassification.from_pretrained(made, output_loading_info=True, dtype=torch.float32)
    problems = {kind: sorted(map(str, names)) for kind, names in report.items() if names}
    require(not problems, f"not strict: {problems}")
    with torch.inference_mode():
        found = model.eval()(pixel_values=bench.image).logits
    return decibels(found, bench.logits(bench.beit), least=LEAST_INT8_DB) + " against fp32"


# GGUF


def every_type(bench: Bench) -> Path:
    """A state dict of no architecture with all types that a plain GGUF file can hold."""
    path = bench.path("types.safetensors")
    kinds = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int16, torch.int32, torch.int64)
    save_file({str(kind): (torch.arange(-48, 48) / 4).reshape(4, 24).to(kind) for kind in kinds}, path)
    return path


def gguf_reads(bench: Bench, verb: str, name: str, options: Sequence[str] = (), source: Callable[[Bench], Path] | None = None) -> str:
    """Keys, places and every tensor, dequantized by the library, against what this tool gives of the same file."""
    made = bench.make(verb, source(bench) if source else bench.beit3, *options, to=name)
    faults = check.gguf_faults(made)
    require(not faults, "; ".join(faults[:3]))
    wanted = load_file(bench.make("convert", made, to=name + ".safetensors"))
    tensors = GGUFReader(made).tensors
    require({tensor.name for tensor in tensors} == wanted.keys(), "other names")
    kinds = set()
    for tensor in tensors:
        kinds.add(tensor.tensor_type.name)
        expected = wanted[tensor.name]
        found = tensor.data
        if tensor.tensor_type in (GGMLQuantizationType.F16, GGMLQuantizationType.BF16) or tensor.tensor_type.name.startswith("Q"):
            found, expected = dequantize(tensor.data, tensor.tensor_type), expected.float()
        require(np.array_equal(np.asarray(found).reshape(-1), expected.numpy().reshape(-1)), f"{tensor.name} has other values")
    return f"{len(tensors)} tensors ({', '.join(sorted(kinds))}), the same values"


# ONNX


def onnx_runs(bench: Bench, dtype: str) -> str:
    """`onnx.checker`, ONNX Runtime and OpenVINO: `onnx_check.py`, which holds every fixture to the same."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        row = onnx_check.float_row(bench.multiway, onnx_check.Case(bench.beit3, bench.inputs), 17, dtype, Path(folder))
    require(not row.faults, "; ".join(row.faults))
    return f"checked; {row.cells[4]} and {row.cells[5]} dB"


def onnx_int8(bench: Bench, form: str) -> str:
    """An int8 model in ONNX Runtime, in each form beside what ONNX Runtime's own quantization makes of the same layers."""
    case = onnx_check.Case(bench.beit3, bench.inputs)
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        if form == "dynamic":
            row = onnx_check.int8_row(bench.multiway, case, 17, "int8-all", Path(folder))
        else:
            row = onnx_check.qdq_row(bench.multiway, case, 17, Path(folder))
    require(not row.faults, "; ".join(row.faults))
    if form == "dynamic":
        return f"checked; {row.cells[2]} dB, quantize_dynamic {row.cells[3]} dB"
    return f"checked; {row.cells[3]} and {row.cells[4]} dB, quantize_static {row.cells[5]} dB"


# zstd


def zstd(*arguments: object) -> None:
    done = subprocess.run(["zstd", "--quiet", "--force", *map(str, arguments)], capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"zstd {arguments[0]}: {done.stderr.strip()}")


def artifacts(bench: Bench) -> tuple[Path, Path]:
    """Two int8 artifacts, the second without the text experts."""
    return bench.make("quantize", bench.beit3, to="beit3_int8.gguf"), bench.make("quantize", bench.beit3, "--recipe", "int8-all", to="beit3_all.gguf")


def zstd_unpacks(bench: Bench) -> str:
    source, _ = artifacts(bench)
    packed = bench.make("pack", source, to="packed.zst")
    zstd("-d", packed, "-o", bench.path("unpacked"))
    require(bench.path("unpacked").read_bytes() == source.read_bytes(), "other bytes")
    zstd(source, "-o", bench.path("theirs.zst"))
    bench.multiway("unpack", bench.path("theirs.zst"), bench.path("back.gguf"))
    require(bench.path("back.gguf").read_bytes() == source.read_bytes(), "what zstd packed unpacks to other bytes")
    return f"{packed.stat().st_size / source.stat().st_size:.1%} of the file; both ways"


def zstd_patches(bench: Bench) -> str:
    old, new = artifacts(bench)
    delta = bench.path("delta.zst")
    bench.multiway("delta", old, new, delta)
    zstd("-d", "--long=31", f"--patch-from={old}", delta, "-o", bench.path("patched"))
    require(bench.path("patched").read_bytes() == new.read_bytes(), "other bytes")
    zstd("--long=31", f"--patch-from={old}", new, "-o", bench.path("theirs.patch"))
    bench.multiway("apply", old, bench.path("theirs.patch"), bench.path("applied.gguf"))
    require(bench.path("applied.gguf").read_bytes() == new.read_bytes(), "what zstd wrote applies to other bytes")
    return f"{delta.stat().st_size / new.stat().st_size:.1%} of the file; both ways"


@dataclass
class Row:
    format: str
    consumer: str
    check: Callable[[Bench], str]


ROWS = [
    Row(".pth f32", "torch.load, weights_only", partial(torch_load, dtype="f32")),
    Row(".pth f16", "torch.load, weights_only", partial(torch_load, dtype="f16")),
    Row(".pth bf16", "torch.load, weights_only", partial(torch_load, dtype="bf16")),
    Row(".pth f32", "unilm's loader, torchscale", partial(unilm_loader, name="beit3_f32.pth")),
    Row(".pth f16", "unilm's loader, torchscale", partial(unilm_loader, name="beit3_f16.pth", options=("--dtype", "f16"))),
    Row(".pth pruned", "unilm's loader, torchscale", partial(unilm_loader, name="beit3_vision.pth", options=("--keep", "vision"))),
    Row(".pth, timm's keys", "timm", timm_loads_pth),
    Row(".safetensors f32", "safetensors", partial(safetensors_reads, dtype="f32")),
    Row(".safetensors f16", "safetensors", partial(safetensors_reads, dtype="f16")),
    Row(".safetensors bf16", "safetensors", partial(safetensors_reads, dtype="bf16")),
    Row("folder, shards", "safetensors", safetensors_reads_shards),
    Row("folder f32, Hugging Face's keys", "transformers, by name", partial(transformers_loads, dtype="f32", name="beit_hf")),
    Row("folder f16, Hugging Face's keys", "transformers, by name", partial(transformers_loads, dtype="f16", name="beit_hf_f16")),
    Row("folder bf16, Hugging Face's keys", "transformers, by name", partial(transformers_loads, dtype="bf16", name="beit_hf_bf16")),
    Row("folder, Hugging Face's keys, shards", "transformers, by name", lambda bench: transformers_loads(bench, "f32", "beit_hf_shards", ("--shard-size", bench.shard_size))),
    Row("folder f32, timm's keys", "timm, by name: BEiT", partial(timm_loads, source="beit", dtype="f32")),
    Row("folder f16, timm's keys", "timm, by name: BEiT", partial(timm_loads, source="beit", dtype="f16")),
    Row("folder f32, timm's keys", "timm, by name: BEiT-3", partial(timm_loads, source="beit3", dtype="f32")),
    Row("folder int8", "compressed-tensors", compressed_tensors_reads),
    Row("folder int8", "transformers, by name", transformers_loads_int8),
    Row(".gguf artifact f32", "gguf", partial(gguf_reads, verb="convert", name="beit3.gguf")),
    Row(".gguf artifact f16", "gguf", partial(gguf_reads, verb="convert", name="beit3_f16.gguf", options=("--dtype", "f16"))),
    Row(".gguf artifact bf16", "gguf", partial(gguf_reads, verb="convert", name="beit3_bf16.gguf", options=("--dtype", "bf16"))),
    Row(".gguf artifact int8", "gguf", partial(gguf_reads, verb="quantize", name="beit3_int8.gguf")),
    Row(".gguf artifact int8-weights", "gguf", partial(gguf_reads, verb="quantize", name="beit3_q8.gguf", options=("--recipe", "int8-weights"))),
    Row(".gguf artifact int4", "gguf", partial(gguf_reads, verb="quantize", name="beit3_q4.gguf", options=("--recipe", "int4"))),
    Row(".gguf plain, every type", "gguf", partial(gguf_reads, verb="convert", name="types.gguf", source=every_type)),
    Row(".onnx f32", "onnx.checker, ONNX Runtime, OpenVINO", partial(onnx_runs, dtype="keep")),
    Row(".onnx f16", "onnx.checker, ONNX Runtime, OpenVINO", partial(onnx_runs, dtype="f16")),
    Row(".onnx int8, dynamic", "onnx.checker, ONNX Runtime", partial(onnx_int8, form="dynamic")),
    Row(".onnx int8, QDQ", "onnx.checker, ONNX Runtime, OpenVINO", partial(onnx_int8, form="qdq")),
    Row("pack", "zstd", zstd_unpacks),
    Row("delta", "zstd --patch-from", zstd_patches),
]

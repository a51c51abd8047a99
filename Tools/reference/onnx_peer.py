"""ONNX Runtime's dynamic int8 on a PyTorch module: the peer that int8 is measured against."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

Outputs = dict[str, Tensor]


LARGEST_WHOLE = 1_500_000_000
"""Bytes of weights up to which a file holds them itself: protobuf ends at 2 GB."""


def quantize(exported: Path, quantized: Path, *, beside: bool = False) -> None:
    """ONNX Runtime's dynamic int8 as it is compared with here; `beside` puts the weights into a file of their own."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)
    quantize_dynamic(
        exported, quantized, per_channel=True, reduce_range=False, weight_type=QuantType.QInt8, use_external_data_format=beside
    )


class Positional(nn.Module):
    """A function of named tensors with places for names, as the exporter wants it. `module` holds the weights."""

    def __init__(self, module: nn.Module, run: Callable[[Mapping[str, Tensor]], Outputs], names: list[str]) -> None:
        super().__init__()
        self.module, self.run, self.names = module, run, names

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.run(dict(zip(self.names, inputs))).values())


def dynamic_int8(
    module: nn.Module, run: Callable[[Mapping[str, Tensor]], Outputs], inputs: Mapping[str, Tensor], outputs: list[str], folder: Path
) -> Outputs:
    """What ONNX Runtime computes for these inputs once every MatMul of the exported module is int8, with a scale a channel of the
    weights. `outputs` are the names of what `run` gives, in its order."""
    import onnxruntime

    exported, quantized = folder / "model.onnx", folder / "int8.onnx"
    names = list(inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Positional(module, run, names).eval(),
            tuple(inputs.values()),
            str(exported),
            input_names=names,
            output_names=outputs,
            opset_version=17,
            dynamo=False,
        )
        size = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
        quantize(exported, quantized, beside=size > LARGEST_WHOLE)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(quantized), options, providers=["CPUExecutionProvider"])
    used = {each.name for each in session.get_inputs()}
    results = session.run(outputs, {name: tensor.numpy() for name, tensor in inputs.items() if name in used})
    return {name: torch.from_numpy(result) for name, result in zip(outputs, results)}

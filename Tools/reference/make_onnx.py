"""Makes the ONNX models of Formats/onnx/golden and Formats/onnx/malformed that readers are tested with, and their manifests.

    python3 Tools/reference/make_onnx.py

The models are written byte by byte, as the malformed ones break rules that libraries keep. It needs no package. `operators.onnx` is made by
multiway itself: its entry in the manifest names no tensors.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

FORMAT = Path(__file__).resolve().parents[2] / "Formats" / "onnx"
FLOAT, UINT8, INT8, INT32, INT64, STRING, FLOAT16, DOUBLE, UINT64, BFLOAT16 = 1, 2, 3, 6, 7, 8, 10, 11, 13, 16
NAMES = {FLOAT: "F32", UINT8: "U8", INT8: "I8", INT32: "I32", INT64: "I64", FLOAT16: "F16", DOUBLE: "F64", UINT64: "U64", BFLOAT16: "BF16"}


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def block(field: int, content: bytes | str) -> bytes:
    content = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(content)) + content


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def packed(*values: int) -> bytes:
    return b"".join(map(varint, values))


def tensor(name: str, kind: int, shape: Sequence[int], data: bytes = b"", field: int = 9, more: bytes = b"") -> bytes:
    content = b"".join(number(1, size) for size in shape) + number(2, kind) + block(8, name)
    return block(5, content + (block(field, data) if data or field != 9 else b"") + more)


def external(location: str, offset: int | str | None = None, length: int | str | None = None) -> bytes:
    entries = [("location", location), ("offset", offset), ("length", length)]
    return b"".join(block(13, block(1, key) + block(2, str(value))) for key, value in entries if value is not None) + number(14, 1)


def node(kind: str, inputs: Sequence[str], output: str, name: str = "", more: bytes = b"") -> bytes:
    return block(1, b"".join(block(1, value) for value in inputs) + block(2, output) + block(3, name) + block(4, kind) + more)


def axis(value: int) -> bytes:
    return block(5, block(1, "axis") + number(3, value) + number(20, 2))


def scopes(*modules: str) -> bytes:
    return block(9, block(1, "pkg.torch.onnx.name_scopes") + block(2, str(list(modules))))


def remark(name: str, key: str, value: str) -> bytes:
    return block(13, block(1, name) + block(4, block(1, key) + block(2, value)))


def folded(name: str, *sources: str) -> bytes:
    return remark(name, "pkg.onnxscript.optimizer.folded_from", str(list(sources)))


def parameter(name: str) -> bytes:
    return remark(name, "pkg.torch.export.graph_signature.InputSpec.kind", "PARAMETER")


def model(graph: bytes, producer: str = "test", opset: int = 17, more: bytes = b"") -> bytes:
    return number(1, 8) + block(2, producer) + block(7, graph) + block(8, block(1, "") + number(2, opset)) + more


def value(kind: int, shape: Sequence[int], data: bytes) -> dict[str, object]:
    return {"dtype": NAMES[kind], "shape": list(shape), "sha256": hashlib.sha256(data).hexdigest()}


ONE_TO_SIX = floats(1, 2, 3, 4, 5, 6)
TRANSPOSED = floats(1, 4, 2, 5, 3, 6)  # [2, 3] of the values above seen as [3, 2].
WEIGHT = tensor("w", FLOAT, [2, 3], ONE_TO_SIX)


def golden(add: Callable[..., None]) -> None:
    add("raw.onnx", "raw bytes", model(WEIGHT), {"w": value(FLOAT, [2, 3], ONE_TO_SIX)})
    typed = (
        tensor("f32", FLOAT, [2], floats(1, -2), 4)
        + tensor("f16", FLOAT16, [2], packed(0x3C00, 0xC000), 5)
        + tensor("bf16", BFLOAT16, [2, 1], packed(0x3F80, 0xC000), 5)
        + tensor("i8", INT8, [2, 2], packed(-128, -1, 0, 127), 5)
        + tensor("u8", UINT8, [2, 1], packed(255, 0), 5)
        + tensor("i32", INT32, [1, 2], packed(-(2**31), 2**31 - 1), 5)
        + tensor("i64", INT64, [1, 2], packed(-(2**63), 5), 7)
        + tensor("f64", DOUBLE, [1], struct.pack("<d", 0.1), 10)
        + tensor("u64", UINT64, [1, 1], packed(2**64 - 1), 11)
    )
    add(
        "typed.onnx",
        "elements in the fields that have a type",
        model(typed),
        {
            "f32": value(FLOAT, [2], floats(1, -2)),
            "f16": value(FLOAT16, [2], bytes([0, 0x3C, 0, 0xC0])),
            "bf16": value(BFLOAT16, [2, 1], bytes([0x80, 0x3F, 0, 0xC0])),
            "i8": value(INT8, [2, 2], bytes([128, 255, 0, 127])),
            "u8": value(UINT8, [2, 1], bytes([255, 0])),
            "i32": value(INT32, [1, 2], struct.pack("<2i", -(2**31), 2**31 - 1)),
            "i64": value(INT64, [1, 2], struct.pack("<2q", -(2**63), 5)),
            "f64": value(DOUBLE, [1], struct.pack("<d", 0.1)),
            "u64": value(UINT64, [1, 1], b"\xff" * 8),
        },
    )
    (FORMAT / "golden" / "external.data").write_bytes(bytes(64) + ONE_TO_SIX + floats(7, 8))
    outside = tensor("w", FLOAT, [2, 3], more=external("external.data", 64, 24)) + tensor("b", FLOAT, [2], more=external("external.data", 88))
    add("external.onnx", "two tensors in a file beside it, one without a length", model(outside), {"w": value(FLOAT, [2, 3], ONE_TO_SIX), "b": value(FLOAT, [2], floats(7, 8))})
    add(
        "shapes.onnx",
        "an empty tensor, a scalar, packed dimensions; numbers that nodes want are no weights",
        model(
            tensor("none", FLOAT, [0, 4])
            + tensor("scalar", FLOAT, [], floats(3))
            + tensor("axes", INT64, [2], struct.pack("<2q", 0, 1))
            + block(5, block(1, packed(3, 2)) + number(2, FLOAT) + block(8, "w") + block(9, ONE_TO_SIX))
        ),
        {"none": value(FLOAT, [0, 4], b""), "scalar": value(FLOAT, [], floats(3)), "w": value(FLOAT, [3, 2], ONE_TO_SIX)},
    )
    subgraph = block(6, block(2, "inner") + tensor("w", FLOAT, [1], floats(9)))
    add(
        "unknown.onnx",
        "fields, element types and subgraphs that are not looked into",
        model(
            node("If", ["c"], "y", "", block(5, block(1, "then_branch") + subgraph + number(20, 5)))
            + WEIGHT
            + tensor("words", STRING, [1], b"word", 6)
            + block(99, b"?")
            + varint(98 << 3 | 5) + bytes(4) + varint(97 << 3 | 1) + bytes(8),
            more=block(14, block(1, "key") + block(2, "value")) + block(25, block(1, "function")),
        ),
        {"w": value(FLOAT, [2, 3], ONE_TO_SIX)},
    )  # fmt: skip
    legacy = (
        node("MatMul", ["x", "onnx::MatMul_1"], "p", "/layers.0/proj/MatMul")
        + node("Add", ["layers.0.proj.bias", "p"], "q", "/layers.0/proj/Add")
        + node("MatMul", ["q", "onnx::MatMul_2"], "r", "/blocks/blocks.1/attn/k_proj/MatMul")
        + node("MatMul", ["r", "onnx::MatMul_3"], "s", "/blocks.0/attn/MatMul")
        + node("Add", ["s", "onnx::Add_4"], "t", "/blocks.0/attn/Add")
        + tensor("layers.0.proj.bias", FLOAT, [2], floats(0, 1))
        + tensor("onnx::Add_4", FLOAT, [3], floats(1, 0, 2))
        + tensor("onnx::MatMul_1", FLOAT, [3, 2], TRANSPOSED)
        + tensor("onnx::MatMul_2", FLOAT, [3, 2], TRANSPOSED)
        + tensor("onnx::MatMul_3", FLOAT, [2, 3], TRANSPOSED)
    )
    matrix = value(FLOAT, [2, 3], floats(1, 2, 3, 4, 5, 6))
    add(
        "torch_legacy.onnx",
        "matrices that torch's older exporter transposed: named by the bias beside them, or by the module of their node",
        model(legacy, "pytorch"),
        {
            "layers.0.proj.weight": matrix,
            "blocks.1.attn.k_proj.weight": matrix,
            "blocks.0.attn.qkv.weight": value(FLOAT, [3, 2], floats(1, 5, 4, 3, 2, 6)),
            "blocks.0.attn.q_bias": value(FLOAT, [1], floats(1)),
            "blocks.0.attn.v_bias": value(FLOAT, [1], floats(2)),
        },
    )
    dynamo = (
        node("Concat", ["expand", "x"], "a", "node_cat", scopes("", "cat"))
        + node("MatMul", ["a", "val_12"], "b", "node_MatMul_3", scopes("", "blocks.0", "blocks.0.attn", "linear"))
        + node("Add", ["b", "cat_1"], "c", "node_linear", scopes("", "blocks.0", "blocks.0.attn", "linear"))
        + tensor("expand", FLOAT, [1, 1, 2], floats(5, 6))
        + tensor("val_12", FLOAT, [2, 3], TRANSPOSED)
        + tensor("cat_1", FLOAT, [3], floats(1, 0, 2))
        + tensor("sub", FLOAT, [3, 2], ONE_TO_SIX)
        + tensor("gamma", FLOAT, [2], floats(7, 8))
        + folded("expand", "cls_token", "val_6")
        + folded("val_12", "blocks.0.attn.qkv.weight")
        + folded("cat_1", "blocks.0.attn.k_bias", "blocks.0.attn.q_bias", "blocks.0.attn.v_bias")
        + folded("sub", "arange", "zeros")
        + parameter("gamma")
    )
    add(
        "torch_dynamo.onnx",
        "constants that torch's newer exporter folded, named by what it says that they were folded from",
        model(dynamo, "pytorch"),
        {
            "cls_token": value(FLOAT, [1, 1, 2], floats(5, 6)),
            "blocks.0.attn.qkv.weight": value(FLOAT, [3, 2], floats(1, 5, 4, 3, 2, 6)),
            "blocks.0.attn.q_bias": value(FLOAT, [1], floats(1)),
            "blocks.0.attn.v_bias": value(FLOAT, [1], floats(2)),
            "gamma": value(FLOAT, [2], floats(7, 8)),
        },
    )
    integers = bytes([1, 2, 3, 253, 254, 255])
    qdq = (
        node("DequantizeLinear", ["w_quantized", "w_scale", "w_zero_point"], "w_dequantized", "", axis(1))
        + node("MatMul", ["x", "w_dequantized"], "y")
        + tensor("w_quantized", INT8, [3, 2], integers)
        + tensor("w_scale", FLOAT, [2], floats(0.5, 2))
        + tensor("w_zero_point", INT8, [2], bytes([1, 0]))
    )
    add(
        "qdq.onnx",
        "int8 with a scale and a zero point for each column, dequantized and transposed",
        model(qdq),
        {"w": value(FLOAT, [2, 3], floats(0, 1, -1.5, 4, -6, -2))},
    )
    chain = "".join
    dynamic = b"".join(
        node("MatMulInteger", ["q", name], chain([name, "/i"]))
        + node("Cast", [chain([name, "/i"])], chain([name, "/f"]))
        + node("Mul", ["a_scale", scale], chain([name, "/s"]))
        + node("Mul", [chain([name, "/f"]), chain([name, "/s"])], chain([name, "/y"]))
        + tensor(name, INT8, [len(data) // 2, 2], data)
        + tensor(scale, FLOAT, [2], floats(0.5, 2))
        for name, scale, data in [
            ("l.weight.int8/group_0", "l.weight.scale/group_0", integers[:4]),
            ("l.weight.int8/group_1", "l.weight.scale/group_1", integers[4:]),
            ("m.weight_quantized", "m.weight_scale", integers),
        ]
    )
    whole = floats(0.5, 4, 1.5, -6, -1, -2)
    add(
        "dynamic.onnx",
        "MatMulInteger: groups of inputs joined, and ONNX Runtime's own names",
        model(dynamic),
        {"l.weight": value(FLOAT, [2, 3], floats(0.5, 1.5, -1, 4, -6, -2)), "m.weight": value(FLOAT, [3, 2], whole)},
    )
    add("operators.onnx", "what multiway writes, with every op", None, {})


def malformed(add: Callable[..., None]) -> None:
    whole = model(WEIGHT)
    add("no_graph.onnx", "a model of headers only", "malformed", number(1, 8) + block(2, "test"))
    add("no_weights.onnx", "a graph without tensors", "noTensors", model(node("Relu", ["x"], "y")))
    add("two_graphs.onnx", "a second graph", "malformed", whole + block(7, WEIGHT))
    add("cut_graph.onnx", "the end is missing", "truncated", whole[:-30])
    add("cut_number.onnx", "it ends within a number", "truncated", whole + b"\x72\x80")
    add("graph_huge.onnx", "a graph of 2^63 bytes", "truncated", number(1, 8) + block(2, "test") + varint(7 << 3 | 2) + varint(2**63))
    add("varint_long.onnx", "a number of eleven bytes", "malformed", model(block(5, b"\x08" + b"\x80" * 10 + b"\x01")))
    add("field_zero.onnx", "a field with the number 0", "malformed", model(block(5, b"\x02\x00")))
    add("group.onnx", "a group, which ONNX does not have", "malformed", model(block(5, b"\x0b\x0c")))
    add("name_number.onnx", "a name that is a number", "malformed", model(block(5, number(8, 1))))
    add("name_utf8.onnx", "a name that is not UTF-8", "malformed", model(block(5, block(8, b"\xff\xfe"))))
    add("past_tensor.onnx", "a field longer than its tensor", "malformed", model(block(5, varint(9 << 3 | 2) + varint(9)) + WEIGHT))
    add("dim_negative.onnx", "a negative size", "malformed", model(tensor("w", FLOAT, [-1, 3], ONE_TO_SIX)))
    add("dim_overflow.onnx", "sizes that overflow", "malformed", model(tensor("w", FLOAT, [2**40, 2**40], ONE_TO_SIX)))
    add("dim_bytes_overflow.onnx", "bytes that overflow", "malformed", model(tensor("w", DOUBLE, [2**61], ONE_TO_SIX)))
    add("rank_65.onnx", "65 dimensions", "overBudget", model(tensor("w", FLOAT, [1] * 65, floats(1))))
    add("raw_short.onnx", "fewer bytes than the shape takes", "sizeMismatch", model(tensor("w", FLOAT, [2, 4], ONE_TO_SIX)))
    add("raw_long.onnx", "more bytes than the shape takes", "sizeMismatch", model(tensor("w", FLOAT, [5], ONE_TO_SIX)))
    add("no_data.onnx", "a tensor without elements", "sizeMismatch", model(tensor("w", FLOAT, [6])))
    add("data_twice.onnx", "elements in two fields", "malformed", model(tensor("w", FLOAT, [6], ONE_TO_SIX, more=block(4, ONE_TO_SIX))))
    add("wrong_field.onnx", "fp32 elements in the field of integers", "malformed", model(tensor("w", FLOAT, [2], packed(1, 2), 5)))
    add("huge_typed.onnx", "a terabyte of integers in two bytes", "sizeMismatch", model(tensor("w", INT32, [2**38], packed(1, 2), 5)))
    add("typed_many.onnx", "more numbers than the shape has", None, model(tensor("w", INT8, [2, 1], packed(1, 2, 3), 5)))
    add("typed_few.onnx", "fewer numbers than the shape has", None, model(tensor("w", INT8, [2, 2], packed(1, 300, 300), 5)))
    add("typed_endless.onnx", "a number that does not end", None, model(tensor("w", INT8, [2, 1], b"\x01\x80\x80", 5)))
    add("one_by_one.onnx", "numbers that are not packed", "unsupported", model(block(5, number(1, 1) + number(2, INT32) + block(8, "w") + number(5, 7))))
    add("segment.onnx", "a tensor in segments", "unsupported", model(block(5, block(8, "w") + block(3, number(1, 0)))))
    add("same_name.onnx", "two tensors of one name", "duplicateName", model(WEIGHT + WEIGHT))
    add("external_parent.onnx", "data in the parent folder", "leavesFolder", model(tensor("w", FLOAT, [2, 3], more=external("../golden/external.data", 64, 24))))
    add("external_inner_parent.onnx", "data outside by a detour", "leavesFolder", model(tensor("w", FLOAT, [1], more=external("a/../../golden/external.data", 64))))
    add("external_absolute.onnx", "data by an absolute path", "leavesFolder", model(tensor("w", FLOAT, [1], more=external("/dev/zero", 0, 4))))
    add("external_missing.onnx", "data that is not there", "missingRecord", model(tensor("w", FLOAT, [1], more=external("nothing.data", 0, 4))))
    add("external_folder.onnx", "a folder as data", "leavesFolder", model(tensor("w", FLOAT, [1], more=external(".", 0, 4))))
    add("external_zero_byte.onnx", "a zero byte in the name", "leavesFolder", model(tensor("w", FLOAT, [1], more=external("manifest.json\0.data", 0, 4))))
    add("external_nowhere.onnx", "data without a name", "malformed", model(tensor("w", FLOAT, [1], more=number(14, 1))))
    add("external_negative.onnx", "a negative offset", "malformed", model(tensor("w", FLOAT, [1], more=external("manifest.json", -4, 4))))
    add("external_past_end.onnx", "data past the end of its file", "truncated", model(tensor("w", FLOAT, [1], more=external("manifest.json", 2**40, 4))))
    add("external_overflow.onnx", "an end that overflows", "truncated", model(tensor("w", FLOAT, [1], more=external("manifest.json", 2**63 - 2, 4))))
    add("external_length.onnx", "a length that is not the shape's", "sizeMismatch", model(tensor("w", FLOAT, [2], more=external("manifest.json", 0, 4))))
    add("external_and_raw.onnx", "elements here and there", "malformed", model(tensor("w", FLOAT, [1], floats(1), more=external("manifest.json", 0, 4))))


def main() -> None:
    cases: list[dict[str, object]] = []

    def good(path: str, reason: str, content: bytes | None, values: dict[str, object]) -> None:
        if content is not None:
            (FORMAT / "golden" / path).write_bytes(content)
        cases.append({"path": path, "expect": "ok", "reason": reason, "values": values})

    def bad(path: str, reason: str, error: str | None, content: bytes) -> None:
        (FORMAT / "malformed" / path).write_bytes(content)
        cases.append({"path": path, "expect": "error", "reason": reason} | ({"error": error} if error else {}))

    for folder, make, add in (("golden", golden, good), ("malformed", malformed, bad)):
        (FORMAT / folder).mkdir(exist_ok=True)
        cases.clear()
        make(add)
        (FORMAT / folder / "manifest.json").write_text(json.dumps({"cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Makes the files under Formats that pin the containers beside zip and safetensors, with their manifests.

    make_formats.py

Good files come from the libraries themselves (torch, numpy, gguf) where they can still write them, and their values from
the same libraries. The tar form and every malformed file are written byte by byte.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import pickle
import struct
import tarfile
import warnings
import zipfile

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

FORMATS = Path(__file__).resolve().parents[2] / "Formats"
NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.uint16: "U16", torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.complex64: "C64",
}
NUMPY_NAMES = {
    "f2": "F16", "f4": "F32", "f8": "F64", "i1": "I8", "i2": "I16", "i4": "I32", "i8": "I64", "u1": "U8", "u2": "U16",
    "u4": "U32", "u8": "U64", "b1": "BOOL", "c8": "C64",
}


# Manifests


class Folder:
    """A folder of cases; those of other origin in its manifest stay."""

    def __init__(self, path: str) -> None:
        self.path = FORMATS / path
        self.path.mkdir(parents=True, exist_ok=True)
        self.manifest = self.path / "manifest.json"
        known = json.loads(self.manifest.read_text()) if self.manifest.exists() else {"cases": []}
        self.cases: dict[str, dict[str, Any]] = {case["path"]: case for case in known["cases"]}

    def good(self, name: str, data: bytes, reason: str, values: Mapping[str, Any], **extra: Any) -> None:
        (self.path / name).write_bytes(data)
        digests = {key: digest(value) for key, value in values.items()}
        self.cases[name] = {"path": name, "expect": "ok", "reason": reason, **extra, "values": digests}

    def bad(self, name: str, data: bytes, error: str, reason: str) -> None:
        (self.path / name).write_bytes(data)
        self.cases[name] = {"path": name, "expect": "error", "reason": reason, "error": error}

    def close(self) -> None:
        self.manifest.write_text(json.dumps({"cases": list(self.cases.values())}, indent=1) + "\n")


def digest(value: Any) -> dict[str, Any]:
    """The dtype, shape and SHA-256 of a tensor's bytes in C order, little-endian."""
    if isinstance(value, Tensor):
        tensor = value.detach().contiguous()
        name, shape = NAMES[tensor.dtype], list(tensor.shape)
        data = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    else:
        array = np.asarray(value)
        name, shape = NUMPY_NAMES[array.dtype.str[1:]], list(array.shape)
        data = array.astype(array.dtype.newbyteorder("<")).tobytes(order="C")
    return {"dtype": name, "shape": shape, "sha256": hashlib.sha256(data).hexdigest()}


# Pickles, opcode by opcode


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def whole(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def row(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def sequence(*items: bytes) -> bytes:
    return b"](" + b"".join(items) + b"e"


def mapping(*pairs: tuple[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in pairs) + b"u"


def call(module: str, attribute: str, *items: bytes) -> bytes:
    return name(module, attribute) + row(*items) + b"R"


def pickled(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


ATTACK = call("os", "getpid")


def storage(key: str, count: int, *extra: bytes, kind: str = "FloatStorage", module: str = "torch") -> bytes:
    return row(text("storage"), name(module, kind), text(key), text("cpu"), whole(count), *extra) + b"Q"


def tensor(inner: bytes, size: list[int], stride: list[int], offset: int = 0) -> bytes:
    return call(
        "torch._utils", "_rebuild_tensor_v2", inner, whole(offset), row(*map(whole, size)), row(*map(whole, stride)),
        b"\x89", call("collections", "OrderedDict"),
    )


def floats(count: int) -> bytes:
    return np.arange(count, dtype="<f4").tobytes()


# The format before 1.6

MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = mapping(
    ("protocol_version", whole(1001)), ("little_endian", b"\x88"),
    ("type_sizes", mapping(("short", whole(2)), ("int", whole(4)), ("long", whole(4)))),
)


def legacy(
    value: bytes | None = None, *, magic: bytes | None = None, protocol: bytes = whole(1001), system: bytes = SYSTEM,
    keys: bytes = sequence(text("0")), storages: bytes | None = None,
) -> bytes:
    """A legacy file of one tensor of six floats, but for what is given."""
    if value is None:
        value = mapping(("w", tensor(storage("0", 6, b"N"), [6], [1])))
    if storages is None:
        storages = struct.pack("<q", 6) + floats(6)
    if magic is None:
        magic = b"\x8a\x0a" + MAGIC.to_bytes(10, "little")
    return b"".join(map(pickled, (magic, protocol, system, value, keys))) + storages


def state() -> OrderedDict[str, Any]:
    """Tensors of many dtypes, views and ties. Not those that PyTorch keeps in untyped storages (uint16, 8-bit floats): it
    writes them in its old format, but cannot read them."""
    base = torch.arange(24, dtype=torch.float32) / 8
    tied = torch.arange(6, dtype=torch.float32).view(2, 3) - 2.5
    return OrderedDict(
        {
            "whole": base.view(4, 6), "transposed": base.view(4, 6).t(), "part": base[5:11], "tied.first": tied,
            "tied.second": tied, "parameter": torch.nn.Parameter(torch.ones(2, 2)), "scalar": torch.tensor(3.25),
            "empty": torch.zeros(0, 3), "float64": torch.linspace(-1, 1, 5, dtype=torch.float64),
            "float16": torch.linspace(-1, 1, 5).half(), "bfloat16": torch.linspace(-1, 1, 5).bfloat16(),
            "int64": torch.arange(-3, 3), "int32": torch.arange(4, dtype=torch.int32),
            "int16": torch.arange(4, dtype=torch.int16), "int8": torch.arange(-4, 4, dtype=torch.int8),
            "uint8": torch.arange(9, dtype=torch.uint8), "bool": torch.tensor([True, False, True]),
            "complex64": torch.complex(torch.ones(2), torch.arange(2.0)),
        }
    )


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=False, **options)
    return buffer.getvalue()


def keep(folder: Folder, file: str, make: Callable[[], bytes], values: Mapping[str, Tensor]) -> bytes:
    """The file's bytes as they are, if it holds these values already: storages are named by address, so that each
    writing gives other bytes."""
    path = folder.path / file
    if path.exists():
        found = torch.load(path, weights_only=False)
        found = found.get("model", found)
        if {key: digest(value) for key, value in found.items()} == {key: digest(value) for key, value in values.items()}:
            return path.read_bytes()
    return make()


def legacy_files() -> None:
    good, bad = Folder("pytorch-legacy/golden"), Folder("pytorch-legacy/malformed")
    tensors = state()
    six = {"w": np.arange(6, dtype="f4")}
    training = {"model": tensors, "epoch": 7, "optimizer": {"state": {0: torch.zeros(3)}}}
    good.good(
        "legacy.pth", keep(good, "legacy.pth", lambda: saved(training), tensors),
        "torch.save(…, _use_new_zipfile_serialization=False)", tensors)
    good.good(
        "legacy_protocol4.pth",
        keep(good, "legacy_protocol4.pth", lambda: saved(tensors, pickle_protocol=4), tensors), "pickle protocol 4",
        tensors)
    good.good("legacy_handmade.pth", legacy(), "one tensor", six)
    good.good(
        "legacy_big_endian_machine.pth", legacy(system=SYSTEM.replace(b"little_endian\x88", b"little_endian\x89")),
        "torch ignores the machine's byte order: storages are little-endian always", six)
    good.good(
        "legacy_decimal_magic.pth", legacy(magic=b"L%dL\n" % MAGIC)[2:], "the magic number as protocol 0 writes it", six)
    part = row(text("1"), whole(2), whole(3))
    good.good(
        "legacy_storage_view.pth",
        legacy(
            mapping(
                ("part", tensor(storage("0", 6, part), [2], [1], 1)), ("again", tensor(storage("0", 6, part), [3], [1])),
                ("w", tensor(storage("0", 6, b"N"), [6], [1])))),
        "view_metadata: a storage that is a part of another",
        {"part": np.arange(3, 5, dtype="f4"), "again": np.arange(2, 5, dtype="f4"), **six})
    good.good(
        "legacy_two_storages.pth",
        legacy(
            mapping(
                ("b", tensor(storage("9", 2, b"N", kind="LongStorage"), [2], [1])),
                ("a", tensor(storage("10", 3, b"N"), [3], [1]))),
            keys=sequence(text("10"), text("9")),
            storages=struct.pack("<q", 3) + floats(3) + struct.pack("<q", 2) + np.arange(2, dtype="<i8").tobytes()),
        "the list of keys gives the order of the bytes", {"b": np.arange(2), "a": np.arange(3, dtype="f4")})
    untyped = storage("0", 24, b"N", kind="UntypedStorage", module="torch.storage")
    eights = call(
        "torch._utils", "_rebuild_tensor_v3", untyped, whole(4), row(whole(20)), row(whole(1)), b"\x89",
        call("collections", "OrderedDict"), name("torch", "float8_e4m3fn"))
    good.good(
        "legacy_untyped.pth", legacy(mapping(("w", eights)), storages=struct.pack("<q", 24) + floats(6)),
        "an untyped storage, as PyTorch writes it for 8-bit floats",
        {"w": torch.frombuffer(bytearray(floats(6)), dtype=torch.float8_e4m3fn)[4:]})
    module = row(text("module"), name("my.models", "Net"), text("net.py"), text("class Net: pass")) + b"Q"
    attributes = mapping(("_parameters", mapping(("w", tensor(storage("0", 6, b"N"), [6], [1])))), ("_modules", b"}"))
    good.good(
        "legacy_module.pth", legacy(module + b")\x81" + attributes + b"b"), "a whole module with its source code", six)

    bad.bad("legacy_cut_storage.pth", legacy()[:-5], "truncated", "the last storage is cut")
    bad.bad("legacy_cut_size.pth", legacy(storages=b"\6\0\0"), "truncated", "the size of a storage is cut")
    bad.bad("legacy_trailing.pth", legacy() + b"XYZ", "trailingData", "bytes after the last storage")
    bad.bad("legacy_magic.pth", legacy(magic=b"\x8a\x0a" + (MAGIC + 1).to_bytes(10, "little")), "unrecognized", "magic + 1")
    bad.bad("legacy_protocol.pth", legacy(protocol=whole(1002)), "unsupported", "protocol 1002")
    bad.bad("legacy_system_list.pth", legacy(system=b"]"), "malformed", "sys_info is a list")
    bad.bad("legacy_keys_empty.pth", legacy(keys=b"]", storages=b""), "missingRecord", "torch reads uninitialised memory here")
    bad.bad(
        "legacy_keys_unused.pth",
        legacy(keys=sequence(text("0"), text("1")), storages=(struct.pack("<q", 6) + floats(6)) * 2), "missingRecord",
        "a storage that nothing uses")
    bad.bad("legacy_keys_twice.pth", legacy(keys=sequence(text("0"), text("0"))), "duplicateName", "a key twice")
    bad.bad("legacy_keys_numbers.pth", legacy(keys=sequence(whole(0))), "malformed", "keys that are no strings")
    bad.bad("legacy_keys_dict.pth", legacy(keys=b"}"), "malformed", "the list of keys is a dict")
    bad.bad("legacy_size_differs.pth", legacy(storages=struct.pack("<q", 5) + floats(5)), "sizeMismatch", "5, not 6")
    bad.bad("legacy_size_negative.pth", legacy(storages=struct.pack("<q", -1) + floats(6)), "sizeMismatch", "-1 elements")
    huge = mapping(("w", tensor(storage("0", 2**60, b"N"), [6], [1])))
    bad.bad("legacy_size_huge.pth", legacy(huge), "truncated", "2^60 elements: refused before anything is allocated")
    over = mapping(("w", tensor(storage("0", 2**62, b"N"), [6], [1])))
    bad.bad("legacy_size_overflow.pth", legacy(over), "truncated", "2^62 elements of 4 bytes")
    for reason, metadata in (
        ("outside", row(text("1"), whole(4), whole(3))), ("negative", row(text("1"), whole(-1), whole(3))),
        ("huge", row(text("1"), whole(2**62), whole(2**62))), ("short", row(text("1"), whole(0))), ("text", text("1")),
    ):
        data = legacy(mapping(("w", tensor(storage("0", 6, metadata), [1], [1]))))
        bad.bad(f"legacy_view_{reason}.pth", data, "malformed", f"a view of a storage that is {reason}")
    past = mapping(("w", tensor(storage("0", 6, row(text("1"), whole(2), whole(3))), [4], [1])))
    bad.bad("legacy_view_left.pth", legacy(past), "sizeMismatch", "a tensor that leaves its view, not the storage")
    two = mapping(
        ("w", tensor(storage("0", 6, b"N"), [6], [1])),
        ("i", tensor(storage("0", 6, b"N", kind="IntStorage"), [6], [1])))
    bad.bad("legacy_two_dtypes.pth", legacy(two), "malformed", "one storage with two element types")
    unknown = mapping(("w", tensor(storage("0", 6, b"N", kind="FunnyStorage"), [6], [1])))
    bad.bad("legacy_unknown_class.pth", legacy(unknown), "unsupported", "an unknown storage class: the known ones are listed")
    bad.bad("legacy_rce_system.pth", legacy(system=ATTACK), "forbiddenCall", "a call in sys_info")
    bad.bad("legacy_rce_protocol.pth", legacy(protocol=ATTACK), "forbiddenCall", "a call in the protocol number")
    bad.bad("legacy_rce_object.pth", legacy(ATTACK), "forbiddenCall", "a call in the object")
    bad.bad("legacy_rce_keys.pth", legacy(keys=ATTACK), "forbiddenCall", "a call in the list of keys")
    nested = call("torch.storage", "_load_from_bytes", b"C\3abc")
    bad.bad("legacy_nested.pth", legacy(mapping(("w", nested))), "forbiddenCall", "torch.save writes no nested storages")
    twice = b"}(" + (text("w") + tensor(storage("0", 6, b"N"), [6], [1])) * 2 + b"u"
    bad.bad("legacy_duplicate_key.pth", legacy(twice), "duplicateName", "a key twice in the state dict")
    tar_files(good, bad)
    bare_pickles(good, bad, tensors)
    good.close()
    bad.close()


# The tar form of 0.1


def tar(members: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:", format=tarfile.PAX_FORMAT) as archive:
        for member, data in members:
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def tar_storages(*, count: int = 2, views: bytes | None = None, size: int = 6, attack: bool = False) -> bytes:
    def entry(key: int, kind: str, number: int, data: bytes) -> bytes:
        return pickled(row(whole(key), text("cpu"), name("torch", kind))) + struct.pack("<q", number) + data

    views = sequence(row(whole(30), whole(10), whole(2), whole(3))) if views is None else views
    return (
        pickled(ATTACK if attack else whole(count)) + entry(10, "FloatStorage", size, floats(6))
        + entry(20, "LongStorage", 2, np.array([7, -7], dtype="<i8").tobytes()) + pickled(views))


def tar_tensors(*, stride: int = 1, rank: int | None = None, key: int = 1, place: int = 10) -> bytes:
    def entry(number: int, where: int, kind: str, size: list[int], strides: list[int], offset: int, rank: int) -> bytes:
        numbers = struct.pack(f"<i4x{len(size)}q{len(size)}qq", rank, *size, *strides, offset)
        return pickled(row(whole(number), whole(where), name("torch", kind))) + numbers

    return (
        pickled(whole(4)) + entry(key, place, "FloatTensor", [2, 3], [3, stride], 0, 2 if rank is None else rank)
        + entry(2, 10, "FloatTensor", [3, 2], [1, 3], 0, 2) + entry(3, 20, "LongTensor", [2], [1], 0, 1)
        + entry(4, 30, "FloatTensor", [2], [1], 1, 1))


def tar_pickle(*, attack: bool = False, number: int = 1) -> bytes:
    module = row(name("my.models", "Net"), text("net.py"), text("class Net: pass")) + b"Q"
    return pickled(
        mapping(
            ("w", whole(number) + b"Q"), ("t", whole(2) + b"Q"), ("again", whole(1) + b"Q"), ("long", whole(3) + b"Q"),
            ("part", whole(4) + b"Q"), ("class", module), *([("x", ATTACK)] if attack else [])))


def tar_file(
    storages: bytes | None = None, tensors: bytes | None = None, value: bytes | None = None, *,
    without: str = "", twice: str = "",
) -> bytes:
    members = [
        ("sys_info", pickled(SYSTEM)), ("pickle", value or tar_pickle()), ("tensors", tensors or tar_tensors()),
        ("storages", storages or tar_storages()),
    ]
    members = [member for member in members if member[0] != without]
    return tar(members + [member for member in members if member[0] == twice])


def tar_files(good: Folder, bad: Folder) -> None:
    w = np.arange(6, dtype="f4").reshape(2, 3)
    values = {"w": w, "t": w.T, "again": w, "long": np.array([7, -7]), "part": np.array([3, 4], dtype="f4")}
    good.good("tar.pth", tar_file(), "storages, a view of one, transposed and shared tensors", values)
    bad.bad("tar_without_pickle.pth", tar_file(without="pickle"), "missingRecord", "no member 'pickle'")
    bad.bad("tar_other.pth", tar([("a.txt", b"hello")]), "missingRecord", "some other tar archive")
    bad.bad("tar_twice.pth", tar_file(twice="tensors"), "duplicateName", "two members 'tensors'")
    whole_file = tar_file()
    bad.bad("tar_checksum.pth", whole_file[:1] + b"Y" + whole_file[2:], "corrupt", "a header's checksum is wrong")
    bad.bad("tar_cut.pth", whole_file[:2048], "truncated", "cut between members")
    bad.bad("tar_cut_member.pth", whole_file[:1700], "truncated", "cut within a member")
    bad.bad("tar_trailing.pth", whole_file + b"X" * 512, "trailingData", "bytes after the end mark")
    bad.bad("tar_trailing_odd.pth", whole_file + b"XYZ", "trailingData", "half a block after the end mark")
    bad.bad("tar_rank_huge.pth", tar_file(tensors=tar_tensors(rank=2**31 - 1)), "malformed", "2^31 - 1 dimensions")
    bad.bad("tar_rank_negative.pth", tar_file(tensors=tar_tensors(rank=-1)), "malformed", "-1 dimensions")
    bad.bad("tar_stride.pth", tar_file(tensors=tar_tensors(stride=2)), "sizeMismatch", "a tensor that leaves its storage")
    bad.bad("tar_stride_negative.pth", tar_file(tensors=tar_tensors(stride=-1)), "malformed", "a negative stride")
    bad.bad("tar_no_storage.pth", tar_file(tensors=tar_tensors(place=99)), "missingRecord", "a storage that is not there")
    bad.bad("tar_no_tensor.pth", tar_file(value=tar_pickle(number=99)), "missingRecord", "a tensor that is not there")
    bad.bad("tar_tensor_twice.pth", tar_file(tensors=tar_tensors(key=2)), "duplicateName", "two tensors of one number")
    bad.bad("tar_count.pth", tar_file(storages=tar_storages(count=2**31 - 1)), "malformed", "2^31 - 1 storages")
    bad.bad("tar_count_short.pth", tar_file(storages=tar_storages(count=1)), "malformed", "one storage too few")
    bad.bad("tar_size_huge.pth", tar_file(storages=tar_storages(size=2**61)), "truncated", "2^61 elements")
    bad.bad("tar_size_negative.pth", tar_file(storages=tar_storages(size=-1)), "truncated", "-1 elements")
    outside = sequence(row(whole(30), whole(10), whole(4), whole(3)))
    bad.bad("tar_view_outside.pth", tar_file(storages=tar_storages(views=outside)), "malformed", "a view that leaves its storage")
    bad.bad("tar_rce_pickle.pth", tar_file(value=tar_pickle(attack=True)), "forbiddenCall", "a call in 'pickle'")
    bad.bad("tar_rce_storages.pth", tar_file(storages=tar_storages(attack=True)), "forbiddenCall", "a call in 'storages'")


# Bare pickles


def arrays() -> dict[str, Any]:
    values: dict[str, Any] = {
        code: (np.arange(6).reshape(2, 3) - (0 if code[0] in "ub" else 2)).astype(code) for code in NUMPY_NAMES
    }
    values["big"] = np.arange(4, dtype=">f4")
    values["fortran"] = np.asfortranarray(np.arange(6, dtype="f8").reshape(2, 3))
    values["scalar"] = np.array(2.5)
    values["empty"] = np.zeros((0, 3), dtype="f4")
    values["long"] = np.arange(3000, dtype="f4")
    return values



def bare_pickles(good: Folder, bad: Folder, tensors: Mapping[str, Any]) -> None:
    plain = {key: value for key, value in tensors.items() if key != "tied.second"}
    for protocol in range(6):
        good.good(
            f"arrays_protocol{protocol}.pkl", pickle.dumps(arrays(), protocol),
            f"pickle.dump of NumPy arrays, protocol {protocol}", arrays())
    for protocol in (2, 4, 5):
        file = f"tensors_protocol{protocol}.pkl"
        path = good.path / file
        data = path.read_bytes() if path.exists() else pickle.dumps(plain, protocol)
        loaded = pickle.loads(data)
        if {key: digest(value) for key, value in loaded.items()} != {key: digest(value) for key, value in plain.items()}:
            data = pickle.dumps(plain, protocol)
        good.good(file, data, f"pickle.dump of PyTorch tensors, protocol {protocol}", plain)
    nested = {"model": {"layer": {"weight": np.ones((2, 2), dtype="f4")}}, "epoch": 3}
    good.good(
        "wrapped.pkl", pickle.dumps(nested, 4), "a training script's dict", {"layer.weight": nested["model"]["layer"]["weight"]})

    def stored(data: bytes) -> bytes:
        inner = call("torch.storage", "_load_from_bytes", b"B" + struct.pack("<I", len(data)) + data)
        return pickled(mapping(("w", tensor(inner, [6], [1]))))

    inner = storage("0", 6, b"N")
    good.good("handmade.pkl", stored(legacy(inner)), "a storage within the pickle", {"w": np.arange(6, dtype="f4")})
    bad.bad("pickle_rce.pkl", pickled(mapping(("w", ATTACK))), "forbiddenCall", "a call")
    bad.bad("pickle_rce_old.pkl", b"(dp0\nS'w'\np1\ncos\nsystem\np2\n(S'true'\np3\ntp4\nRp5\ns.", "forbiddenCall", "protocol 0")
    bad.bad("nested_rce.pkl", stored(legacy(ATTACK)), "forbiddenCall", "a call in the storage's own stream")
    bad.bad("nested_rce_keys.pkl", stored(legacy(inner, keys=ATTACK)), "forbiddenCall", "a call in the inner list of keys")
    again = call("torch.storage", "_load_from_bytes", b"C\3abc")
    bad.bad("nested_twice.pkl", stored(legacy(again)), "forbiddenCall", "a storage within a storage within the pickle")
    bad.bad("nested_cut.pkl", stored(legacy(inner)[:-3]), "truncated", "the storage's bytes are cut")
    bad.bad("nested_trailing.pkl", stored(legacy(inner) + b"X"), "trailingData", "bytes after the storage")
    bad.bad("nested_empty.pkl", stored(b""), "truncated", "no bytes at all")
    bad.bad("nested_not_legacy.pkl", stored(pickled(whole(1))), "unrecognized", "the bytes are some other pickle")
    bad.bad("nested_tensor.pkl", stored(legacy(tensor(inner, [6], [1]))), "malformed", "a tensor where a storage should be")
    bad.bad("nested_no_bytes.pkl", pickled(call("torch.storage", "_load_from_bytes", whole(1))), "malformed", "an integer")
    data = legacy(inner)
    left = call("torch.storage", "_load_from_bytes", b"B" + struct.pack("<I", len(data)) + data)
    bad.bad("nested_left.pkl", pickled(tensor(left, [7], [1])), "sizeMismatch", "a tensor that leaves its storage")
    bad.bad("trailing.pkl", pickle.dumps({"w": np.ones(2)}, 4) + b"X", "trailingData", "bytes after STOP")
    bad.bad("two_pickles.pkl", pickle.dumps({"w": np.ones(2)}, 4) * 2, "trailingData", "two pickles")
    bad.bad("cut.pkl", pickle.dumps({"w": np.ones(2000)}, 4)[:9000], "truncated", "cut within an array")
    bad.bad("unpacked_data.pkl", pickled(mapping(("w", tensor(storage("0", 6), [6], [1])))), "missingRecord", "data.pkl of a zip")
    bad.bad("no_tensors.pkl", pickle.dumps({"a": 1}, 4), "noTensors", "plain data only")
    bad.bad("object_array.pkl", pickle.dumps({"w": np.array([{}], dtype=object)}, 4), "unsupported", "an array of objects")
    records = np.zeros(2, dtype=[("a", "f4"), ("b", "i4")])
    bad.bad("record_array.pkl", pickle.dumps({"w": records}, 4), "unsupported", "an array of records")
    value = pickle.dumps(np.arange(3, dtype="f4"), 4)[:-1]
    value = value[value.index(b"\x95") + 9:]
    twice = b"\x80\x04}(\x8c\x01w" + value + b"\x8c\x01w" + value + b"u."
    bad.bad("duplicate_key.pkl", twice, "duplicateName", "a key twice")


# NumPy


def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.lib.format.write_array(buffer, array, version=version)
    return buffer.getvalue()


def npy_text(header: str, data: bytes = floats(6), version: bytes = b"\1\0", size: int | None = None) -> bytes:
    encoded = header.encode("latin1" if version[0] < 3 else "utf8") + b"\n"
    length = len(encoded) if size is None else size
    return b"\x93NUMPY" + version + struct.pack("<H" if version[0] == 1 else "<I", length) + encoded + data


def npz(members: Mapping[str, bytes], *, deflated: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED) as archive:
        for member, data in members.items():
            archive.writestr(zipfile.ZipInfo(member), data, archive.compression)
    return buffer.getvalue()


def numpy_files() -> None:
    good, bad = Folder("numpy/golden"), Folder("numpy/malformed")
    values = arrays()
    for file, write in (("arrays.npz", np.savez), ("compressed.npz", np.savez_compressed)):
        path = good.path / file
        if not path.exists():
            write(path, **values)
        good.good(file, path.read_bytes(), f"numpy.{write.__name__}", values)
    six = np.arange(6, dtype="f4")
    good.good("array.npy", npy(six.reshape(2, 3)), "numpy.save", {"tensor": six.reshape(2, 3)})
    good.good("big_fortran.npy", npy(np.asfortranarray(values["i4"].astype(">i4"))), "big-endian, Fortran order", {"tensor": values["i4"]})
    good.good("version2.npy", npy(six, (2, 0)), "version 2.0", {"tensor": six})
    good.good("version3.npy", npy(six, (3, 0)), "version 3.0", {"tensor": six})
    for file, header in (
        ("python2.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }"),
        ("other_order.npy", '{ "shape":(2,3),"fortran_order" : False,"descr":"<f4"}'),
    ):
        good.good(file, npy_text(header), "a header that NumPy reads too", {"tensor": six.reshape(2, 3)})
    good.good(
        "names.npz", npz({"a/b.c.npy": npy(six), "ünï.npy": npy(six), "notes.txt": b"hello"}),
        "names as they are; other records are left out", {"a/b.c": six, "ünï": six})

    plain = "{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }"

    def header(file: str, error: str, reason: str, text: str = plain, **options: Any) -> None:
        bad.bad(file, npy_text(text, **options), error, reason)

    header("data_short.npy", "truncated", "20 bytes for 6 floats", data=floats(5))
    header("data_long.npy", "trailingData", "28 bytes for 6 floats", data=floats(7))
    header("version_4.npy", "unsupported", "version 4", version=b"\4\0")
    header("version_1_1.npy", "unsupported", "version 1.1", version=b"\1\1")
    header("header_past_end.npy", "truncated", "a header longer than the file", size=60000)
    header("header_huge.npy", "overBudget", "a header of 4 GB", version=b"\2\0", size=2**32 - 1)
    header("objects.npy", "unsupported", "objects are pickles", plain.replace("<f4", "|O"))
    header("records.npy", "unsupported", "a structured dtype", plain.replace("'<f4'", "[('a', '<f4')]"))
    header("text.npy", "unsupported", "text", plain.replace("<f4", "<U1"))
    header("dates.npy", "unsupported", "dates", plain.replace("<f4", "<M8[ns]"))
    header("void.npy", "unsupported", "void, as ml_dtypes' bfloat16 is written", plain.replace("<f4", "|V2"))
    header("f16.npy", "unsupported", "128-bit floats", plain.replace("<f4", "<f16"))
    header("no_order.npy", "unsupported", "no byte order sign", plain.replace("<f4", "f4"))
    header("no_shape.npy", "malformed", "a key is missing", "{'descr': '<f4', 'fortran_order': False}")
    header("key_twice.npy", "malformed", "a key twice", plain.replace("{", "{'descr': '<f4', "))
    header("key_unknown.npy", "malformed", "an unknown key", plain.replace("{", "{'x': '<f4', "))
    header("call.npy", "malformed", "a call in the header", plain.replace("(6,)", "__import__('os').getpid()"))
    header("expression.npy", "malformed", "an expression", plain.replace("(6,)", "(2*3,)"))
    header("negative.npy", "malformed", "a negative dimension", plain.replace("6", "-6"))
    header("no_tuple.npy", "malformed", "a shape that is a number in brackets", plain.replace("(6,)", "(6)"))
    header("overflow.npy", "malformed", "2^66 elements", plain.replace("(6,)", f"({2**33}, {2**33})"))
    header("huge_dimension.npy", "malformed", "a dimension of 30 digits", plain.replace("6", "9" * 30))
    header("rank.npy", "malformed", "100 dimensions", plain.replace("(6,)", "(" + "1, " * 100 + ")"))
    header("order_number.npy", "malformed", "fortran_order 0", plain.replace("False", "0"))
    header("trailing_text.npy", "malformed", "text after the dict", plain + " x")
    header("no_end.npy", "malformed", "no closing brace", plain[:-1])
    header("deep.npy", "malformed", "nested brackets", plain.replace("(6,)", "(" * 3000))
    bad.bad("magic_only.npy", b"\x93NUMPY\1\0", "truncated", "8 bytes")
    bad.bad("bad_member.npz", npz({"a.npy": npy(six), "b.npy": b"hello"}), "malformed", "a record that is no array")
    bad.bad("pickled_member.npz", npz({"a.npy": npy(np.array([{}], dtype=object))}), "unsupported", "an array of objects")
    bad.bad("short_member.npz", npz({"a.npy": npy(six)[:-1]}), "truncated", "an array that is cut")
    bad.bad("long_member.npz", npz({"a.npy": npy(six) + b"X"}), "trailingData", "bytes after an array")
    stored = npz({"a.npy": npy(six)})
    place = stored.index(floats(6)) + 4
    bad.bad("bit_flip.npz", stored[:place] + b"\1" + stored[place + 1:], "corrupt", "a flipped bit under a good checksum")
    packed = npz({"a.npy": npy(np.arange(600, dtype="f4"))}, deflated=True)
    bad.bad("bad_deflate.npz", packed[:80] + b"\xff" + packed[81:], "corrupt", "a broken deflate stream")
    zeros = npy(np.zeros(80 << 20, dtype="u1"))
    bad.bad("bomb.npz", npz({"a.npy": zeros}, deflated=True), "overBudget", "80 MiB in 80 kB")
    good.close()
    bad.close()


# GGUF blocks

BLOCKS = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}
"""The decoded types, and where binary16 numbers stand in their blocks."""


def random_blocks(generator: np.random.Generator, kind: gguf.GGMLQuantizationType, halves: list[int], rows: int) -> np.ndarray:
    """Random bytes; the scales are finite, of both signs, some of them zero, subnormal or the largest."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    per_row = 2 if block == 256 else 3
    data = generator.integers(0, 256, (rows * per_row, size), dtype=np.uint8)
    odd = np.array([0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00], dtype="<u2")
    for place in halves:
        scales = generator.standard_normal(len(data)).astype("<f2").view("<u2")
        some = generator.random(len(data)) < 0.5
        scales[some] = generator.choice(odd, some.sum())
        data[:, place:place + 2] = scales.view(np.uint8).reshape(-1, 2)
    return data.reshape(rows, per_row * size)


def gguf_file(path: Path, tensors: Mapping[str, tuple[np.ndarray, gguf.GGMLQuantizationType]]) -> bytes:
    writer = gguf.GGUFWriter(path, "unknown")
    for key, (data, kind) in tensors.items():
        writer.add_tensor(key, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def gguf_files() -> None:
    good, bad = Folder("gguf/golden"), Folder("gguf/malformed")
    generator = np.random.default_rng(17)
    tensors, values = {}, {}
    for label, halves in BLOCKS.items():
        kind = gguf.GGMLQuantizationType[label]
        data = random_blocks(generator, kind, halves, rows=16)
        tensors[label] = (data, kind)
        with np.errstate(over="ignore"):
            values[label] = gguf.quants.dequantize(data, kind)
    good.good(
        "blocks.gguf", gguf_file(good.path / "blocks.gguf", tensors), "random blocks of every decoded type, against gguf-py",
        values)
    kind = gguf.GGMLQuantizationType.Q2_K
    other = {"q": (random_blocks(generator, kind, [80, 82], rows=2), kind)}
    bad.bad("blocks_q2_k.gguf", gguf_file(bad.path / "blocks_q2_k.gguf", other), "unsupported", "a block type that is not decoded")
    good.close()
    bad.close()


# What PyTorch's zip archives hold


def torch_zip(value: bytes, storages: Mapping[str, bytes]) -> bytes:
    members = {"archive/data.pkl": pickled(value), "archive/byteorder": b"little"}
    members |= {f"archive/data/{key}": data for key, data in storages.items()}
    return npz(members | {"archive/version": b"3\n"})


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(2, 3)
        self.norm = torch.nn.BatchNorm1d(3)
        self.rest = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU())
        self.register_buffer("positions", torch.arange(3.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.norm(self.first(x))) + self.positions


def script(module: torch.jit.ScriptModule) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    return buffer.getvalue()


def zip_bytes(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def zip_files() -> None:
    good, bad = Folder("pytorch/golden"), Folder("pytorch/malformed")
    torch.manual_seed(3)
    warnings.simplefilter("ignore")
    net = Net().eval()
    good.good("torchscript.pt", script(torch.jit.script(net)), "torch.jit.script: its parameters", net.state_dict())
    traced = torch.jit.trace(net, torch.ones(1, 2))
    good.good("torchscript_traced.pt", script(traced), "torch.jit.trace: its parameters", net.state_dict())
    frozen = torch.jit.freeze(torch.jit.script(net))
    bad.bad("torchscript_frozen.pt", script(frozen), "noTensors", "the weights are constants of the code")

    numbers = torch.randn(3, 4, 5)
    quantized = {
        "int8": torch.quantize_per_tensor(numbers, 0.037, -5, torch.qint8),
        "uint8": torch.quantize_per_tensor(numbers, 0.02, 77, torch.quint8).transpose(0, 2),
        "channels": torch.quantize_per_channel(
            numbers, torch.rand(4) / 10 + 0.01, torch.tensor([0, 3, -9, 1]), 1, torch.qint8),
    }
    good.good(
        "quantized.pth", zip_bytes(quantized), "quantized tensors are given as dequantize() gives them",
        {key: value.dequantize() for key, value in quantized.items()})
    beside = {
        "dense": torch.arange(6.0), "sparse": torch.eye(3).to_sparse(), "meta": torch.empty(3, device="meta"),
        "rows": torch.eye(3).to_sparse_csr(), "complex": torch.view_as_complex(torch.ones(2, 2)).conj(),
        "quantized": torch.quantize_per_tensor(numbers, 0.037, 0, torch.qint32),
    }
    good.good(
        "unreadable_beside.pth", zip_bytes(beside), "what cannot be read is listed; the rest can be read",
        {"dense": beside["dense"]})
    for key in ("rows", "complex", "quantized"):
        bad.bad(f"only_{key}.pth", zip_bytes({"w": beside[key]}), "unsupported", "the only tensor cannot be read")
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    bad.bad("nested_tensor.pth", zip_bytes({"w": torch.ones(2), "n": nested}), "unsupported", "a nested tensor has no one shape")

    one = {"0": floats(6)}
    zeros = {"0": floats(6), "1": np.array([0.5, 0.25]).tobytes(), "2": np.array([1, 2]).tobytes()}

    def affine(parameters: bytes, size: tuple[int, ...] = (2, 3), storages: Mapping[str, bytes] = zeros) -> bytes:
        strides = [3, 1][-len(size):]
        inner = storage("0", 24, kind="QInt8Storage")
        value = call(
            "torch._utils", "_rebuild_qtensor", inner, whole(0), row(*map(whole, size)), row(*map(whole, strides)), parameters,
            b"\x89", call("collections", "OrderedDict"))
        return torch_zip(mapping(("w", value)), storages)

    scales = tensor(storage("1", 2, kind="DoubleStorage"), [2], [1])
    points = tensor(storage("2", 2, kind="LongStorage"), [2], [1])
    scheme = name("torch", "per_channel_affine")
    good.good(
        "quantized_channels.pth", affine(row(scheme, scales, points, whole(0))), "scales of the outer axis",
        {"w": ((np.frombuffer(floats(6), "i1")[:6].reshape(2, 3).astype("f4") - np.array([[1], [2]], "f4"))
               * np.array([[0.5], [0.25]], "f4"))})
    for reason, parameters in (
        ("axis", row(scheme, scales, points, whole(5))), ("axis_negative", row(scheme, scales, points, whole(-1))),
        ("length", row(scheme, scales, points, whole(1))), ("arity", row(scheme, scales)),
        ("scale", row(name("torch", "per_tensor_affine"), text("x"), whole(0))),
        ("zero", row(name("torch", "per_tensor_affine"), b"G" + struct.pack(">d", 0.5), whole(2**40))),
    ):
        bad.bad(f"quantized_{reason}.pth", affine(parameters), "malformed", f"quantization: {reason}")
    other = row(name("torch", "per_channel_affine_float_qparams"), scales, points, whole(0))
    bad.bad("quantized_scheme.pth", affine(other), "unsupported", "another scheme")

    pair = text("w") + tensor(storage("0", 6), [6], [1])
    bad.bad("duplicate_key.pth", torch_zip(b"}(" + pair * 2 + b"u", one), "duplicateName", "a key twice in the state dict")
    ordered = call("collections", "OrderedDict") + b"(" + pair * 2 + b"u"
    bad.bad("duplicate_key_ordered.pth", torch_zip(mapping(("model", ordered)), one), "duplicateName", "in an OrderedDict")
    bytes_storage = storage("0", 24, kind="UntypedStorage", module="torch.storage")
    unknown = call(
        "torch._utils", "_rebuild_tensor_v3", bytes_storage, whole(0), row(whole(6)), row(whole(1)), b"\x89",
        call("collections", "OrderedDict"), name("torch", "float7_e3m3"))
    bad.bad("dtype_unknown.pth", torch_zip(mapping(("w", unknown)), one), "unsupported", "an unknown dtype: the known ones are listed")
    good.close()
    bad.close()


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    legacy_files()
    numpy_files()
    gguf_files()
    zip_files()


if __name__ == "__main__":
    main()

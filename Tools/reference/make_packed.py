#!/usr/bin/env python3
"""Makes Formats/zstd and Formats/sharded again from the files of the other formats: goldens, malformed files, manifests.

    Tools/reference/make_packed.py

Needs the zstd tool (1.5) and nothing else. The frames that no tool would write are put together by hand.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import subprocess
from pathlib import Path

FORMATS = Path(__file__).resolve().parents[2] / "Formats"
MAGIC = bytes.fromhex("28B52FFD")


def zstd(content: bytes, *options: str) -> bytes:
    """The tool's output for a file of known size."""
    return subprocess.run(
        ["zstd", "-q", "-c", f"--stream-size={len(content)}", *options], input=content, capture_output=True, check=True
    ).stdout


def piped(content: bytes, *options: str) -> bytes:
    """The tool's output where it cannot know the size, so that the frame does not say it."""
    return subprocess.run(["zstd", "-q", "-c", *options], input=content, capture_output=True, check=True).stdout


def skippable(payload: bytes, number: int = 0) -> bytes:
    return struct.pack("<II", 0x184D2A50 + number, len(payload)) + payload


def raw_frame(content: bytes, *, window: int | None = None, claimed: int | None = None, kind: int = 0) -> bytes:
    """A frame of one block: `kind` 0 holds the content as it is, 3 is reserved."""
    size = len(content) if claimed is None else claimed
    if window is None and claimed is not None:
        header = bytes([0xC0, 7 << 3]) + struct.pack("<Q", size)
    elif window is None:
        header = bytes([0xE0]) + struct.pack("<Q", size)
    else:
        header = bytes([0x00, (window - 10) << 3])
    return MAGIC + header + ((len(content) << 3) | (kind << 1) | 1).to_bytes(3, "little") + content


def safetensors(tensors: dict[str, list[float]]) -> bytes:
    entries, data = {}, b""
    for name, values in tensors.items():
        packed = struct.pack(f"<{len(values)}f", *values)
        entries[name] = {"dtype": "F32", "shape": [len(values)], "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data


def digests(tensors: dict[str, list[float]]) -> dict:
    return {
        name: {
            "dtype": "F32",
            "shape": [len(values)],
            "sha256": hashlib.sha256(struct.pack(f"<{len(values)}f", *values)).hexdigest(),
        }
        for name, values in tensors.items()
    }


def golden(path: str) -> tuple[bytes, dict]:
    """A golden file of another format with its case."""
    folder, name = path.split("/")
    cases = json.loads((FORMATS / folder / "golden/manifest.json").read_text())["cases"]
    return (FORMATS / folder / "golden" / name).read_bytes(), next(case for case in cases if case["path"] == name)


class Corpus:
    def __init__(self, folder: Path):
        self.folder = folder
        self.cases: list[dict] = []
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    def write(self, path: str, content: bytes) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)

    def ok(self, path: str, reason: str, case: dict) -> None:
        kept = {key: case[key] for key in ("values", "select") if key in case}
        self.cases.append({"path": path, "expect": "ok", "reason": reason, **kept})

    def error(self, path: str, reason: str, error: str) -> None:
        self.cases.append({"path": path, "expect": "error", "reason": reason, "error": error})

    def finish(self) -> None:
        (self.folder / "manifest.json").write_text(json.dumps({"cases": self.cases}, indent=1) + "\n")


def make_zstd() -> None:
    corpus = Corpus(FORMATS / "zstd/golden")
    for path in [
        "safetensors/all_dtypes.safetensors", "pytorch/views.pth", "pytorch/train_ckpt.pth", "pytorch/zip_comment.pth",
        "gguf/plain.gguf", "gguf/kv_types.gguf", "gguf/blocks.gguf", "numpy/arrays.npz", "numpy/compressed.npz",
        "numpy/array.npy", "pytorch-legacy/legacy.pth", "pytorch-legacy/tar.pth", "pytorch-legacy/tensors_protocol4.pkl",
    ]:
        content, case = golden(path)
        name = path.split("/")[1] + ".zst"
        corpus.write(name, zstd(content, "-3"))
        corpus.ok(name, "a whole file in one frame", case)
    content, case = golden("pytorch/tied.pth")
    third = len(content) // 3
    parts = [content[:third], content[third : 2 * third], content[2 * third :]]
    variants = {
        "frames.pth.zst": (b"".join(zstd(part) for part in parts), "three frames one after the other"),
        "pzstd.pth.zst": (
            b"".join(skippable(struct.pack("<I", len(zstd(part)))) + zstd(part) for part in parts),
            "frames to be skipped that tell the sizes, as pzstd writes them",
        ),
        "empty_frames.pth.zst": (
            zstd(b"") + zstd(parts[0] + parts[1]) + zstd(b"") + zstd(parts[2]) + zstd(b"") + skippable(b"end", 15),
            "frames without content, also at the end",
        ),
        "unknown_size.pth.zst": (piped(content), "the frame does not say how much it holds"),
        "no_checksum.pth.zst": (zstd(content, "--no-check"), "a frame without a checksum"),
        "long.pth.zst": (piped(content, "--long=27"), "the largest window that is allowed"),
        "ultra.pth.zst": (zstd(content, "--ultra", "-22"), "the hardest that the tool can try"),
        "raw.zst": (raw_frame(content), "one block that is not compressed, and a name that says nothing"),
    }
    for name, (packed, reason) in variants.items():
        corpus.write(name, packed)
        corpus.ok(name, reason, case)
    corpus.finish()

    corpus = Corpus(FORMATS / "zstd/malformed")
    packed = zstd(content)
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 0x10
    for name, packed, reason, code in [
        ("truncated.zst", packed[:-5], "the frame's end is missing", "truncated"),
        ("second_truncated.zst", packed + packed[:40], "a second frame breaks off", "truncated"),
        ("checksum.zst", packed[:-1] + bytes([packed[-1] ^ 1]), "the frame's checksum is wrong", "corrupt"),
        ("bitflip.zst", bytes(damaged), "a bit of the compressed data is wrong", "corrupt"),
        ("trailing.zst", packed + b"and something else", "bytes after the last frame", "trailingData"),
        ("window_28.zst", piped(content, "--long=28"), "a window above the limit", "unsupported"),
        ("window_41.zst", raw_frame(content, window=41), "a window of 2 TiB", "unsupported"),
        ("dictionary.zst", MAGIC + b"\x61\x07\x10" + b"\x01\x00\x00", "a frame that needs a dictionary", "unsupported"),
        ("claims_terabytes.zst", raw_frame(content, claimed=1 << 44), "16 TiB claimed, 2 kB there", "corrupt"),
        ("claims_window.zst", MAGIC + b"\xE0" + struct.pack("<Q", 1 << 44) + b"\x01\0\0",
         "16 TiB claimed by a frame that is its own window", "unsupported"),
        ("claims_less.zst", raw_frame(content, claimed=100), "100 bytes claimed, 2 kB there", "corrupt"),
        ("reserved_block.zst", raw_frame(content, kind=3), "a block of the reserved type", "corrupt"),
        ("twice.zst", zstd(zstd(content)), "compressed twice", "unsupported"),
        ("nothing.zst", skippable(b"nothing"), "frames to be skipped alone", "truncated"),
        ("text.zst", zstd(b"this is no checkpoint at all\n"), "something else inside", "unrecognized"),
        ("gzip.zst", zstd(bytes.fromhex("1F8B080000000000")), "another archive inside", "unsupported"),
        ("crc.pth.zst", zstd((FORMATS / "pytorch/malformed/zip_crc_data.pth").read_bytes()),
         "what is inside is damaged", "corrupt"),
        ("rce.pth.zst", zstd((FORMATS / "pytorch/malformed/rce_getpid.pth").read_bytes()),
         "a pickle that wants to call something", "forbiddenCall"),
        ("local_name.pth.zst", zstd((FORMATS / "pytorch/malformed/zip_local_name_differs.pth").read_bytes()),
         "the zip's local headers contradict its directory", "malformed"),
        ("offsets_past_eof.safetensors.zst",
         zstd((FORMATS / "safetensors/malformed/offsets_past_eof.safetensors").read_bytes()),
         "4 TiB claimed by a header", "truncated"),
        ("n_kv_max.gguf.zst", zstd((FORMATS / "gguf/malformed/n_kv_max.gguf").read_bytes()),
         "a count that cannot be", "malformed"),
    ]:
        corpus.write(name, packed)
        corpus.error(name, reason, code)
    corpus.finish()


FIRST = {"embed.weight": [1.0, 2.0, 3.0], "layers.0.bias": [0.5]}
SECOND = {"layers.1.bias": [-0.5, 0.25], "norm.weight": [1.0] * 4}
BOTH = {"values": digests(FIRST | SECOND)}


def index(places: dict[str, str], total: int = 40) -> bytes:
    return json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=2).encode() + b"\n"


def places(first: str, second: str) -> dict[str, str]:
    return {name: first for name in FIRST} | {name: second for name in SECOND}


def make_sharded() -> None:
    corpus = Corpus(FORMATS / "sharded/golden")
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    one, two, shard_index = safetensors(FIRST), safetensors(SECOND), "model.safetensors.index.json"

    def good(folder: str, reason: str, files: dict[str, bytes], path: str, case: dict = BOTH) -> None:
        for name, content in files.items():
            corpus.write(f"{folder}/{name}", content)
        corpus.ok(f"{folder}/{path}".rstrip("/"), reason, case)

    good("plain", "two shards and their index", {names[0]: one, names[1]: two, shard_index: index(places(*names))}, shard_index)
    corpus.ok("plain", "the folder itself", BOTH)
    good("single", "a folder with one file and its configuration",
         {"model.safetensors": safetensors(FIRST | SECOND), "config.json": b'{"model_type": "beit", "num_attention_heads": 12}\n',
          "preprocessor_config.json": b'{"do_resize": true, "size": 224}\n'}, "")
    good("total_size", "a wrong total_size is only noted",
         {"1": one, "2": two, shard_index: index(places("1", "2"), 1)}, shard_index)
    good("packed", "shards compressed by zstd, under names that say nothing",
         {"1": zstd(one), "2": zstd(two), "index": index(places("1", "2"))}, "index")
    good("inner", "shards in a folder of the folder",
         {"parts/1": one, "parts/2": two, shard_index: index(places("parts/1", "parts/2"))}, shard_index)
    good("both", "safetensors are preferred to a pickle",
         {"model.safetensors": safetensors(FIRST | SECOND), "pytorch_model.bin": b"not read"}, "")
    plain, plain_case = golden("pytorch/plain.pth")
    views, views_case = golden("pytorch/tied.pth")
    values = plain_case["values"] | views_case["values"]
    mapping = {name: "1.bin" for name in plain_case["values"]} | {name: "2.bin" for name in views_case["values"]}
    good("bin", "shards that are PyTorch archives",
         {"1.bin": plain, "2.bin": views, "pytorch_model.bin.index.json": index(mapping)},
         "pytorch_model.bin.index.json", {"values": values})
    corpus.finish()

    corpus = Corpus(FORMATS / "sharded/malformed")

    def bad(folder: str, reason: str, code: str, files: dict[str, bytes], path: str = "index.json") -> None:
        for name, content in files.items():
            corpus.write(f"{folder}/{name}", content)
        corpus.error(f"{folder}/{path}".rstrip("/"), reason, code)

    both = {"1": one, "2": two}
    bad("missing_shard", "a shard is not there", "missingRecord", {"1": one, "index.json": index(places("1", "2"))})
    bad("missing_tensor", "a shard lacks a tensor", "missingRecord",
        both | {"index.json": index(places("1", "2") | {"head": "2"})})
    bad("other_shard", "a tensor is in the other shard", "missingRecord",
        both | {"index.json": index(places("1", "2") | {"norm.weight": "1"})})
    bad("unnamed_tensor", "a tensor that the index does not name", "malformed",
        both | {"index.json": index({"embed.weight": "1"} | {name: "2" for name in SECOND})})
    bad("same_tensor", "two shards hold a tensor of one name", "duplicateName",
        {"1": one, "2": safetensors(SECOND | {"embed.weight": [0.0]}), "index.json": index(places("1", "2"))})
    bad("same_key", "a tensor stands twice in the index", "duplicateName",
        both | {"index.json": b'{"weight_map": {"a": "1", "a": "2"}}'})
    bad("itself", "the index is its own shard", "malformed", {"index.json": index({"a": "index.json"})})
    bad("nested", "a shard is another index", "unrecognized",
        {"inner.json": index({"a": "1"}), "1": one, "index.json": index({"a": "inner.json"})})
    bad("parent", "a shard outside the folder", "leavesFolder", {"index.json": index({"a": "../parent_secret"})})
    bad("parent_inner", "outside the folder by a way round", "leavesFolder",
        {"sub/x": b"", "index.json": index({"a": "sub/../../secret"})})
    bad("absolute", "an absolute path", "leavesFolder", {"index.json": index({"a": "/etc/hostname"})})
    bad("backslash", "another system's way out", "leavesFolder", {"index.json": index({"a": "..\\secret"})})
    bad("zero_byte", "a zero byte in a name", "leavesFolder", {"1": one, "index.json": index({"a": "1\0.safetensors"})})
    bad("dot", "a name with a part that is a dot", "leavesFolder", {"1": one, "index.json": index({"a": "./1"})})
    bad("no_name", "an empty name", "leavesFolder", {"index.json": index({"a": ""})})
    bad("is_folder", "a shard that is a folder", "missingRecord", {"1/x": b"", "index.json": index({"a": "1"})})
    bad("mixed", "shards of two formats", "malformed",
        {"1": one, "2": plain, "index.json": index({name: "1" for name in FIRST} | {"w": "2"})})
    bad("broken_shard", "a shard is cut off", "truncated",
        {"1": one, "2": two[:-1], "index.json": index(places("1", "2"))})
    bad("numbers", "the map gives no names", "malformed", {"index.json": b'{"weight_map": {"a": 1, "b": null}}'})
    bad("empty_map", "a map without tensors", "malformed", {"index.json": b'{"weight_map": {}}'})
    bad("no_map", "some other JSON", "unrecognized", {"config.json": b'{"model_type": "beit"}'}, "config.json")
    bad("cut_off", "the index is cut off", "malformed", {"index.json": index(places("1", "2"))[:-10]})
    bad("deepspeed", "a DeepSpeed ZeRO folder", "unsupported",
        {"bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt": b"", "mp_rank_00_model_states.pt": b""}, "")
    bad("deepspeed_root", "a folder above DeepSpeed's", "unsupported", {"latest": b"global_step7", "global_step7/x": b""}, "")
    bad("distributed", "a distributed PyTorch checkpoint", "unsupported", {"__0_0.distcp": b"", ".metadata": b""}, "")
    bad("no_weights", "a folder without weights", "noTensors", {"README.md": b"nothing here\n"}, "")
    bad("bad_config", "a configuration that is no JSON", "malformed",
        {"model.safetensors": one, "config.json": b"{'model_type': 'beit'}"}, "")
    corpus.finish()


if __name__ == "__main__":
    make_zstd()
    make_sharded()

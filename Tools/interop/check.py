"""Opens our files with other people's libraries: `gguf` for .gguf, `safetensors` for .safetensors.

    check.py model.gguf model.safetensors
    check.py --against checkpoint.pth model.safetensors

A GGUF file must have readable keys and tensors. With --against a safetensors file must have the checkpoint's tensors, all of
them and no others, bit for bit. The status is 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from gguf import GGUFReader
from gguf.gguf_reader import ReaderField
from safetensors import SafetensorError, safe_open
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reference"))
import checkpoints  # noqa: E402


class Foreign:
    """Stands for an instance of a class that cannot be imported here."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class LenientUnpickler(pickle.Unpickler):
    """Reads the checkpoints of people whose code is not installed."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError):
            return Foreign


LENIENT_PICKLE = SimpleNamespace(__name__="lenient", Unpickler=LenientUnpickler, load=pickle.load, loads=pickle.loads)


def state_of(path: Path) -> dict[str, Tensor]:
    checkpoint = torch.load(path, map_location="cpu", weights_only=False, pickle_module=LENIENT_PICKLE)
    state = checkpoints.unwrap(checkpoint)
    return {name: value.detach() for name, value in state.items() if isinstance(value, Tensor)}


def shown(field: ReaderField) -> str:
    """A key's value, cut to one line."""
    text = repr(field.contents())
    return text if len(text) <= 100 else f"{text[:97]}..."


def gguf_faults(path: Path) -> list[str]:
    """What is wrong with a GGUF file, without a listing of what is not."""
    with contextlib.redirect_stdout(None):
        return check_gguf(path, verbose=False)


def check_gguf(path: Path, verbose: bool) -> list[str]:
    """What is wrong with a GGUF file."""
    try:
        reader = GGUFReader(path)
    except Exception as error:  # The library raises whatever its parsing runs into.
        return [f"gguf cannot open it: {error!r}"]
    faults = []
    print(f"{path}: GGUF, {len(reader.fields)} keys, {len(reader.tensors)} tensors, alignment {reader.alignment}")
    for name, field in reader.fields.items():
        if not name or not name.isprintable() or name != name.strip():
            faults.append(f"the key {name!r} is empty or cannot be read")
        try:
            print(f"  {name} = {shown(field)}")
        except Exception as error:
            faults.append(f"the value of {name} cannot be read: {error!r}")
    for tensor in reader.tensors:
        if not tensor.name or not tensor.name.isprintable():
            faults.append(f"the tensor name {tensor.name!r} is empty or cannot be read")
        if tensor.data_offset % reader.alignment:
            faults.append(f"{tensor.name} starts at {tensor.data_offset}, not a multiple of {reader.alignment}")
        if verbose:
            print(f"  {tensor.name} {tensor.tensor_type.name} {[int(size) for size in reversed(tensor.shape)]}")
    return faults


def check_safetensors(path: Path, verbose: bool, expected: dict[str, Tensor] | None) -> list[str]:
    """What is wrong with a safetensors file, alone or against the tensors that it should hold."""
    faults = []
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            print(f"{path}: safetensors, {len(names)} tensors, metadata {file.metadata()}")
            for name in sorted(names):
                tensor = file.get_tensor(name)
                if verbose:
                    print(f"  {name} {tensor.dtype} {list(tensor.shape)}")
                if expected is not None and name in expected:
                    faults += difference(name, tensor, expected[name])
    except SafetensorError as error:
        return [f"safetensors cannot open it: {error}"]
    if expected is not None:
        faults += [f"{name} is missing" for name in sorted(expected.keys() - names)]
        faults += [f"{name} is not in the checkpoint" for name in sorted(names - expected.keys())]
    return faults


def difference(name: str, found: Tensor, wanted: Tensor) -> list[str]:
    if found.dtype != wanted.dtype or found.shape != wanted.shape:
        return [f"{name} is {found.dtype} {list(found.shape)}, not {wanted.dtype} {list(wanted.shape)}"]
    one, other = (value.contiguous().flatten().view(torch.uint8) for value in (found, wanted))
    return [] if torch.equal(one, other) else [f"{name}: {int((one != other).sum())} of {one.numel()} bytes differ"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="a .gguf or .safetensors file")
    parser.add_argument("--against", type=Path, metavar="FILE.pth", help="the checkpoint that safetensors files were made from; it is unpickled, so only one that you trust")
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    options = parser.parse_args()
    expected = state_of(options.against) if options.against else None
    failed = False
    for path in options.files:
        if path.suffix == ".gguf":
            faults = check_gguf(path, options.tensors)
        elif path.suffix == ".safetensors":
            faults = check_safetensors(path, options.tensors, expected)
        else:
            faults = ["neither .gguf nor .safetensors"]
        for fault in faults:
            print(f"{path}: {fault}", file=sys.stderr)
        failed = failed or bool(faults)
    sys.exit(failed)


if __name__ == "__main__":
    main()

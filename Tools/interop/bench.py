"""What the checks of `consumers.py` share: two checkpoints, inputs for them, outputs that are made once, and what equal means."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "Tools" / "reference")]
# No consumer shall look for anything elsewhere than in the folder that it is given.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", HF_HUB_DISABLE_PROGRESS_BARS="1")
warnings.filterwarnings("ignore")

import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import Tensor  # noqa: E402

import family  # noqa: E402
import onnx_check  # noqa: E402
from measures import sqnr  # noqa: E402

LEAST_DB = 95.0
LEAST_INT8_DB = 15.0
"""Of a consumer's int8 without any balancing of the layers, against fp32: a wrong scale or a transposed matrix gives none."""


class Bench:
    """A folder with two checkpoints, inputs for them, and the program."""

    def __init__(self, program: Path, folder: Path, size: str) -> None:
        self.multiway = onnx_check.Multiway(program)
        self.folder = folder
        self.beit3, self.beit = folder / "beit3.pth", folder / "beit.safetensors"
        tiny = ["--size", "custom", "--width", "128", "--layers", "2", "--heads", "4", "--ffn", "1024", "--vocabulary", "512"]
        shape = tiny if size == "tiny" else ["--size", "base"]
        subprocess.run([sys.executable, ROOT / "Tools/reference/make_checkpoint.py", *shape, "--task", "classification", "--out", self.beit3], check=True, stdout=sys.stderr)
        narrow = dict(width=128, layers=2, heads=4, ffn=1024, classes=10) if size == "tiny" else {}
        self.shard_size = "1MB" if size == "tiny" else "100MB"
        self.configuration = family.Configuration(**narrow)
        state = family.make_state(self.configuration, seed=1)
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, self.beit, metadata={"format": "pt"})
        self.inputs = folder / "inputs.safetensors"
        subprocess.run([sys.executable, ROOT / "Tools/reference/make_inputs.py", "--images", "2", "--image-size", "224", "--out", self.inputs], check=True, stdout=sys.stderr)

    @property
    def heads(self) -> int:
        return self.configuration.heads

    def path(self, name: str) -> Path:
        return self.folder / name

    def make(self, verb: str, *arguments: object, to: str) -> Path:
        """An output of the program, made once."""
        path = self.path(to)
        if not path.exists():
            self.multiway(verb, *arguments[:1], f"{path}/" if path.suffix == "" else path, *arguments[1:])
        return path

    def logits(self, model: Path) -> Tensor:
        """What `multiway run` computes."""
        outputs = self.path(model.name + ".outputs.safetensors")
        if not outputs.exists():
            self.multiway("run", model, "--inputs", self.inputs, "--outputs", outputs)
        return load_file(outputs)["logits"]

    @property
    def image(self) -> Tensor:
        return load_file(self.inputs)["image"]


def require(condition: bool, what: str) -> None:
    if not condition:
        raise AssertionError(what)


def decibels(found: Tensor, wanted: Tensor, least: float = LEAST_DB) -> str:
    ratio = sqnr(wanted, found.float())
    require(ratio >= least, f"{ratio:.1f} dB")
    return "the same bits" if ratio == float("inf") else f"{ratio:.1f} dB"


def state_of(path: Path) -> dict[str, Tensor]:
    """A `.pth` file's tensors as `torch.load` gives them to careful people."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return checkpoint.get("model", checkpoint)


def same_tensors(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> str:
    require(found.keys() == wanted.keys(), f"other names: {sorted(found.keys() ^ wanted.keys())[:5]}")
    for name, tensor in wanted.items():
        other = found[name]
        require(other.dtype == tensor.dtype and other.shape == tensor.shape, f"{name} is {other.dtype} {list(other.shape)}")
        same = torch.equal(other.contiguous().flatten().view(torch.uint8), tensor.contiguous().flatten().view(torch.uint8))
        require(same, f"{name} has other bytes")
    return f"{len(wanted)} tensors, the same bytes"

"""Loads a model in ONNX Runtime and runs it once, as a process of its own: when the logits were there, and what memory it took.

    first_logits.py model.onnx THREADS inputs.safetensors
"""

import json
import sys
import time
from pathlib import Path

import onnxruntime
from safetensors.numpy import load_file

model, threads, inputs = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(threads)
options.log_severity_level = 3
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
used = {each.name for each in session.get_inputs()}
session.run(None, {name: value for name, value in load_file(inputs).items() if name in used})
finished = time.time()
# Not getrusage: its figure begins with that of the process that started this one.
status = Path("/proc/self/status").read_text()
peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) * 1024
print(json.dumps({"finished": finished, "peak_memory_bytes": peak}))

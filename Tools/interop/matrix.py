"""Converts checkpoints to every format that is written, opens each output with the tools that read it, and prints the matrix.

    matrix.py                 a BEiT-3 base and a BEiT base, made by Tools/reference
    matrix.py --size tiny     the same architectures with two narrow layers
    matrix.py --only timm     the rows whose format or consumer contains a word

A row is a format, a consumer and a check: that the consumer takes the file strictly, and that what it reads or computes is what it must
be. Outputs are compared with `multiway run` on the same weights: at least 95 dB where the arithmetic is fp32. The status is 1 where a
row fails.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from pathlib import Path

from bench import ROOT, Bench
from consumers import ROWS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--multiway", type=Path, default=ROOT / ".build" / "release" / "multiway", help="the program")
    parser.add_argument("--size", choices=["base", "tiny"], default="base")
    parser.add_argument("--only", metavar="WORD", help="the rows whose format or consumer contains a word")
    parser.add_argument("--trace", action="store_true", help="print where a check failed")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="interop-") as folder:
        bench = Bench(options.multiway.resolve(), Path(folder), options.size)
        print("| format | consumer | result |\n|---|---|---|", flush=True)
        for row in ROWS:
            if options.only and options.only not in f"{row.format} {row.consumer}":
                continue
            try:
                result = row.check(bench)
            except Exception as error:  # Whatever a consumer raises is a fault of the output.
                failed += 1
                result = f"FAILED: {type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else ''}"
                if options.trace:
                    traceback.print_exc()
            print(f"| {row.format} | {row.consumer} | {result} |", flush=True)
    if failed:
        print(f"{failed} rows failed", file=sys.stderr)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()

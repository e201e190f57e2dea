#!/usr/bin/env python3
"""What compiling costs, side by side with its peers in one run.

    python fixtures/make_big.py wide FOLDER; python fixtures/make_big.py deep FOLDER
    cargo build --release
    python tests/bench/compile.py FOLDER [--rounds 15]

LoRA of rank 8 on every q and v projection. Peers: `onnx_lora.py`, the same injection with the `onnx`
package in a process of its own, and `cp` of the external data for `-o` in another folder. In every
round each contestant runs once, in turn, with warm files, and waits until the disk has what the one before
has written: the system writes it seconds later, and whoever runs then would pay for it. Wall time and peak
memory are those of the whole process, start and imports included. Needs `onnx` and `numpy`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEFTC = HERE.parent.parent / "target" / "release" / "peftc"

SPEC = """use std::lora

adapter qv {
  adapt "self_attn.{q,v}_proj" with lora(rank = 8, alpha = 16)
}
"""


def run(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak memory in MiB."""
    null = os.open(os.devnull, os.O_WRONLY)
    start = time.perf_counter()
    child = os.posix_spawnp(
        command[0], command, os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, null, 1)],
    )  # fmt: skip
    _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - start
    os.close(null)
    if status != 0:
        sys.exit(f"{' '.join(command)}: status {status}")
    return wall, usage.ru_maxrss / 1024


def contestants(folder: Path, scratch: Path) -> dict[str, list[str]]:
    spec = scratch / "qv.peft"
    spec.write_text(SPEC)
    peer = [sys.executable, str(HERE / "onnx_lora.py")]
    entries = {}
    for model in ("wide", "deep"):
        base = folder / f"{model}.onnx"
        entries[f"{model}: peftc"] = [str(PEFTC), "-q", "compile", str(spec), str(base)]
        entries[f"{model}: python onnx"] = [*peer, str(base), str(folder / f"{model}.peer.onnx")]
    return entries


def copies(folder: Path, scratch: Path) -> dict[str, list[str]]:
    wide, spec = folder / "wide.onnx", scratch / "qv.peft"
    return {
        "wide, copied: peftc -o": [str(PEFTC), "-q", "compile", str(spec), str(wide), "-o", str(scratch / "out")],
        "wide, copied: cp": ["cp", str(folder / "wide.onnx.data"), str(scratch / "copy" / "wide.onnx.data")],
    }


def series(entries: dict[str, list[str]], rounds: int, scratch: Path) -> dict[str, list[tuple[float, float]]]:
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in entries}
    for round_ in range(rounds + 1):
        for name, command in entries.items():
            for made in ("out", "copy"):
                shutil.rmtree(scratch / made, ignore_errors=True)
            (scratch / "copy").mkdir()
            os.sync()
            measured = run(command)
            if round_ > 0:  # the first round warms the caches
                figures[name].append(measured)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds wide.onnx and deep.onnx of make_big.py")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    # In the same file system as the models, so that a copy is the same work for both.
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        scratch = Path(scratch).resolve()
        folder = options.folder.resolve()
        figures: dict[str, list[tuple[float, float]]] = {}
        for entries in (contestants(folder, scratch), copies(folder, scratch)):
            figures |= series(entries, options.rounds, scratch)
    print(f"{'':26}{'min ms':>9}{'median':>9}{'max':>9}{'MiB':>8}   {options.rounds} rounds")
    for name, runs in figures.items():
        walls = [1000 * wall for wall, _ in runs]
        memory = max(peak for _, peak in runs)
        print(f"{name:26}{min(walls):9.1f}{statistics.median(walls):9.1f}{max(walls):9.1f}{memory:8.1f}")


if __name__ == "__main__":
    main()

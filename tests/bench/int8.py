#!/usr/bin/env python3
"""What a base in 8 bits costs in accuracy: the quickstart's adapters, trained on both, over several seeds.

    cargo build --release
    python tests/bench/int8.py FOLDER [--seeds 0 1 2] [--base int8]

Shown are the shares of held-out examples that are right, by seed and on average; one seed more or less moves the
share by as much as the base does. `curves.html` in the folder has the losses of all runs side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PEFTC = Path(os.environ.get("PEFTC", ROOT / "target" / "release" / "peftc"))
QUICKSTART = ROOT / "fixtures" / "quickstart"


def train(task: str, base: str, seed: int, folder: Path) -> float:
    changes = [f"base={base}", f"seed={seed}", f"output={folder}"]
    command = [PEFTC, "-q", "--format", "json", "train", QUICKSTART / f"{task}.yaml"]
    command += [part for change in changes for part in ("--with", change)]
    found = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, check=True)
    return 100 * json.loads(found.stdout)["after"]["exact"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="gets the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--base", default="int8")
    options = parser.parse_args()
    folder = options.folder.resolve()
    runs = []
    for task in ("math_task", "code_task"):
        means = {}
        for base in ("own", options.base):
            shares = []
            for seed in options.seeds:
                runs.append(folder / f"{task}.{base}.{seed}")
                shares.append(train(task, base, seed, runs[-1]))
            means[base] = statistics.mean(shares)
            print(f"{task:10} {base:13} {'  '.join(f'{share:5.1f}' for share in shares)}   mean {means[base]:.2f} %", flush=True)
        print(f"{task:10} {options.base} is {means[options.base] - means['own']:+.2f} points from own", flush=True)
    report = [PEFTC, "report", *runs, "-o", folder / "curves.html"]
    subprocess.run(list(map(str, report)), check=True)


if __name__ == "__main__":
    main()

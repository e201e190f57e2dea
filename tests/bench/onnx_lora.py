#!/usr/bin/env python3
"""The peer of the compile benchmark: LoRA on all q/v sites with nothing but the `onnx` package.

    python tests/bench/onnx_lora.py MODEL.onnx OUT.onnx [--rank 8] [--alpha 16]

Only the graph is read and written; external data stays where it is, so OUT must lie in MODEL's
folder. Sites are found by node name, as a hand-written script would. Prints one line of JSON:
wall seconds with and without the import of onnx, peak memory, sites, bytes written.
`fixtures/make_big.py` makes the models.
"""

import time

STARTED = time.perf_counter()

import argparse
import json
import os
import re
import resource
import sys

import numpy as np
import onnx
from onnx import helper, numpy_helper

IMPORTED = time.perf_counter()
SITE = re.compile(r"/(?:q|v)_proj/MatMul$")


def inject(model: onnx.ModelProto, rank: int, alpha: float) -> int:
    """y becomes y + (alpha / rank) * (x A) B at every site; returns the number of sites."""
    graph, random = model.graph, np.random.default_rng(0)
    shapes = {tensor.name: tensor.dims for tensor in graph.initializer}
    graph.initializer.append(numpy_helper.from_array(np.array(alpha / rank, dtype=np.float32), "lora_scale"))
    nodes, sites = [], 0
    for node in graph.node:
        nodes.append(node)
        if node.op_type != "MatMul" or not SITE.search(node.name):
            continue
        fan_in, fan_out = shapes[node.input[1]]
        path = node.name.removesuffix("/MatMul")
        bound = (1.0 / fan_in) ** 0.5
        a = random.uniform(-bound, bound, (fan_in, rank)).astype(np.float32)
        b = np.zeros((rank, fan_out), dtype=np.float32)
        graph.initializer.append(numpy_helper.from_array(a, f"{path}/lora_A"))
        graph.initializer.append(numpy_helper.from_array(b, f"{path}/lora_B"))
        output, base = node.output[0], f"{path}/base_output"
        node.output[0] = base
        steps = [
            ("MatMul", [node.input[0], f"{path}/lora_A"], f"{path}/lora_A_output"),
            ("MatMul", [f"{path}/lora_A_output", f"{path}/lora_B"], f"{path}/lora_B_output"),
            ("Mul", [f"{path}/lora_B_output", "lora_scale"], f"{path}/lora_scaled"),
            ("Add", [base, f"{path}/lora_scaled"], output),
        ]
        nodes += [helper.make_node(op, inputs, [out], f"{out}/{op}") for op, inputs, out in steps]
        sites += 1
    del graph.node[:]
    graph.node.extend(nodes)
    return sites


def peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=16.0)
    arguments = parser.parse_args()
    if os.path.dirname(os.path.abspath(arguments.model)) != os.path.dirname(os.path.abspath(arguments.out)):
        parser.error("OUT must lie in the folder of MODEL: its external data is there")
    model = onnx.load(arguments.model, load_external_data=False)
    loaded = time.perf_counter()
    sites = inject(model, arguments.rank, arguments.alpha)
    rewritten = time.perf_counter()
    onnx.save(model, arguments.out)
    saved = time.perf_counter()
    if sites == 0:
        sys.exit("no site is named like `…/q_proj/MatMul`")
    report = {
        "sites": sites,
        "wall_s": round(saved - STARTED, 4),
        "wall_without_import_s": round(saved - IMPORTED, 4),
        "load_s": round(loaded - IMPORTED, 4),
        "rewrite_s": round(rewritten - loaded, 4),
        "save_s": round(saved - rewritten, 4),
        "peak_rss_mib": round(peak_mib(), 1),
        "bytes_out": os.path.getsize(arguments.out),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""A step of training beside PyTorch with PEFT: same model, batch and adapter, one run, taking turns.

    python fixtures/make_bench.py FOLDER
    cargo build --release
    python tests/bench/train.py FOLDER [--models llama] [--targets qv all] [--rounds 7] [--compile]
    python tests/bench/train.py FOLDER --provider cuda --precision bf16 --models llama_large

Rank 8, AdamW, f32, dropout 0, random tokens, loss over all of them. In every round each contestant
runs a burst of steps in turn, alone, on all cores: torch in a process that lives through the whole
run, `peftc bench train` with two steps before the burst that do not count. The figure of a round is
the ratio of median steps; shown are the median of the rounds and the span from the tenth to the
ninetieth percentile. Memory is the most that the process has held; with a GPU, the most that it has held of the GPU's, as
`nvidia-smi` tells. `--precision` is that of products: fp32, tf32, or bf16, which is autocast in torch and
`--base bf16` here. `--int8` adds our `--base int8`, on a GPU `--base int8_weights`, `--plain` our `--no-kernels`, `--graphs` our `--cuda-graphs`. Needs torch, transformers and peft.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEFTC = Path(os.environ.get("PEFTC", HERE.parent.parent / "target" / "release" / "peftc"))
NAMES = {
    "llama_large": {"qv": "self_attn.{q,v}_proj", "all": "layers.*.{self_attn,mlp}.*"},
    "llama": {"qv": "self_attn.{q,v}_proj", "all": "layers.*.{self_attn,mlp}.*"},
    "gpt2": {"qv": "attn.c_attn", "all": "h.*.{attn,mlp}.*"},
    "bert": {"qv": "attention.self.{query,value}", "all": "encoder.layer.**.{query,key,value,dense}"},
}
TORCH = {
    "llama_large": {"qv": ["q_proj", "v_proj"], "all": r".*layers\.\d+\.(self_attn|mlp)\.\w+_proj"},
    "llama": {"qv": ["q_proj", "v_proj"], "all": r".*layers\.\d+\.(self_attn|mlp)\.\w+_proj"},
    "gpt2": {"qv": ["c_attn"], "all": ["c_attn", "c_proj", "c_fc"]},
    "bert": {"qv": ["query", "value"], "all": r".*encoder\.layer\.\d+\..*(query|key|value|dense)"},
}


def peer(model_name: str, targets: str, rows: int, length: int, more: list[str]) -> None:
    """The torch side: reads how many steps to do, answers with their milliseconds."""
    sys.path.insert(0, str(HERE.parent.parent / "fixtures"))
    import torch
    from make_bench import VOCABULARY, build
    from peft import LoraConfig, get_peft_model

    compiled, device = "--compile" in more, "cuda" if "cuda" in more else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = "tf32" in more
    half = lambda: torch.autocast(device, torch.bfloat16) if "bf16" in more else contextlib.nullcontext()
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    config = LoraConfig(r=8, lora_alpha=16, target_modules=TORCH[model_name][targets], lora_dropout=0.0)
    model = get_peft_model(build(model_name).to(device), config)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0)
    step_model = torch.compile(model) if compiled else model
    ids = torch.randint(0, VOCABULARY, (rows, length), device=device)
    mask = torch.ones_like(ids)
    print(sum(p.numel() for p in trained), flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            with half():
                loss = step_model(input_ids=ids, attention_mask=mask, labels=ids).loss
            loss.backward()
            optimizer.step()
            wait()
            times.append(1000 * (time.perf_counter() - start))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"milliseconds": times, "peak": peak}), flush=True)


class DeviceMemory:
    """The most memory of the GPU in use, in MiB, above what was in use before."""

    def __init__(self, on: bool) -> None:
        self.on, self.peak, self.start = on, 0.0, self.used() if on else 0.0

    def used(self) -> float:
        command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        return float(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.split()[0])

    @contextlib.contextmanager
    def watched(self):
        done = threading.Event()

        def watch() -> None:
            while True:
                self.peak = max(self.peak, self.used() - self.start)
                if done.wait(0.1):
                    return

        watcher = threading.Thread(target=watch)
        if self.on:
            watcher.start()
        try:
            yield
        finally:
            done.set()
            if self.on:
                watcher.join()


class Torch:
    def __init__(self, arguments: list[str], on_gpu: bool) -> None:
        self.memory = DeviceMemory(on_gpu)
        command = [sys.executable, __file__, "--peer", *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.trained = int(self.process.stdout.readline())

    def burst(self, steps: int) -> dict:
        with self.memory.watched():
            self.process.stdin.write(f"{steps}\n")
            self.process.stdin.flush()
            found = json.loads(self.process.stdout.readline())
        return found | ({"peak": self.memory.peak} if self.memory.on else {})

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


class Peftc:
    def __init__(self, command: list[str], on_gpu: bool) -> None:
        self.command, self.on_gpu = command, on_gpu

    def burst(self, steps: int) -> dict:
        memory = DeviceMemory(self.on_gpu)
        with memory.watched():
            found = subprocess.run([*self.command, "--steps", str(steps)], stdout=subprocess.PIPE, check=True)
        found = json.loads(found.stdout)
        peak = memory.peak if self.on_gpu else found["peak_memory_bytes"] / 2**20
        return {"milliseconds": found["milliseconds"], "peak": peak}

    def end(self) -> None:
        pass


def measure(options: argparse.Namespace, name: str, targets: str, rows: int, length: int, scratch: Path) -> None:
    spec = scratch / "bench.peft"
    spec.write_text(f'use std::lora\n\nadapter bench {{\n  adapt "{NAMES[name][targets]}" with lora(rank = 8, alpha = 16)\n}}\n')
    command = [str(PEFTC), "-q", "--format", "json", "bench", "train", str(spec), str(options.folder / f"{name}.onnx")]
    on_gpu = options.provider.startswith("cuda")
    # torch promises no order of its sums either.
    command += ["--any-order"] if on_gpu else []
    shape = [name, targets, str(rows), str(length), options.provider, options.precision]
    command += ["--batch", str(rows), "--length", str(length), "--provider", options.provider]
    command += {"fp32": [], "tf32": ["--tf32"], "bf16": ["--tf32", "--base", "bf16"]}[options.precision]
    contestants = {"torch sdpa": Torch(shape, on_gpu), "peftc": Peftc(command, on_gpu)}
    if options.plain:
        contestants["peftc plain"] = Peftc([*command, "--no-kernels"], on_gpu)
    if options.graphs:
        contestants["peftc graphs"] = Peftc([*command, "--cuda-graphs"], on_gpu)
    if options.int8:
        base = "int8_weights" if on_gpu else "int8"
        contestants["peftc int8"] = Peftc([*command, "--base", base], on_gpu)
    if options.compile:
        contestants["torch.compile"] = Torch([*shape, "--compile"], on_gpu)
    for one in contestants.values():
        one.burst(3)
    medians: dict[str, list[float]] = {one: [] for one in contestants}
    peaks: dict[str, float] = {}
    for _ in range(options.rounds):
        for one, process in contestants.items():
            found = process.burst(options.steps)
            medians[one].append(statistics.median(found["milliseconds"]))
            peaks[one] = found["peak"]
    for process in contestants.values():
        process.end()
    for one in contestants:
        ratios = sorted(a / b for a, b in zip(medians[one], medians["torch sdpa"]))
        low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
        shown = f"{statistics.median(ratios):6.2f} [{low:.2f}..{high:.2f}]"
        print(
            f"{name:6}{targets:5}{rows:3}×{length:<5}{one:14}{min(medians[one]):8.1f} ms{statistics.median(medians[one]):8.1f} ms"
            f"   ratio {shown}   {peaks[one]:6.0f} MiB ({peaks[one] / peaks['torch sdpa']:.2f})",
            flush=True,
        )


def main() -> None:
    if sys.argv[1:2] == ["--peer"]:
        name, targets, rows, length, *rest = sys.argv[2:]
        return peer(name, targets, int(rows), int(length), rest)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds the models of make_bench.py")
    parser.add_argument("--models", nargs="+", default=["llama", "gpt2", "bert"])
    parser.add_argument("--targets", nargs="+", default=["qv", "all"])
    parser.add_argument("--shapes", nargs="+", default=["4x128", "2x512"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--provider", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "tf32", "bf16"])
    parser.add_argument("--plain", action="store_true", help="ours without kernels as a further contestant")
    parser.add_argument("--int8", action="store_true", help="our base in 8 bits as a further contestant")
    parser.add_argument("--graphs", action="store_true", help="ours with CUDA graphs as a further contestant")
    parser.add_argument("--compile", action="store_true", help="torch.compile as a third contestant")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.models:
            for targets in options.targets:
                for shape in options.shapes:
                    rows, length = map(int, shape.split("x"))
                    measure(options, name, targets, rows, length, Path(scratch))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What the CPU and a GPU compute, side by side.

    peftc runtime install --cuda
    cargo build --release
    python tests/gpu/check.py [models] [gradients] [train] [ways] [--peftc PATH]

* models: every fixture with recorded inputs, run by both providers.
* gradients: loss and gradients of a LoRA on all linear layers, of the fixtures named below.
* train: `math_task` of the quickstart, trained by both, and on the GPU in TensorFloat-32 and on a
  bfloat16 and a float16 base, too; and once more, to see whether the GPU repeats itself bit for bit.
* ways: twenty steps of it with everything that changes the graphs of a step: logits in pieces, activations
  computed again, Adam's state in 8 bits, a rounded base, updates of several batches, hooks, prompts, first passes,
  repeated layers, and a decoder's. And once more with steps that are recorded as CUDA graphs: the same bits. A base whose
  products are in 8 bits is refused.

Without a GPU this fails; `--beside cpu` compares the CPU with itself, which tests this script. Speed beside PyTorch: `tests/bench/train.py --provider cuda`. Needs numpy and
safetensors.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent.parent
MODELS = ROOT / "fixtures" / "models"
QUICKSTART = ROOT / "fixtures" / "quickstart"
# Relative to the largest magnitude. f32 sums in another order; f16, TensorFloat-32 and bfloat16 have coarser units.
EXACT, HALF = 1e-4, 1e-2
TRAINED = [
    ("llama.dynamo", "causal_lm"), ("llama.ts", "causal_lm"), ("qwen2.dynamo", "causal_lm"), ("gpt2.dynamo", "causal_lm"),
    ("gpt2.ts", "causal_lm"), ("vit.dynamo", "classification"), ("vit.ts", "classification"),
]  # fmt: skip


class Peftc:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, *arguments: object) -> dict | None:
        """The answer as JSON; None for a failure, which is shown."""
        command = [self.path, "-q", "--format", "json", *map(str, arguments)]
        found = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if found.returncode != 0:
            print((found.stderr or found.stdout)[-1500:])
            return None
        return json.loads(found.stdout)


def distance(found: dict, expected: dict) -> float:
    """The largest difference of any tensor, relative to the largest magnitude of its own."""
    worst = 0.0
    for name, want in expected.items():
        want, have = want.astype(np.float64), found[name].astype(np.float64)
        if want.size:
            finite = np.isfinite(want)
            scale = max(np.abs(want[finite]).max(initial=0.0), 1e-30)
            worst = max(worst, np.abs(have - want)[finite].max(initial=0.0) / scale)
    return worst


def both(peftc: Peftc, model: Path, inputs: Path, scratch: Path) -> float | None:
    outputs = []
    for provider in ["cpu", "cuda"]:
        path = scratch / f"{provider}.safetensors"
        if peftc("run", model, "--input", inputs, "--output", path, "--provider", provider) is None:
            return None
        outputs.append(load_file(path))
    return distance(outputs[1], outputs[0])


def verdict(name: str, worst: float | None, bound: float) -> bool:
    good = worst is not None and worst <= bound
    shown = "failed" if worst is None else f"{worst:.1e}"
    print(f"  {'ok ' if good else 'BAD'} {name:44}{shown:>10}  (at most {bound:.0e})", flush=True)
    return good


def models(peftc: Peftc, scratch: Path) -> list[bool]:
    found = []
    for recording in sorted(MODELS.glob("*.io.safetensors")):
        name = recording.name.removesuffix(".io.safetensors")
        if "int4" in name:
            # `peftc run` leaves products with 4-bit weights to the provider: that of the CPU rounds activations
            # to 8 bits, that of the GPU does not.
            print(f"  not compared {name}: the providers compute it in different precisions")
            continue
        bound = HALF if "fp16" in name else EXACT
        found.append(verdict(name, both(peftc, MODELS / f"{name}.onnx", recording, scratch), bound))
    return found


def gradients(peftc: Peftc, scratch: Path) -> list[bool]:
    spec = scratch / "lora.peft"
    spec.write_text("use std::lora\nadapter a { adapt all linear with lora(rank = 4) }\n")
    found = []
    for name, task in TRAINED:
        folder = scratch / name
        model = MODELS / f"{name}.onnx"
        if peftc("compile", spec, model, "--train", "--task", task, "-o", folder) is None:
            found.append(verdict(name, None, EXACT))
            continue
        manifest = json.loads((folder / "manifest.json").read_text())
        recorded = load_file(MODELS / f"{name}.io.safetensors")
        start = load_file(folder / "adapter.safetensors")
        random = np.random.default_rng(0)
        inputs = {}
        for port in manifest["graphs"]["grad"]["inputs"]:
            key = port["name"]
            if port["role"] == "parameter":
                shape = start[f"{port['module']}.{port['parameter']}"].shape
                inputs[key] = (0.1 * random.standard_normal(shape)).astype(np.float32)
            elif port["role"] == "labels" and task == "causal_lm":
                inputs[key] = recorded.get("input_ids", recorded.get("input.input_ids")).astype(np.int64)
            elif port["role"] == "labels":
                rows = len(next(iter(recorded.values())))
                inputs[key] = np.arange(rows, dtype=np.int64) % 2
            else:
                inputs[key] = recorded.get(key, recorded.get(f"input.{key}"))
        path = scratch / "inputs.safetensors"
        save_file({key: np.ascontiguousarray(value) for key, value in inputs.items()}, path)
        found.append(verdict(name, both(peftc, folder / "grad.onnx", path, scratch), 10 * EXACT))
    return found


def trained(peftc: Peftc, folder: Path, *changes: str) -> tuple[dict, list[float]] | None:
    changes = [part for change in (*changes, f"output={folder}") for part in ("--with", change)]
    outcome = peftc("train", QUICKSTART / "math_task.yaml", *changes)
    if outcome is None:
        return None
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return outcome, [line["loss"] for line in lines if line["event"] == "step"]


def train(peftc: Peftc, scratch: Path) -> list[bool]:
    runs = {
        "cpu": [], "cuda": ["provider=cuda"], "cuda again": ["provider=cuda"],
        "cuda tf32": ["provider=cuda", "tf32=true"], "cuda bf16": ["provider=cuda", "tf32=true", "base=bf16"],
        "cuda f16": ["provider=cuda", "tf32=true", "base=f16"], "cuda graphs": ["provider=cuda", "cuda_graphs=true"],
    }  # fmt: skip
    found, losses = [], {}
    for name, changes in runs.items():
        folder = scratch / name.replace(" ", "-")
        run = trained(peftc, folder, *changes)
        if run is None:
            found.append(verdict(name, None, EXACT))
            continue
        outcome, losses[name] = run
        print(f"      {name:12} {outcome['seconds']:.1f} s, right {outcome['before']['exact']:.3f} -> {outcome['after']['exact']:.3f}")
        found.append(outcome["after"]["exact"] > 0.9)
        if name != "cpu" and "cpu" in losses:
            # Later, differences of a rounding grow as training goes other ways.
            early = zip(losses[name][:20], losses["cpu"][:20])
            worst = max(abs(a - b) / b for a, b in early)
            found.append(verdict(f"{name}: 20 losses", worst, EXACT if name.endswith(("cuda", "again", "graphs")) else HALF))
    for name, said in {"cuda-again": "two runs on the GPU", "cuda-graphs": "recorded steps and plain ones"}.items():
        twice = [scratch / run / "adapter.safetensors" for run in ["cuda", name]]
        equal = all(map(Path.exists, twice)) and twice[0].read_bytes() == twice[1].read_bytes()
        print(f"  {'ok ' if equal else 'BAD'} {said} are equal bit for bit")
        found.append(equal)
    return found


# Specs, and changes of the configuration.
WAYS = {
    "loss_pieces": (None, ["loss_pieces=4"]),
    "recompute": (None, ["recompute=true"]),
    "8-bit Adam": (None, ["optimizer.state=int8"]),
    "weights of the base in int8": (None, ["base=int8_weights"]),
    "accumulate": (None, ["accumulate=2"]),
    "dropout": ("use std::lora\nadapter math_task { adapt all linear with lora(rank = 8, dropout = 0.1) }\n", []),
    "hooks": ("use std::adalora\nadapter math_task { adapt all linear with adalora(total = 20) }\n", []),
    "prompt": (
        'use std::prompt_tuning\nadapter math_task { adapt "embed_tokens" with prompt_tuning(tokens = 8) }\n', [],
    ),
    "first pass": (
        'use std::xlora\nadapter math_task { adapt "{q,v}_proj" with xlora(experts = 2, trainable = true) }\n', [],
    ),
    "layers": (
        'use std::lora\nadapter math_task { layers "model.layers" = [0..2, 1..2]; adapt "{q,v}_proj" with lora() }\n', [],
    ),
}  # fmt: skip

SEQ2SEQ = """model: {model}
spec: {spec}
task: seq2seq
data: {{train: {data}}}
batch_size: 4
steps: 20
optimizer: {{learning_rate: 1e-2}}
output: {output}
"""


def losses_of(peftc: Peftc, config: Path, folder: Path, changes: list[str]) -> list[float] | None:
    changes = [part for change in (*changes, f"output={folder}") for part in ("--with", change)]
    if peftc("train", config, *changes) is None:
        return None
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["event"] == "step"]


def decoder(scratch: Path) -> Path:
    """A configuration that turns sequences round with a T5."""
    random = np.random.default_rng(0)
    rows = [random.integers(10, 40, size).tolist() for size in random.integers(3, 7, 32)]
    data, spec, config = scratch / "rows.jsonl", scratch / "t5.peft", scratch / "t5.yaml"
    data.write_text("".join(json.dumps({"input_ids": [*row, 1], "labels": [*row[::-1], 1]}) + "\n" for row in rows))
    spec.write_text("use std::lora\nadapter turned { adapt all linear with lora(rank = 4) }\n")
    config.write_text(SEQ2SEQ.format(model=MODELS / "t5.dynamo.onnx", spec=spec, data=data, output=scratch / "t5"))
    return config


def ways(peftc: Peftc, scratch: Path, beside: str) -> list[bool]:
    configs = {"seq2seq": (decoder(scratch), [])}
    for name, (spec, changes) in WAYS.items():
        if spec is not None:
            path = scratch / f"{name.replace(' ', '-')}.peft"
            path.write_text(spec)
            changes = [*changes, f"spec={path}"]
        configs[name] = (QUICKSTART / "math_task.yaml", [*changes, "steps=20"])
    found = []
    for name, (config, changes) in configs.items():
        runs = []
        providers = [["provider=cpu"], [f"provider={beside}"]]
        # Loops cannot be recorded.
        can_record = beside == "cuda" and name != "loss_pieces"
        providers += [["provider=cuda", "cuda_graphs=true"]] if can_record else []
        for provider in providers:
            folder = scratch / f"{name.replace(' ', '-')}-{len(runs)}"
            runs.append(losses_of(peftc, config, folder, [*changes, *provider]))
        for recorded in runs[2:]:
            print(f"  {'ok ' if recorded == runs[1] else 'BAD'} {name}: recorded steps and plain ones are equal bit for bit")
            found.append(recorded is not None and recorded == runs[1])
        worst, runs = None, runs[:2]
        if all(runs) and len(runs[0]) == 20:
            worst = max(abs(a - b) / b for a, b in zip(*runs))
        # Codes that are made at every step fall to another side of a step.
        bound = HALF if name == "8-bit Adam" else 10 * EXACT
        found.append(verdict(name, worst, bound))
    found.append(refuses_int8(peftc, scratch))
    return found


def refuses_int8(peftc: Peftc, scratch: Path) -> bool:
    """Also without a GPU: the configuration says enough."""
    changes = ["base=int8", "provider=cuda", f"output={scratch / 'refused'}"]
    more = [part for change in changes for part in ("--with", change)]
    command = [peftc.path, "-q", "--format", "json", "train", QUICKSTART / "math_task.yaml", *more]
    found = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    good = found.returncode == 1 and "E1108" in found.stdout + found.stderr
    print(f"  {'ok ' if good else 'BAD'} base: int8 is refused on a GPU")
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {"models": models, "gradients": gradients, "train": train, "ways": ways}
    parser.add_argument("parts", nargs="*", default=list(parts), help=" ".join(parts))
    parser.add_argument("--peftc", type=Path, default=ROOT / "target" / "release" / "peftc")
    parser.add_argument("--beside", default="cuda", help="the provider that is compared with the CPU, of `ways`")
    options = parser.parse_args()
    found: list[bool] = []
    with tempfile.TemporaryDirectory() as scratch:
        for part in options.parts:
            print(f"{part}:", flush=True)
            more = [options.beside] if part == "ways" else []
            found += parts[part](Peftc(options.peftc), Path(scratch), *more)
    print(f"{sum(found)} of {len(found)} checks hold")
    sys.exit(0 if all(found) else 1)


if __name__ == "__main__":
    main()

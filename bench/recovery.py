#!/usr/bin/env python3
"""Recovery by training: the paper's conversion, TransMLA's and this program's, each fine-tuned on the calibration text (next tokens) and
distilled from the original, with early stopping on the last twentieth of that text; NLL of text that neither saw. Prints Markdown tables.
What is in the work directory is not made again, and what was interrupted goes on. The curves: `mha2mla report --training WORK/*/training.jsonl --html FILE`.

  python3 bench/recovery.py --program build/bench/bin/mha2mla --work /tmp/recovery
"""
import argparse
import json
from pathlib import Path

import measuring
import study_models

CONVERSIONS = {
    "paper": ["--method", "mha2mla"],
    "TransMLA": ["--method", "transmla"],
    "ours": [],
}
OBJECTIVES = {"next tokens": [], "distillation": ["--teacher"]}
SEQUENCE, BATCH = 256, 16


def score(options, model, checkpoint):
    return measuring.run_json(options.program, "eval", checkpoint, *model.evaluation.options(""), "--context", SEQUENCE,
                              "--max-windows", 24)["nll"]


def converted(options, model, name, reduction):
    out = options.work / f"{model.name}-{name}-{reduction:g}"
    if not (out / "config.json").exists():
        measuring.run(options.program, "convert", model.checkpoint, out, "--resume", *CONVERSIONS[name], "--kv-reduction", reduction,
            *model.calibration.options("calibration-"), "--seq-len", SEQUENCE, "--samples", 480, "-q")
    return out


def trained(options, model, start, objective, steps):
    """NLL before and behind, tokens, and the curve on the split of the training text."""
    out = start.with_name(f"{start.name}-{objective.split()[0]}-{steps}")
    if not (out / "config.json").exists():
        teacher = [*OBJECTIVES[objective], model.checkpoint] if OBJECTIVES[objective] else []
        measuring.run(options.program, "finetune", start, out, "--resume", *model.calibration.options(""), *teacher, "--seq-len", SEQUENCE, "--batch", BATCH,
            "--steps", steps, "--learning-rate", options.learning_rate, "--eval-fraction", 0.05, "--eval-every",
            max(1, steps // 20), "--patience", 5, "-q")
    log = [json.loads(line) for line in (out / "training.jsonl").read_text().splitlines()]
    last = max(line.get("step", 0) for line in log)
    return {"nll": score(options, model, out), "tokens": last * SEQUENCE * BATCH, "log": str(out / "training.jsonl")}


def rows_of(options, model):
    original = score(options, model, model.checkpoint)
    for reduction in options.kv_reduction:
        for objective in OBJECTIVES:
            for name in CONVERSIONS:
                for steps in (options.steps, options.steps // 5) if name == "ours" else (options.steps,):
                    start = converted(options, model, name, reduction)
                    yield {"model": model.name, "kv_reduction": reduction, "objective": objective, "conversion": name, "steps": steps,
                           "original": original, "before": score(options, model, start),
                           **trained(options, model, start, objective, steps)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=Path("build/bench/bin/mha2mla"))
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["kjv-1.8M", "TinyStories-656K"])
    parser.add_argument("--kv-reduction", type=float, nargs="+", default=[0.6875, 0.8125, 0.875])
    parser.add_argument("--steps", type=int, default=500, help=f"of {BATCH} sequences of {SEQUENCE} tokens (default: %(default)s)")
    parser.add_argument("--learning-rate", default="1e-3")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    for model in study_models.find(options):
        print(f"\n| {model.name} | objective | conversion | before | trained | tokens | above the original |\n|---|---|---|---|---|---|---|")
        rows = []
        for row in rows_of(options, model):
            rows.append(row)
            print(f"| −{100 * row['kv_reduction']:g}% | {row['objective']} | {row['conversion']} | {row['before']:.4f} | {row['nll']:.4f} | "
                  f"{row['tokens'] / 1e6:.2f}M | {row['nll'] - row['original']:.4f} |", flush=True)
        (options.work / f"recovery-{model.name}.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

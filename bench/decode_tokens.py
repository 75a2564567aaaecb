#!/usr/bin/env python3
"""Measures complete decoding steps of original and converted checkpoints in tokens per second. The checkpoints are random, with
the shapes of real models and some of their layers; `mha2mla generate` continues prompts of several lengths. Prints a Markdown
table, or JSON with --json.

  /usr/bin/python3 bench/decode_tokens.py --program build/bench/bin/mha2mla --threads 2
"""
import argparse
import array
import json
import sys
import tempfile
from pathlib import Path

import measuring
import synthetic_checkpoint

# preset of bench/synthetic_checkpoint.py: the changes to it, and the options of the conversion. A small number of layers and words
# keeps the checkpoint small; the time of a step is then that of its layers.
MODELS = {
    "smollm-135m": (dict(), 8, 32),
    "llama-3-8b": (dict(layers=2, vocab=4096), 16, 32),
    "llama-2-7b": (dict(layers=2, vocab=4096, dtype="BF16"), 16, 16),
}


def make(options, name, directory):
    changes, rope_dim, kv_rank = MODELS[name]
    model = dict(synthetic_checkpoint.PRESETS[name], **changes)
    model["positions"] = max(options.contexts) + options.new_tokens
    synthetic_checkpoint.make_checkpoint(directory / "original", model, 5 * 10**9)
    measuring.run(options.program, "convert", directory / "original", directory / "converted", "--rope", "uniform", "--rope-dim",
        rope_dim, "--kv-rank", kv_rank, "--threads", options.threads)
    return model


def measure(options):
    rows = []
    for name in options.models:
        with tempfile.TemporaryDirectory() as place:
            directory = Path(place)
            model = make(options, name, directory)
            for context in options.contexts:
                prompt = directory / "prompt.u16"
                prompt.write_bytes(array.array("H", (3 + i % 1000 for i in range(context))).tobytes())
                for checkpoint in ("original", "converted"):
                    for cache in options.formats:
                        figures = measuring.run_json(
                            options.program, "generate", directory / checkpoint, "--prompt-tokens", prompt,
                            "--max-new-tokens", options.new_tokens, "--ignore-eos", "--kv-cache", cache, "--threads",
                            options.threads)
                        decode, prefill = figures["decode"], figures["prefill"]
                        rows.append({"model": name, "layers": model["layers"], "context": context,
                                     "checkpoint": checkpoint, "cache": cache,
                                     "decode_tokens_per_second": decode["tokens"] / decode["seconds"],
                                     "prefill_tokens_per_second": prefill["tokens"] / prefill["seconds"]})
                        print(json.dumps(rows[-1]), file=sys.stderr)
    return rows


def table(rows):
    cell = {(r["model"], r["context"], r["checkpoint"], r["cache"]): r["decode_tokens_per_second"] for r in rows}
    lines = ["| model | context | cache | original | converted | ratio |", "|---|---|---|---|---|---|"]
    for row in rows:
        if row["checkpoint"] != "original":
            continue
        key = (row["model"], row["context"])
        original, converted = (cell[(*key, name, row["cache"])] for name in ("original", "converted"))
        layers = f"{row['model']}, {row['layers']} layers"
        lines.append(f"| {layers} | {row['context'] // 1024}K | {row['cache']} | {original:.1f} | {converted:.1f} | "
                     f"{converted / original:.2f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/bench/bin/mha2mla", help="an optimised build (default: %(default)s)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--contexts", type=int, nargs="+", default=[1024, 8192])
    parser.add_argument("--formats", nargs="+", default=["bf16", "int4-affine"])
    parser.add_argument("--new-tokens", type=int, default=17)
    parser.add_argument("--threads", type=int, default=measuring.all_threads())
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    measuring.import_or_exit("numpy")
    rows = measure(options)
    print(json.dumps(rows, indent=1) if options.json else table(rows))


if __name__ == "__main__":
    main()

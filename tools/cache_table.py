#!/usr/bin/env python3
"""What KV-cache formats save and cost on a checkpoint and its conversion: the shape of table 2 of the MHA2MLA paper
(original and converted x 16-bit, int4, int2 x affine, hqq; reduction of the cache and NLL).

  tools/cache_table.py examples/kjv-1.8M out/kjv-1.8M-mla --text examples/kjv-eval.txt --context 512 --max-windows 12

Prints a Markdown table, or with --json the figures. "nominal" counts the format's bits, as the paper does; "stored" also
steps and offsets, as they are allocated for a token outside the window of the newest tokens.
"""
import argparse
import json
import subprocess
import sys

FORMATS = ("bf16", "int4-affine", "int4-hqq", "int2-affine", "int2-hqq")


def run(program, *arguments):
    result = subprocess.run([program, *map(str, arguments), "--json"], capture_output=True, text=True)
    if result.returncode != 0:
        sys.stderr.write(result.stderr)
        sys.exit(result.returncode)
    return json.loads(result.stdout)


def measure(options, text):
    rows = []
    for name, model in (("original", options.original), ("converted", options.converted)):
        for cache in options.formats:
            evaluation = run(options.program, "eval", model, *text, "--kv-cache", cache, "--kv-group", options.kv_group,
                             "--kv-window", options.kv_window)
            size = run(options.program, "generate", model, "--prompt", "", "--max-new-tokens", 0, "--kv-cache", cache,
                       "--kv-group", options.kv_group, "--kv-window", options.kv_window)["kv_cache"]
            rows.append({"checkpoint": name, "cache": cache, "nll": evaluation["nll"],
                         "perplexity": evaluation["perplexity"], "nominal_bytes": size["nominal_bytes_per_token"],
                         "stored_bytes": size["bytes_per_token"]})
    whole = run(options.program, "plan", options.original)["kv_cache"]["original_bytes_per_token"]
    for row in rows:
        row["nominal_reduction"] = 1 - row["nominal_bytes"] / whole
        row["stored_reduction"] = 1 - row["stored_bytes"] / whole
    return rows


def table(rows):
    lines = ["| checkpoint | cache | bytes per token | nominal | stored | NLL | against its 16 bit |",
             "|---|---|---|---|---|---|---|"]
    base = {}
    for row in rows:
        base.setdefault(row["checkpoint"], row["nll"])
        lines.append(f"| {row['checkpoint']} | {row['cache']} | {row['stored_bytes']:g} | "
                     f"-{100 * row['nominal_reduction']:.2f} % | -{100 * row['stored_reduction']:.2f} % | "
                     f"{row['nll']:.4f} | {row['nll'] - base[row['checkpoint']]:+.4f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("original")
    parser.add_argument("converted")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--text")
    source.add_argument("--tokens")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--max-windows", type=int)
    parser.add_argument("--formats", nargs="+", default=FORMATS, metavar="FORMAT",
                        help="the first is what the others are compared with (default: %(default)s)")
    parser.add_argument("--kv-group", type=int, default=64)
    parser.add_argument("--kv-window", type=int, default=128)
    parser.add_argument("--program", default="build/release/bin/mha2mla")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    text = ["--text", options.text] if options.text else ["--tokens", options.tokens]
    text += ["--context", options.context]
    if options.max_windows:
        text += ["--max-windows", options.max_windows]
    rows = measure(options, text)
    print(json.dumps(rows, indent=1) if options.json else table(rows))


if __name__ == "__main__":
    main()

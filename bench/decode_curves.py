#!/usr/bin/env python3
"""Measures the attention of one decoding step by context length and KV-cache format: for the original, the converted model, and
PyTorch's scaled dot-product attention with the shapes of the original, alternately in one run. Prints a table and writes NAME.json
and NAME.svg, which also shows the time for reading the cache from memory.

  /usr/bin/python3 bench/decode_curves.py --shape llama3-8b --threads 1 --name docs/figures/decode-llama3-8b
"""
import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import measuring

# query heads, KV heads, head_dim
SHAPES = {"llama3-8b": (32, 8, 128), "llama2-7b": (32, 32, 128), "smollm-135m": (9, 3, 64)}
FORMATS = ("f32", "bf16", "int8-affine", "int4-affine")
COLOURS = {"original": "#d55e00", "converted": "#0072b2", "PyTorch": "#777777"}
DASHES = {"f32": "9 3", "bf16": "", "int8-affine": "6 2 2 2", "int4-affine": "2 2"}
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 760, 470, 70, 52, 34, 190


def ours(program, options, context):
    """The rows of bench/decode.cpp for one context, and the memory bandwidth in bytes per second."""
    output = json.loads(subprocess.run(
        [program, "--threads", str(options.threads), "--repeats", str(options.repeats), "--shape", options.shape,
         "--context", str(context), "--format", *FORMATS], check=True, capture_output=True, text=True).stdout)
    return output["results"], output["read_bytes_per_second"]


def pytorch(torch, options, context):
    """PyTorch's attention with the queries of a KV head's group in one batch entry, so that keys and values are not repeated."""
    functional = torch.nn.functional
    name = next((n for n in ("scaled_dot_product_attention", "_scaled_dot_product_attention")
                 if hasattr(functional, n)), None)
    if name is None:
        return []
    attend = getattr(functional, name)
    heads, kv_heads, head_dim = SHAPES[options.shape]
    rows = []
    for format_name, dtype, size in (("f32", torch.float32, 4), ("bf16", torch.bfloat16, 2)):
        bytes_of_layer = 2 * context * kv_heads * head_dim * size
        layers = max(1, min(32, (192 << 20) // bytes_of_layer))
        q = torch.randn(1, kv_heads, heads // kv_heads, head_dim).to(dtype)
        caches = [tuple(torch.randn(1, kv_heads, context, head_dim).to(dtype) for _ in range(2))
                  for _ in range(layers)]
        best = math.inf
        for _ in range(options.repeats):
            start = time.perf_counter()
            for k, v in caches:
                attend(q, k, v)
            best = min(best, (time.perf_counter() - start) / layers)
        rows.append({"shape": options.shape, "checkpoint": "PyTorch", "format": format_name, "context": context,
                     "seconds": best, "bytes": bytes_of_layer, "function": name})
    return rows


def measure(options, torch, program):
    """The minimum time of each case over `rounds`; the rounds of a case are spread over the whole run."""
    best, rates = {}, []
    for _ in range(options.rounds):
        for context in options.contexts:
            rows, rate = ours(program, options, context)
            rates.append(rate)
            for row in rows + pytorch(torch, options, context):
                key = (row["checkpoint"], row["format"], row["context"])
                if key not in best or row["seconds"] < best[key]["seconds"]:
                    best[key] = row
    return {"shape": options.shape, "threads": options.threads, "machine": measuring.machine(),
            "torch": torch.__version__, "read_bytes_per_second": max(rates), "results": list(best.values())}


def table(data):
    cell = {(r["checkpoint"], r["format"], r["context"]): r for r in data["results"]}
    contexts = sorted({r["context"] for r in data["results"]})
    lines = ["| cache | " + " | ".join(f"{c // 1024}K" for c in contexts) + " |", "|---" * (len(contexts) + 1) + "|"]
    rows = list(dict.fromkeys((r["checkpoint"], r["format"]) for r in data["results"]))
    for checkpoint, name in sorted(rows, key=lambda row: (list(COLOURS).index(row[0]), FORMATS.index(row[1]))):
        times = " | ".join(f"{1e3 * cell[checkpoint, name, c]['seconds']:.3g}" for c in contexts)
        lines.append(f"| {checkpoint}, {name} | {times} |")
    for name in FORMATS:
        ratios = " | ".join(
            f"{cell['original', name, c]['seconds'] / cell['converted', name, c]['seconds']:.2f}" for c in contexts)
        lines.append(f"| original / converted, {name} | {ratios} |")
    return "\n".join(lines) + "\n"


def draw(data):
    """Draws time against context on logarithmic axes; thin lines are the bytes of a cache divided by the memory bandwidth."""
    results = data["results"]
    contexts = sorted({r["context"] for r in results})
    rate = data["read_bytes_per_second"]
    limits = [r for r in results if r["format"] == "bf16" and r["checkpoint"] != "PyTorch"]
    values = [1e3 * r["seconds"] for r in results] + [1e3 * r["bytes"] / rate for r in limits]
    grid = [step * 10.0**power for power in range(-6, 6) for step in (1, 2, 5)]
    low, high = max(g for g in grid if g <= min(values)), min(g for g in grid if g >= max(values))

    def x(context):
        return LEFT + math.log(context / contexts[0]) / math.log(contexts[-1] / contexts[0]) * (WIDTH - LEFT - RIGHT)

    def y(milliseconds):
        share = math.log(milliseconds / low) / math.log(high / low)
        return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)

    def line(points, style):
        return '<polyline points="' + " ".join(f"{x(c):.1f},{y(v):.1f}" for c, v in points) + f'" fill="none" {style}/>'

    title = f"{data['shape']}, {data['threads']} thread{'s' if data['threads'] > 1 else ''}: one layer's attention"
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
             f'font-size="12" role="img"><title>{title}</title>',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
             f'<text x="{LEFT}" y="20" font-size="14" font-weight="bold">{title}</text>',
             f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">tokens in the cache</text>',
             f'<text transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
             "milliseconds per step</text>"]
    for context in contexts:
        parts.append(f'<path d="M{x(context):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/><text x="{x(context):.1f}" '
                     f'y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{context // 1024}K</text>')
    for value in (g for g in grid if low <= g <= high):
        parts.append(f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/><text x="{LEFT - 7}" '
                     f'y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    key = TOP + 10
    rows = list(dict.fromkeys((r["checkpoint"], r["format"]) for r in results))
    entries = [(checkpoint, name, f'stroke="{COLOURS[checkpoint]}" stroke-width="2" stroke-dasharray="{DASHES[name]}"',
                f"{checkpoint}, {name}",
                [(r["context"], 1e3 * r["seconds"]) for r in results if (r["checkpoint"], r["format"]) == (checkpoint, name)])
               for checkpoint, name in sorted(rows, key=lambda r: (list(COLOURS).index(r[0]), FORMATS.index(r[1])))]
    for checkpoint in ("original", "converted"):
        entries.append((checkpoint, "bf16", f'stroke="{COLOURS[checkpoint]}" stroke-width="1" stroke-opacity="0.6"',
                        f"limit, {checkpoint}, bf16",
                        [(r["context"], 1e3 * r["bytes"] / rate) for r in limits if r["checkpoint"] == checkpoint]))
    for _, _, style, label, points in entries:
        parts.append(line(sorted(points), style))
        parts.append(f'<path d="M{WIDTH - RIGHT + 8} {key}h26" {style}/><text x="{WIDTH - RIGHT + 40}" '
                     f'y="{key + 4}">{label}</text>')
        key += 20
    parts.append(f'<text x="{WIDTH - RIGHT + 8}" y="{key + 8}" font-size="11" fill="#555">limit: bytes of the cache at'
                 f'</text><text x="{WIDTH - RIGHT + 8}" y="{key + 22}" font-size="11" fill="#555">{rate / 1e9:.0f} GB/s, '
                 "measured by reading</text>")
    return "\n".join(parts) + "\n</svg>\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llama3-8b")
    parser.add_argument("--name", required=True, help="NAME.json and NAME.svg are written")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--contexts", type=int, nargs="+", default=[1024 * 2**i for i in range(6)])
    parser.add_argument("--rounds", type=int, default=2, help="passes over all contexts (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="repetitions of a case in a pass (default: %(default)s)")
    parser.add_argument("--draw-only", action="store_true", help="draw NAME.svg from an existing NAME.json")
    measuring.add_build_option(parser)
    options = parser.parse_args()
    if options.draw_only:
        data = json.loads(Path(options.name + ".json").read_text())
    else:
        measuring.limit_threads(options.threads)
        torch = measuring.import_torch(options.threads)
        data = measure(options, torch, measuring.built(options.build, "bench/decode_attention"))
        Path(options.name + ".json").write_text(json.dumps(data, indent=1) + "\n")
    Path(options.name + ".svg").write_text(draw(data))
    sys.stdout.write(table(data))


if __name__ == "__main__":
    main()

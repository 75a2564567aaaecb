#!/usr/bin/env python3
"""A decoding step's attention: this program's original and latent caches, and PyTorch's attention, in one run.

Prints a table and writes a plot (SVG) with the time that reading the cache once takes at the memory's own speed.

    bench/decode.py build/rel/bench/decode_attention --shape llama3-8b --plot docs/decode.svg
"""
import argparse
import json
import subprocess
import time

import numpy as np
import torch

SHAPES = {"llama3-8b": (32, 8, 128), "llama2-7b": (32, 32, 128), "smollm-135m": (9, 3, 64)}


# PyTorch before 2.0 has the function under a private name.
ATTENTION = getattr(torch.nn.functional, "scaled_dot_product_attention",
                    getattr(torch.nn.functional, "_scaled_dot_product_attention", None))


def least(call, repeats):
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def bandwidth(threads):
    """Bytes per second of summing an array that no cache holds."""
    torch.set_num_threads(threads)
    numbers = torch.ones(64 << 20, dtype=torch.float32)
    return numbers.nbytes / least(numbers.sum, 10)


def torch_attention(shape, context, dtype, repeats):
    heads, kv_heads, dim = SHAPES[shape]
    layers = max(1, min(8, (192 << 20) // (2 * kv_heads * context * dim * dtype.itemsize)))
    q = torch.randn(1, heads, 1, dim, dtype=dtype)
    caches = [torch.randn(2, 1, kv_heads, context, dim, dtype=dtype) for _ in range(layers)]

    def step():
        for k, v in caches:
            # The query heads of a group as rows of one query, so that keys and values are not repeated in memory.
            ATTENTION(q.view(1, kv_heads, heads // kv_heads, dim), k, v)

    with torch.inference_mode():
        return least(step, repeats) / layers


def plot(results, shape, speed, file):
    """Context against milliseconds, both logarithmic."""
    rows = [row for row in results if row["shape"] == shape]
    series = {}
    for row in rows:
        series.setdefault((row["checkpoint"], row["format"]), []).append((row["context"], row["seconds"] * 1e3))
    for checkpoint in ("original", "converted"):
        series[(checkpoint, "bf16 at memory speed")] = [
            (row["context"], row["bytes"] / speed * 1e3)
            for row in rows if row["checkpoint"] == checkpoint and row["format"] == "bf16"]
    points = [point for line in series.values() for point in line]
    low = np.log10([min(p[i] for p in points) for i in (0, 1)])
    high = np.log10([max(p[i] for p in points) for i in (0, 1)])

    def place(point):
        part = (np.log10(point) - low) / np.maximum(high - low, 1e-9)
        return f"{60 + 440 * part[0]:.1f},{330 - 300 * part[1]:.1f}"

    colours = ["#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#d68910", "#566573", "#17a589", "#a04000", "#000", "#888"]
    lines = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 380" font-family="sans-serif" font-size="11">',
             f'<title>Attention of one decoding step and layer, {shape}</title><rect width="760" height="380" fill="#fff"/>']
    for context in sorted({p[0] for p in points}):
        x = place((context, 10 ** low[1])).split(",")[0]
        lines.append(f'<text x="{x}" y="348" text-anchor="middle">{context}</text>')
    for power in range(int(np.floor(low[1])), int(np.ceil(high[1])) + 1):
        y = float(place((10 ** low[0], 10.0 ** power)).split(",")[1])
        if 20 <= y <= 335:
            lines.append(f'<text x="52" y="{y:.1f}" text-anchor="end">{10.0 ** power:g}</text>'
                         f'<path d="M60 {y:.1f}H500" stroke="#ddd"/>')
    lines.append('<text x="280" y="370" text-anchor="middle">context, tokens</text><text x="8" y="16">ms</text>')
    for i, (name, line) in enumerate(series.items()):
        dash = ' stroke-dasharray="4 3"' if "memory" in name[1] else ""
        colour = colours[i % len(colours)]
        lines.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.6"{dash} '
                     f'points="{" ".join(place(p) for p in line)}"/>'
                     f'<text x="510" y="{40 + 18 * i}" fill="{colour}">{name[0]}, {name[1]}</text>')
    with open(file, "w", encoding="utf-8") as out:
        out.write("\n".join(lines) + "\n</svg>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--shape", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--context", nargs="+", type=int, default=[1024, 2048, 4096, 8192, 16384, 32768])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--plot", help="SVG of the first shape")
    args = parser.parse_args()
    command = [args.program, "--threads", str(args.threads), "--repeats", str(args.repeats), "--shape", *args.shape,
               "--context", *map(str, args.context)]
    results = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    speed = bandwidth(args.threads)
    for shape in args.shape:
        for context in args.context:
            for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
                heads, kv_heads, dim = SHAPES[shape]
                results.append({"shape": shape, "checkpoint": "PyTorch", "format": name, "context": context,
                                "seconds": torch_attention(shape, context, dtype, args.repeats),
                                "bytes": 2 * kv_heads * dim * context * dtype.itemsize})
    print(f"{args.threads} threads; memory is read at {speed / 1e9:.1f} GB/s\n")
    print("| shape | context | cache | bytes | ms | ms at memory speed |\n|---|---|---|---|---|---|")
    for row in results:
        print(f"| {row['shape']} | {row['context']} | {row['checkpoint']} {row['format']} | {row['bytes']:,} | "
              f"{row['seconds'] * 1e3:.3f} | {row['bytes'] / speed * 1e3:.3f} |")
    if args.plot:
        plot(results, args.shape[0], speed, args.plot)


if __name__ == "__main__":
    main()

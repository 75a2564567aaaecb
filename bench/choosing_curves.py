#!/usr/bin/env python3
"""Measures the NLL of conversions of a checkpoint with several --rope-dim and --kv-rank, and plots it against the cache size.

Runs `mha2mla calibrate` once, then `convert` and `eval` for every rope-dim and kv-rank. Writes the figures to NAME.json and a curve
over kv-rank for each rope-dim to NAME.svg. Needs only Python's standard library.

  python3 bench/choosing_curves.py examples/kjv-1.8M --calibration-text examples/kjv-calibration.txt \\
      --text examples/kjv-eval.txt --name docs/choosing-kjv-1.8M
"""
import argparse
import json
import math
import pathlib
import tempfile

from measuring import COLOURS, run_json

DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 2", "1 2"]
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 420, 64, 52, 34, 130


def sweep(arguments):
    """One row per conversion: rope_dim, kv_rank, cache (share of the original's), nll."""
    program, model = arguments.program, arguments.model
    text = ["--text", arguments.text, "--context", arguments.context, "--max-windows", arguments.windows]
    head_dim = run_json(program, "inspect", model)["head_dim"]
    rope_dims = arguments.rope_dims or [d for d in (2, head_dim // 8, head_dim // 4, head_dim // 2) if d >= 2]
    ranks = arguments.kv_ranks or [head_dim * i // 8 for i in (1, 2, 3, 4, 5, 6, 8)]
    original = run_json(program, "eval", model, *text)["nll"]
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        stats = f"{directory}/stats.safetensors"
        run_json(program, "calibrate", model, "--text", arguments.calibration_text, "--samples", arguments.samples,
                 "--seq-len", arguments.context, "--output", stats)
        for rope_dim in sorted(set(rope_dims)):
            for rank in sorted(set(ranks)):
                out = f"{directory}/mla"
                report = run_json(program, "convert", model, out, "--method", "mha2mla", "--stats", stats,
                                  "--rope-dim", rope_dim, "--kv-rank", rank, "--overwrite")
                nll = run_json(program, "eval", out, *text)["nll"]
                rows.append({"rope_dim": rope_dim, "kv_rank": rank, "nll": nll,
                             "cache": 1 - report["kv_cache"]["reduction"]})
    return {"model": pathlib.Path(model).name, "head_dim": head_dim, "nll_original": original,
            "windows": arguments.windows, "context": arguments.context, "samples": arguments.samples, "rows": rows}


def steps(low, high):
    """Round values for an axis."""
    size = 10 ** math.floor(math.log10(max(high - low, 1e-9)))
    size = next(s for s in (size / 5, size / 2, size) if (high - low) / s <= 9)
    return [size * i for i in range(math.ceil(low / size), math.floor(high / size) + 1)]


def draw(data):
    rows = data["rows"]
    low_x, high_x = 0.0, max(1.0, max(row["cache"] for row in rows))
    low_y, high_y = data["nll_original"], max(row["nll"] for row in rows)
    low_y -= 0.03 * (high_y - low_y)

    def x(value):
        return LEFT + (value - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT)

    def y(value):
        return HEIGHT - BOTTOM - (value - low_y) / (high_y - low_y) * (HEIGHT - BOTTOM - TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12" role="img"><title>{data["model"]}: NLL against KV cache</title>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-size="14" font-weight="bold">{data["model"]}, head_dim {data["head_dim"]}: '
        "2-norm selection, joint SVD, before fine-tuning</text>",
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">KV cache, share of the '
        "original’s</text>",
        f'<text transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">NLL, nats per '
        "token</text>"]
    for value in steps(low_x, high_x):
        parts.append(f'<path d="M{x(value):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/><text x="{x(value):.1f}" '
                     f'y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{100 * value:.0f}%</text>')
    for value in steps(low_y, high_y):
        parts.append(f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/><text x="{LEFT - 7}" '
                     f'y="{y(value) + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    original = y(data["nll_original"])
    parts.append(f'<path d="M{LEFT} {original:.1f}H{WIDTH - RIGHT}" stroke="#000" stroke-dasharray="1 3"/>'
                 f'<text x="{WIDTH - RIGHT + 8}" y="{original + 4:.1f}">original</text>')
    for i, rope_dim in enumerate(sorted({row["rope_dim"] for row in rows})):
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
        curve = sorted((row["cache"], row["nll"], row["kv_rank"]) for row in rows if row["rope_dim"] == rope_dim)
        points = " ".join(f"{x(cache):.1f},{y(nll):.1f}" for cache, nll, _ in curve)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2" '
                     f'stroke-dasharray="{dash}"/>')
        for cache, nll, rank in curve:
            parts.append(f'<circle cx="{x(cache):.1f}" cy="{y(nll):.1f}" r="3.5" fill="{colour}"><title>rope-dim '
                         f"{rope_dim}, kv-rank {rank}: NLL {nll:.4f}</title></circle>")
        key = TOP + 20 + 20 * i
        parts.append(f'<path d="M{WIDTH - RIGHT + 8} {key}h26" stroke="{colour}" stroke-width="2" '
                     f'stroke-dasharray="{dash}"/><text x="{WIDTH - RIGHT + 40}" y="{key + 4}">rope-dim '
                     f"{rope_dim}</text>")
    return "\n".join(parts) + "\n</svg>\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--calibration-text", required=True)
    parser.add_argument("--text", required=True, help="text to evaluate on")
    parser.add_argument("--name", required=True, help="NAME.json and NAME.svg are written")
    parser.add_argument("--program", default="build/release/bin/mha2mla")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--windows", type=int, default=24)
    parser.add_argument("--rope-dims", type=int, nargs="*")
    parser.add_argument("--kv-ranks", type=int, nargs="*")
    arguments = parser.parse_args()
    data = sweep(arguments)
    pathlib.Path(arguments.name + ".json").write_text(json.dumps(data, indent=1) + "\n")
    pathlib.Path(arguments.name + ".svg").write_text(draw(data))


if __name__ == "__main__":
    main()

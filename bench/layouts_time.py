#!/usr/bin/env python3
"""Processor and wall time of `convert` in layout deepseek relative to layout mha2mla, same text, budget and threads, alternately:

  python3 bench/layouts_time.py MODEL --text TEXT --kv-reduction 0.6875 --options="--seq-len 256 --samples 480"
"""
import argparse
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measuring

LAYOUTS = ("deepseek", "mha2mla")


def seconds(command, threads):
    """Of the processor and of the clock."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{result.stderr}")
    return after.ru_utime - before.ru_utime, wall


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--kv-reduction", type=float, nargs="+", default=[0.6875, 0.8125])
    parser.add_argument("--threads", type=int, default=measuring.all_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--options", default="", metavar="TEXT", help="more options of convert, for both layouts")
    measuring.add_build_option(parser)
    options = parser.parse_args()
    program = measuring.built(options.build, "bin/mha2mla")
    print("| KV | deepseek, processor | mha2mla, processor | ratio | ratio of the clock's |\n|---|---|---|---|---|")
    for reduction in options.kv_reduction:
        times = {layout: [] for layout in LAYOUTS}
        for _ in range(options.rounds):
            for layout in LAYOUTS:
                with tempfile.TemporaryDirectory() as place:
                    times[layout].append(seconds(
                        [program, "convert", options.model, Path(place) / "out", "--layout", layout, "--kv-reduction", reduction,
                         "--calibration-text", options.text, "-q", *shlex.split(options.options)], options.threads))
        ratios = [[ours / theirs for ours, theirs in zip(*pair)] for pair in zip(*(times[layout] for layout in LAYOUTS))]
        processor = [measuring.spread([used for used, _ in times[layout]])["median"] for layout in LAYOUTS]
        print(f"| −{100 * reduction:g}% | {processor[0]:.1f} s | {processor[1]:.1f} s | "
              f"{measuring.spread_text([used for used, _ in ratios])} | {measuring.spread_text([wall for _, wall in ratios])} |",
              flush=True)


if __name__ == "__main__":
    main()

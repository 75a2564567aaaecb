#!/usr/bin/env python3
"""Cost of a conversion: seconds and bytes per second of `mha2mla convert` and `mha2mla calibrate` compared with a plain
copy of the checkpoint and with writing the same number of bytes, and the largest private memory of each. The checkpoint
is synthetic unless --checkpoint is given. All programs run alternately in one run, on files that are in the page cache."""
import argparse
import json
import mmap
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measuring
import synthetic_checkpoint

SAMPLE_SECONDS = 0.002
WRITE_BYTES = 16 << 20
STEPS = ("copy", "write", "convert", "calibrate")


def private_bytes(pid):
    """The anonymous memory of a process, without mapped files; None if the process has ended."""
    try:
        with open(f"/proc/{pid}/status") as status:
            return int(re.search(r"^RssAnon:\s+(\d+) kB$", status.read(), re.MULTILINE)[1]) * 1024
    except (OSError, TypeError):  # TypeError: a zombie has no such line
        return None


def run_measured(command):
    """The seconds of a child process, and its largest private memory in bytes, sampled every 2 ms."""
    with tempfile.TemporaryFile() as log:
        start = time.perf_counter()
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log)
        peak = 0
        while True:
            peak = max(peak, private_bytes(process.pid) or 0)
            try:
                status = process.wait(timeout=SAMPLE_SECONDS)
                break
            except subprocess.TimeoutExpired:
                pass
        seconds = time.perf_counter() - start
        if status != 0:
            log.seek(0)
            sys.exit(f"error: {' '.join(map(str, command))} failed:\n{log.read().decode(errors='replace')}")
    return {"seconds": seconds, "peak_private_bytes": peak}


def bytes_of(directory):
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def flush(directory):
    for path in directory.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def read_once(directory):
    for path in directory.rglob("*"):
        if path.is_file():
            with open(path, "rb", buffering=0) as file:
                while file.read(1 << 24):
                    pass


def write_random_tokens(path, config, count):
    import numpy as np
    kind = np.uint16 if config["vocab_size"] <= 1 << 16 else np.uint32
    ids = np.random.default_rng(1).integers(0, config["vocab_size"], count, dtype=kind)
    path = path.with_suffix(".u16" if kind is np.uint16 else ".u32")
    ids.tofile(path)
    return path


class Bench:
    """One checkpoint and the steps that are measured on it."""

    def __init__(self, options, checkpoint, work):
        self.options, self.checkpoint, self.work = options, checkpoint, work
        self.program = options.build / "bin/mha2mla"
        self.config = json.loads((checkpoint / "config.json").read_text())
        self.source_bytes = bytes_of(checkpoint)
        self.tokens = write_random_tokens(work / "tokens", self.config, options.samples * options.seq_len)

    def fresh(self, name):
        """A path that does not exist. Removes the old output and flushes pending writes; this is not timed."""
        path = self.work / name
        shutil.rmtree(path, ignore_errors=True)
        os.sync()
        return path

    def copy(self):
        target = self.fresh("copy")
        start = time.perf_counter()
        subprocess.run(["cp", "-r", "--reflink=never", self.checkpoint, target], check=True)
        flush(target)
        return {"seconds": time.perf_counter() - start, "bytes": 2 * self.source_bytes}

    def write(self):
        """Writes as many bytes as the checkpoint has, without the page cache: a lower bound for any conversion on this disk."""
        target = self.fresh("written")
        target.mkdir()
        block = mmap.mmap(-1, WRITE_BYTES)
        block.write(os.urandom(WRITE_BYTES))
        start = time.perf_counter()
        descriptor = os.open(target / "bytes", os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
        for _ in range(-(-self.source_bytes // WRITE_BYTES)):
            os.write(descriptor, block)
        os.fsync(descriptor)
        os.close(descriptor)
        return {"seconds": time.perf_counter() - start, "bytes": self.source_bytes}

    def convert(self):
        target = self.fresh("converted")
        result = run_measured([self.program, "convert", self.checkpoint, target, "--rope", "uniform", "--threads",
                               self.options.threads, *self.options.convert_options])
        return {**result, "bytes": self.source_bytes + bytes_of(target)}

    def calibrate(self):
        return run_measured([self.program, "calibrate", self.checkpoint, "--tokens", self.tokens, "--samples",
                             self.options.samples, "--seq-len", self.options.seq_len, "--threads",
                             self.options.threads, "--output", self.work / "statistics.safetensors"])

    def torch_loop(self):
        return {"seconds": time_torch_loop(self.checkpoint, self.config)}

    def clean(self):
        for name in ("copy", "written", "converted"):
            shutil.rmtree(self.work / name, ignore_errors=True)


def open_tensors(checkpoint):
    """name -> (dtype, shape, memory map of its bytes)"""
    import numpy as np
    tensors = {}
    for path in sorted(checkpoint.glob("*.safetensors")):
        raw = np.memmap(path, np.uint8, "r")
        start = 8 + int(raw[:8].view(np.uint64)[0])
        for name, entry in json.loads(raw[8:start].tobytes()).items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                tensors[name] = entry["dtype"], entry["shape"], raw[start + begin:start + end]
    return tensors


def as_float32(tensor):
    import numpy as np
    dtype, shape, raw = tensor
    if dtype == "BF16":
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return raw.view({"F16": np.float16, "F32": np.float32, "F64": np.float64}[dtype]).astype(np.float32).reshape(shape)


def nope_rows(config):
    """The key rows of all KV heads that lose RoPE with `--rope uniform` and the default --rope-dim."""
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    pairs, kept_pairs = head_dim // 2, max(head_dim // 16, 1)
    kept = {k * pairs // kept_pairs for k in range(kept_pairs)}
    rows = [row for row in range(head_dim) if row % pairs not in kept]
    return [head * head_dim + row for head in range(config["num_key_value_heads"]) for row in rows]


def time_torch_loop(checkpoint, config):
    """The seconds of torch.linalg.svd in float32 on the joint matrix of every layer, without writing anything."""
    import numpy as np
    import torch
    tensors, rows = open_tensors(checkpoint), nope_rows(config)
    start = time.perf_counter()
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}.self_attn."
        keys, values = (as_float32(tensors[prefix + name]) for name in ("k_proj.weight", "v_proj.weight"))
        torch.linalg.svd(torch.from_numpy(np.concatenate([keys[rows], values])), full_matrices=False)
    return time.perf_counter() - start


def measure(bench, steps):
    """The results of each step and round; every second round runs in reverse order."""
    read_once(bench.checkpoint)
    results = {step: [] for step in steps}
    for index in range(bench.options.repeat):
        for step in steps if index % 2 == 0 else reversed(steps):
            results[step].append(getattr(bench, step)())
    bench.clean()
    return results


def column(results, key):
    return [result[key] for result in results]


def ratios(results, numerator, denominator):
    return [a["seconds"] / b["seconds"] for a, b in zip(results[numerator], results[denominator])]


def print_results(bench, results):
    config = bench.config
    print(f"\n{config['num_hidden_layers']} layers, hidden {config['hidden_size']}: "
          f"{bench.source_bytes / 1e9:.3f} GB in the checkpoint")
    for step, rounds in results.items():
        line = f"  {step:10} {measuring.spread_text(column(rounds, 'seconds')):>24} s"
        if "bytes" in rounds[0]:
            rates = [result["bytes"] / result["seconds"] / 1e9 for result in rounds]
            line += f"   {measuring.spread_text(rates)} GB/s read and written"
        if "peak_private_bytes" in rounds[0]:
            line += f"   {peak(results, step) / 1e6:.1f} MB private"
        print(line)
    for first, second in (("convert", "copy"), ("convert", "write"), ("torch_loop", "convert"), ("torch_loop", "write")):
        if first in results and second in results:
            print(f"  {first} / {second}: {measuring.spread_text(ratios(results, first, second))} x in seconds")
    sys.stdout.flush()


def peak(results, step):
    return max(column(results[step], "peak_private_bytes"))


def print_depths(everything, steps):
    """Prints the peak memory of each depth relative to the first."""
    print()
    for step in steps:
        peaks = [(entry["config"]["num_hidden_layers"], peak(entry["results"], step)) for entry in everything]
        text = ", ".join(f"{layers} layers {bytes / 1e6:.1f} MB" for layers, bytes in peaks)
        print(f"private memory of {step}: {text} ({peaks[-1][1] / peaks[0][1]:.2f}x)")


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__)
    measuring.add_build_option(parser)
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="measure this checkpoint, not a synthetic one")
    synthetic_checkpoint.add_model_options(parser)
    parser.add_argument("--compare-layers", type=lambda text: [int(n) for n in text.split(",")], metavar="N,N",
                        help="measure synthetic checkpoints of these depths one after another, such as 8,80")
    parser.add_argument("--steps", nargs="+", choices=STEPS, metavar="STEP", default=[*STEPS],
                        help=f"steps to run, from {', '.join(STEPS)} (default: all)")
    parser.add_argument("--against-pytorch", action="store_true",
                        help="also time a loop of torch.linalg.svd over the joint matrices of the layers")
    parser.add_argument("--convert-options", type=str.split, default=[], metavar="'OPTIONS'",
                        help="further options of mha2mla convert, as one argument: --convert-options='--max-memory 2G'")
    parser.add_argument("--samples", type=int, default=4, metavar="N",
                        help="sequences of random tokens to calibrate on (default: %(default)s)")
    parser.add_argument("--seq-len", type=int, default=512, metavar="N", help="tokens per sequence (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="number of rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=measuring.all_threads(), metavar="N",
                        help="number of threads of all programs (default: all, %(default)s)")
    parser.add_argument("--work", type=Path, metavar="DIR",
                        help="existing directory for the checkpoints; default: the system's temporary directory")
    parser.add_argument("--json", action="store_true", help="print every figure as JSON instead of text")
    options = parser.parse_args()
    if options.checkpoint and options.compare_layers:
        parser.error("--compare-layers makes its own checkpoints; leave out --checkpoint")
    if min(options.repeat, options.threads, options.samples, options.seq_len) < 1:
        parser.error("--repeat, --threads, --samples and --seq-len must be at least 1")
    return options


def checkpoints(options, work):
    """The checkpoints to measure, each created before its measurement and removed after it."""
    if options.checkpoint:
        yield options.checkpoint
        return
    model = synthetic_checkpoint.model_of(options)
    for layers in options.compare_layers or [model["layers"]]:
        directory = work / "checkpoint"
        synthetic_checkpoint.make_checkpoint(directory, {**model, "layers": layers}, options.shard_size)
        yield directory
        shutil.rmtree(directory)


def main():
    options = parse_options()
    measuring.built(options.build, "bin/mha2mla")
    measuring.limit_threads(options.threads)
    if options.against_pytorch:
        measuring.import_torch(options.threads)
    steps = options.steps + (["torch_loop"] if options.against_pytorch else [])
    machine = f"{measuring.machine()}; {options.threads} threads"
    if not options.json:
        print(f"{machine}\nmedian (smallest-largest) of {options.repeat} rounds")
    everything = []
    with tempfile.TemporaryDirectory(prefix="mha2mla-bench-", dir=options.work) as work:
        for checkpoint in checkpoints(options, Path(work)):
            bench = Bench(options, checkpoint, Path(work))
            results = measure(bench, steps)
            everything.append({"config": bench.config, "bytes": bench.source_bytes, "results": results})
            if not options.json:
                print_results(bench, results)
    if options.compare_layers and not options.json:
        print_depths(everything, [step for step in ("convert", "calibrate") if step in steps])
    if options.json:
        print(json.dumps({"machine": machine, "checkpoints": everything}, indent=2))


if __name__ == "__main__":
    main()

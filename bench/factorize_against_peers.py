#!/usr/bin/env python3
"""Compares the truncated SVD of one layer's joint matrix by this library with torch.linalg.svd and numpy.linalg.svd in float32, as
the reference implementation calls them (full_matrices=False), alternately in one run and with the same number of threads. Prints
seconds, ratios, and the error of each relative to the smallest possible one."""
import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measuring

# The layer of a model under the paper's defaults: d_r = head_dim / 8, d_kv = head_dim / 2, so the matrix has
# kv_heads * (head_dim - d_r) + kv_heads * head_dim rows, hidden columns, and the latent kv_heads * head_dim / 2.
LAYERS = {
    "smollm-135m": dict(hidden=576, kv_heads=3, head_dim=64),
    "smollm-1.7b": dict(hidden=2048, kv_heads=32, head_dim=64),
    "llama-3-8b": dict(hidden=4096, kv_heads=8, head_dim=128),
    "llama-2-7b": dict(hidden=4096, kv_heads=32, head_dim=128),
}
METHODS = ("standard", "strict")  # of bench/factorize_once.cpp
OUTLIERS = (10.0, 7.0, 5.0)


def shape_of(hidden, kv_heads, head_dim):
    rows = kv_heads * (head_dim - head_dim // 8) + kv_heads * head_dim
    return rows, hidden, kv_heads * head_dim // 2


def spectrum(count):
    import numpy as np
    sigma = (1.0 + np.arange(count)) ** -0.4
    sigma[:len(OUTLIERS)] *= OUTLIERS
    return sigma


def optimal_error(sigma, rank):
    """The smallest possible error of rank `rank` in the Frobenius norm (Eckart-Young)."""
    import numpy as np
    return math.sqrt(np.sum(np.sort(sigma)[:-rank] ** 2))


def random_orthonormal(generator, rows, columns):
    import numpy as np
    return np.linalg.qr(generator.standard_normal((rows, columns)))[0]


def make_matrix(rows, columns, seed):
    """A float32 matrix with the singular values spectrum(), computed in double before the final rounding."""
    import numpy as np
    generator = np.random.default_rng(seed)
    count = min(rows, columns)
    left = random_orthonormal(generator, rows, count)
    left *= spectrum(count)
    return (left @ random_orthonormal(generator, columns, count).T).astype(np.float32)


def error_in_double(matrix, up, down, block=512):
    """‖matrix - up · down‖ in float64, computed in blocks of rows."""
    import numpy as np
    down = down.astype(np.float64)
    total = 0.0
    for first in range(0, len(matrix), block):
        rows = slice(first, first + block)
        rest = matrix[rows].astype(np.float64)
        rest -= up[rows].astype(np.float64) @ down
        total += np.sum(rest * rest)
    return math.sqrt(total)


class Ours:
    """The program bench/factorize_once, which factorises once for each line on its standard input."""

    def __init__(self, options, method, matrix_file, shape, directory):
        self.name, self.shape = f"mha2mla {method}", shape
        self.factors = Path(directory) / method
        program = options.build / "bench/factorize_once"
        self.process = subprocess.Popen(
            [program, matrix_file, *map(str, shape), "--method", method, "--threads", str(options.threads), "--layers",
             str(options.layers), "--repeat", "1000000", "--paced", "--factors", self.factors],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def turn(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"error: {self.name} stopped; its message is above")
        return json.loads(line)["seconds"]

    def finish(self):
        """The factors of the last call."""
        import numpy as np
        self.process.stdin.close()
        if self.process.wait() != 0:
            sys.exit(f"error: {self.name} failed; its message is above")
        rows, columns, rank = self.shape
        up = np.fromfile(f"{self.factors}.up.f32", np.float32).reshape(rows, rank)
        return up, np.fromfile(f"{self.factors}.down.f32", np.float32).reshape(rank, columns)


class Peer:
    """A function matrix -> (U, sigma, Vᵀ) that runs in this process."""

    def __init__(self, name, svd, matrix, rank, layers):
        self.name, self.svd, self.matrix, self.rank, self.layers = name, svd, matrix, rank, layers
        self.result = None

    def turn(self):
        start = time.perf_counter()
        for _ in range(self.layers):
            self.result = self.svd(self.matrix)
        return time.perf_counter() - start

    def finish(self):
        import numpy as np
        u, sigma, vt = (np.asarray(part) for part in self.result)
        self.result = None
        return u[:, :self.rank] * sigma[:self.rank], vt[:self.rank]


def make_peers(options, matrix, rank):
    import numpy as np
    peers = []
    if "torch" in options.peers:
        torch = measuring.import_torch(options.threads)
        peers.append(Peer("torch", lambda a: torch.linalg.svd(a, full_matrices=False), torch.from_numpy(matrix), rank,
                          options.layers))
    if "numpy" in options.peers:
        peers.append(Peer("numpy", lambda a: np.linalg.svd(a, full_matrices=False), matrix, rank, options.layers))
    return peers


def take_turns(runners, rounds):
    """The seconds of each runner and round. A first round is not counted; every second round runs in reverse order."""
    for runner in runners:
        runner.turn()
    seconds = {runner.name: [] for runner in runners}
    for index in range(rounds):
        for runner in runners if index % 2 == 0 else reversed(runners):
            seconds[runner.name].append(runner.turn())
    return seconds


def measure(name, options, directory):
    shape = shape_of(**LAYERS[name])
    rows, columns, rank = shape
    matrix = make_matrix(rows, columns, options.seed)
    matrix_file = Path(directory) / f"{name}.f32"
    matrix.tofile(matrix_file)
    ours = [Ours(options, method, matrix_file, shape, directory) for method in options.methods]
    runners = ours + make_peers(options, matrix, rank)
    seconds = take_turns(runners, options.repeat)
    best = optimal_error(spectrum(min(rows, columns)), rank)
    result = {"layer": name, "rows": rows, "columns": columns, "rank": rank, "seconds": seconds, "excess": {},
              "ratio": {}}
    for runner in runners:
        result["excess"][runner.name] = error_in_double(matrix, *runner.finish()) / best - 1
    for runner in runners[len(ours):]:
        for own in ours:
            result["ratio"][f"{runner.name} / {own.name}"] = [
                peer / mine for peer, mine in zip(seconds[runner.name], seconds[own.name])]
    return result


def print_result(result):
    print(f"\n{result['layer']}: {result['rows']} x {result['columns']}, rank {result['rank']}")
    for name, seconds in result["seconds"].items():
        print(f"  {name:16} {measuring.spread_text(seconds, 4):>28} s   error {result['excess'][name]:+.1e}")
    for name, ratios in result["ratio"].items():
        print(f"  {name:24} {measuring.spread_text(ratios):>20} x")
    sys.stdout.flush()


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__)
    measuring.add_build_option(parser)
    parser.add_argument("--shapes", nargs="+", choices=LAYERS, default=list(LAYERS), metavar="MODEL",
                        help="layers to measure, from " + ", ".join(LAYERS) + " (default: all)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, metavar="METHOD",
                        help="methods of this library, from " + ", ".join(METHODS) + " (default: all)")
    parser.add_argument("--peers", nargs="+", choices=("torch", "numpy"), default=("torch", "numpy"), metavar="PEER",
                        help="torch, numpy (default: both)")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="number of rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=measuring.all_threads(), metavar="N",
                        help="number of threads of all programs (default: all, %(default)s)")
    parser.add_argument("--layers", type=int, default=1, metavar="N",
                        help="factorise N matrices in each turn: we one on each thread, peers one after another with "
                             "all threads (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="random seed of the matrices (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print every figure as JSON instead of text")
    options = parser.parse_args()
    if min(options.repeat, options.threads, options.layers) < 1:
        parser.error("--repeat, --threads and --layers must be at least 1")
    return options


def main():
    options = parse_options()
    measuring.built(options.build, "bench/factorize_once")
    measuring.limit_threads(options.threads)
    machine = f"{measuring.machine()}; {options.threads} threads"
    if not options.json:
        print(f"{machine}\nmedian (smallest-largest) of {options.repeat} rounds of {options.layers} matrices; "
              "error: relative to the smallest possible, in double")
    results = []
    for name in options.shapes:
        with tempfile.TemporaryDirectory(prefix="mha2mla-bench-") as directory:
            results.append(measure(name, options, directory))
        if not options.json:
            print_result(results[-1])
    if options.json:
        print(json.dumps({"machine": machine, "layers": options.layers, "results": results}, indent=2))


if __name__ == "__main__":
    main()

"""Functions that the benchmark scripts share. As a program it prints one line that describes this machine."""
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"]  # Okabe and Ito


def limit_threads(count):
    """Imports numpy, and torch where it is called later, so that they use `count` threads: OpenBLAS and OpenMP read
    these variables once, when they are loaded."""
    if "numpy" in sys.modules or "torch" in sys.modules:
        raise RuntimeError("limit_threads() comes too late: numpy or torch is imported already")
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(count)
    import_or_exit("numpy")


def import_torch(threads):
    torch = import_or_exit("torch")
    torch.set_num_threads(threads)
    return torch


def import_or_exit(module):
    try:
        return importlib.import_module(module)
    except ImportError:
        sys.exit(f"error: {sys.executable} has no {module}; install Debian's python3-{module} and use /usr/bin/python3")


def all_threads():
    return len(os.sched_getaffinity(0))


def spread(values):
    """The median, the minimum and the maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def spread_text(values, digits=2):
    s = spread(values)
    return f"{s['median']:.{digits}f} ({s['min']:.{digits}f}-{s['max']:.{digits}f})"


def add_build_option(parser):
    parser.add_argument("--build", type=Path, default=Path("build/bench"), metavar="DIR",
                        help="build directory of an optimised developer build (default: %(default)s)")


def built(build, program):
    path = build / program
    if not path.is_file():
        sys.exit(f"error: {path} does not exist; build it as docs/benchmarks.md says, or give --build DIR")
    return path


def run(*command):
    """What a command prints. Ends the script if it fails."""
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{result.stderr}")
    return result.stdout


def run_json(program, *arguments):
    """The output of a command of mha2mla with --json."""
    return json.loads(run(program, *arguments, "--json"))


def token_ids(checkpoint, text):
    """The token ids of a text by the tokenizers library, and BOS as a list of one or none, as `eval` puts it in front of a window."""
    from tokenizers import Tokenizer
    config = json.loads((checkpoint / "config.json").read_text())
    bos = [config["bos_token_id"]] if isinstance(config.get("bos_token_id"), int) else []
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    return tokenizer.encode(text, add_special_tokens=False).ids, bos


def field(path, key):
    with open(path) as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return "unknown"


def machine():
    """One line: processor, cores, memory, kernel."""
    memory = int(field("/proc/meminfo", "MemTotal").split()[0]) / 2**20
    return (f"{field('/proc/cpuinfo', 'model name')}, {all_threads()} cores, {memory:.0f} GiB, "
            f"Linux {platform.release()}, Python {platform.python_version()}")


if __name__ == "__main__":
    print(machine())

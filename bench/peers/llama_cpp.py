#!/usr/bin/env python3
"""Prefill and decoding in tokens per second, of this program and of llama.cpp (PyPI: xllamacpp) with the same weights and threads, alternately.
llama.cpp runs the original in each type of GGUF; this program runs the original and, where given, a conversion of it. Also the share
of the memory's bandwidth that reading the weights once a token takes. Needs the environment of tools/test_venv.sh:

  build/venv/bin/python bench/peers/llama_cpp.py ORIGINAL [--converted DIR] [--contexts 1024 16384] [--types bf16 f16 f32]
"""
import argparse
import array
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import measuring

WRITE_GGUF = Path(__file__).parent.parent.parent / "tests/engines/write_gguf.py"
# In a process of its own, so that its threads are gone when this program runs; the first answer is not counted.
RUN = """
import json, sys, time
import xllamacpp
file, prompt, tokens, threads = sys.argv[1], json.load(open(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4])
params = xllamacpp.CommonParams()
params.model.path = file
params.n_ctx = len(prompt) + tokens + 64
params.n_parallel = 1
params.n_batch = params.n_ubatch = 512
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
params.verbosity = 0
server = xllamacpp.Server(params)
def answer(ids, count):
    result = server.handle_completions({"prompt": ids, "n_predict": count, "temperature": 0, "ignore_eos": True, "cache_prompt": False})
    return (json.loads(result) if isinstance(result, str) else result)["timings"]
answer(prompt[:32], 4)
timings = answer(prompt, tokens)
print(json.dumps({"prefill": timings["prompt_per_second"], "decode": timings["predicted_per_second"]}))
"""


def llama_cpp(file, prompt, options):
    result = subprocess.run([sys.executable, "-c", RUN, file, prompt, str(options.new_tokens), str(options.threads)],
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if result.returncode != 0:
        sys.exit(f"llama.cpp failed on {file}")
    return json.loads(result.stdout.splitlines()[-1])


def ours(program, checkpoint, prompt, cache, options):
    figures = measuring.run_json(program, "generate", checkpoint, "--prompt-tokens", prompt, "--max-new-tokens", options.new_tokens,
                                 "--ignore-eos", "--kv-cache", cache, "--threads", options.threads, "-q")
    return {name: figures[name]["tokens"] / figures[name]["seconds"] for name in ("prefill", "decode")}


def bandwidth(threads):
    """Bytes per second at which `threads` threads read memory, the best of several passes over 1 GiB."""
    torch = measuring.import_torch(threads)
    numbers = torch.ones(2**28)
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        numbers.sum()
        times.append(time.perf_counter() - begin)
    return numbers.numel() * 4 / min(times)


def weight_bytes(checkpoint):
    """What a token reads of the weights: all but the embeddings, of which it needs a row, unless they are the head too."""
    config = json.loads((checkpoint / "config.json").read_text())
    total = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
    return total if config.get("tie_word_embeddings") else total - 2 * config["vocab_size"] * config["hidden_size"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("original", type=Path)
    parser.add_argument("--converted", type=Path)
    parser.add_argument("--types", nargs="+", default=["bf16", "f16", "f32"])
    parser.add_argument("--contexts", type=int, nargs="+", default=[1024])
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=measuring.all_threads())
    measuring.add_build_option(parser)
    options = parser.parse_args()
    program = measuring.built(options.build, "bin/mha2mla")
    vocabulary = json.loads((options.original / "config.json").read_text())["vocab_size"]
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        runs = {}
        for kind in options.types:
            file = str(place / f"{kind}.gguf")
            measuring.run(sys.executable, WRITE_GGUF, options.original, file, kind.upper())
            runs[f"llama.cpp, {kind}"] = lambda ids, _, file=file: llama_cpp(file, ids, options)
        runs["this program"] = lambda _, prompt: ours(program, options.original, prompt, "bf16", options)
        if options.converted:
            runs["this program, converted"] = lambda _, prompt: ours(program, options.converted, prompt, "bf16", options)
        print("| context | runs | prefill, tokens/s | decode, tokens/s |\n|---|---|---|---|")
        for context in options.contexts:
            ids = [3 + i * 7919 % (vocabulary - 3) for i in range(context)]
            json_ids, prompt = str(place / "ids.json"), place / "ids.u32"
            Path(json_ids).write_text(json.dumps(ids))
            prompt.write_bytes(array.array("I", ids).tobytes())
            figures = {name: [] for name in runs}
            for _ in range(options.rounds):
                for name, run in runs.items():
                    figures[name].append(run(json_ids, prompt))
            for name, rows in figures.items():
                print(f"| {context} | {name} | {measuring.spread_text([row['prefill'] for row in rows], 0)} | "
                      f"{measuring.spread_text([row['decode'] for row in rows], 1)} |", flush=True)
            best = max((name for name in runs if name.startswith("llama.cpp")),
                       key=lambda name: measuring.spread([row["decode"] for row in figures[name]])["median"])
            for name in (name for name in runs if name.startswith("this program")):
                ratios = {part: [row[part] / peer[part] for row, peer in zip(figures[name], figures[best])]
                          for part in ("prefill", "decode")}
                print(f"{name} / {best} at {context}: prefill {measuring.spread_text(ratios['prefill'])}, "
                      f"decode {measuring.spread_text(ratios['decode'])}", file=sys.stderr)
    own = measuring.spread([row["decode"] for row in figures["this program"]])["median"]
    rate, whole = own * weight_bytes(options.original), bandwidth(options.threads)
    print(f"weights at {rate / 1e9:.1f} GB/s of the {whole / 1e9:.1f} GB/s at which {options.threads} threads read memory "
          f"({100 * rate / whole:.0f} %), at {options.contexts[-1]} tokens", file=sys.stderr)


if __name__ == "__main__":
    main()

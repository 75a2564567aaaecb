#!/usr/bin/env python3
"""Training steps in tokens per second, this program against torch and transformers: the same checkpoint, batch, optimiser and threads, in
float32, one after the other in each round. Prints a Markdown table, or JSON with --json. Needs the environment of tools/test_venv.sh:

  build/venv/bin/python bench/finetune_against_torch.py MODEL --text TEXT --program build/bench/bin/mha2mla --threads 2
"""
import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measuring

PARTS = ("all", "attention")


def ours(options, part):
    """Tokens per second of each step but the first."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "out"
        command = [options.program, "finetune", options.model, out, "--text", options.text, "--seq-len", options.seq_len,
                   "--batch", options.batch, "--micro-batch", options.batch, "--steps", options.steps, "--train", part,
                   "--threads", options.threads, "-q"] + (["--keep-activations"] if options.keep_activations else [])
        result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if result.returncode != 0:
            sys.exit(f"{' '.join(map(str, command))}\n{result.stderr}")
        lines = [json.loads(line) for line in (out / "training.jsonl").read_text().splitlines()]
    return [line["tokens_per_second"] for line in lines if "tokens_per_second" in line][1:]


def torchs(options, part):
    torch = measuring.import_torch(options.threads)
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    model.train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = part == "all" or ("self_attn" in name and "norm" not in name)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), weight_decay=0)
    need = options.seq_len * options.batch * options.steps
    ids = Tokenizer.from_file(str(options.model / "tokenizer.json")).encode(options.text.read_text()[:8 * need]).ids
    speeds = []
    for step in range(options.steps):
        count = options.seq_len * options.batch
        batch = torch.tensor(ids[step * count:(step + 1) * count]).view(options.batch, options.seq_len)
        begin = time.perf_counter()
        model(batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        speeds.append(batch.numel() / (time.perf_counter() - begin))
    return speeds[1:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--program", default="build/bench/bin/mha2mla", help="an optimised build (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=measuring.all_threads())
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4, help="sequences of a step (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="of which the first is not counted (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--keep-activations", action="store_true", help="as torch does")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    measuring.limit_threads(options.threads)
    rows = []
    for part in PARTS:
        speeds = {"ours": [], "torch": []}
        for _ in range(options.rounds):
            speeds["ours"] += ours(options, part)
            speeds["torch"] += torchs(options, part)
        mine, other = (statistics.median(speeds[who]) for who in ("ours", "torch"))
        rows.append({"train": part, "ours": mine, "torch": other, "ratio": mine / other})
    if options.json:
        return print(json.dumps(rows, indent=1))
    print("| trained | this program | torch | ratio |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row['train']} | {row['ours']:.0f} | {row['torch']:.0f} | {row['ratio']:.2f} |")


if __name__ == "__main__":
    main()

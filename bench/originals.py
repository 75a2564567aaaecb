#!/usr/bin/env python3
"""Computes the NLL of original checkpoints in this program and in transformers (float32, and float64 with --double), on the same windows,
and prints a Markdown table. The text is tokenised by the tokenizers library, and each window begins with BOS where the model has one.
Needs the environment of tools/test_venv.sh:

  build/venv/bin/python bench/originals.py MODEL... --text TEXT
"""
import argparse
import array
import json
import tempfile
from pathlib import Path

import measuring


def windows_of(checkpoint, text, context, windows):
    """Token ids of each window without BOS, and BOS as a list of one or none, as `eval` puts it in front."""
    ids, bos = measuring.token_ids(checkpoint, text)
    step = context - len(bos)
    return [ids[i * step:(i + 1) * step] for i in range(windows)], bos


def their_nll(checkpoint, rows, bos, dtype):
    import torch
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype, attn_implementation="eager")
    total = count = 0
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([bos + row])
            logprobs = model(ids).logits[0, :-1].double().log_softmax(-1)
            total -= logprobs.gather(1, ids[0, 1:, None]).sum().item()
            count += ids.shape[1] - 1
    return total / count


def our_nll(options, checkpoint, rows, directory):
    text = directory / "text.u32"
    text.write_bytes(array.array("I", [token for row in rows for token in row]).tobytes())
    return measuring.run_json(options.program, "eval", checkpoint, "--tokens", text, "--context", options.context,
                              "--max-windows", options.windows)["nll"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--context", type=int, default=512, help="tokens of a window, BOS included (default: %(default)s)")
    parser.add_argument("--windows", type=int, default=4, help="(default: %(default)s)")
    parser.add_argument("--double", action="store_true", help="transformers in float64, too")
    parser.add_argument("--program", default="build/bench/bin/mha2mla")
    options = parser.parse_args()
    import torch

    text = options.text.read_text()[:20 * options.context * options.windows]
    print("| model | family | mha2mla | transformers | difference |" + (" float64 |" if options.double else ""))
    print("|---|---|---|---|---|" + ("---|" if options.double else ""))
    with tempfile.TemporaryDirectory() as place:
        for checkpoint in options.models:
            rows, bos = windows_of(checkpoint, text, options.context, options.windows)
            ours = our_nll(options, checkpoint, rows, Path(place))
            theirs = their_nll(checkpoint, rows, bos, torch.float32)
            family = json.loads((checkpoint / "config.json").read_text())["model_type"]
            line = f"| {checkpoint.name} | {family} | {ours:.6f} | {theirs:.6f} | {ours - theirs:+.1e} |"
            if options.double:
                line += f" {their_nll(checkpoint, rows, bos, torch.float64):.6f} |"
            print(line, flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Runs a checkpoint of layout deepseek in transformers (float32 and bfloat16) and in llama.cpp (each form and type), on the same tokens
as this program, and prints a Markdown table: NLL, how many of 64 greedy tokens are this program's, and the bytes of a cached token that
the engine allocates. Needs the environment of tools/test_venv.sh:

  build/venv/bin/python bench/engines.py CONVERTED --text TEXT --program build/bench/bin/mha2mla
"""
import argparse
import array
import json
import sys
import tempfile
from pathlib import Path

import measuring

GREEDY = 64
LLAMA_CPP = Path(__file__).parent.parent / "tests/engines/llama_cpp.py"
FILES = [("mla", "f32"), ("mqa", "f32"), ("mla", "f16"), ("mla", "bf16"), ("mla", "q8_0"), ("mla", "q4_k"), ("mla", "q4_0")]


def our_own(options, ids, bos, directory):
    """NLL and greedy continuation, in F32; the evaluation puts BOS in front itself."""
    text, prompt = (directory / name for name in ("text.u32", "prompt.u32"))
    text.write_bytes(array.array("I", ids[len(bos):]).tobytes())
    prompt.write_bytes(array.array("I", ids).tobytes())
    scored = measuring.run_json(options.program, "eval", options.checkpoint, "--tokens", text, "--context", len(ids))
    said = measuring.run_json(options.program, "generate", options.checkpoint, "--prompt-tokens", prompt,
                              "--max-new-tokens", GREEDY, "--ignore-eos", "--kv-cache", "f32")
    return scored["nll"], said["ids"][len(said["prompt_ids"]):]


def transformers_row(checkpoint, ids, dtype):
    """NLL, greedy continuation, bytes of a cached token in all layers."""
    import torch
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype, attn_implementation="eager")
    with torch.no_grad():
        row = torch.tensor([ids])
        step = model(row, use_cache=True)
        logprobs = step.logits[0, :-1].double().log_softmax(-1)
        nll = -logprobs.gather(1, row[0, 1:, None]).mean().item()
        cache = step.past_key_values
        kept = sum(part.numel() * part.element_size() for layer in cache.layers for part in (layer.keys, layer.values))
        greedy = []
        for _ in range(GREEDY):
            greedy.append(step.logits[0, -1].argmax().item())
            step = model(torch.tensor([[greedy[-1]]]), past_key_values=cache, use_cache=True)
    return nll, greedy, kept / len(ids)


def llama_cpp_row(options, ids, vocabulary, form, block_type, directory):
    """As transformers_row; also the size of the file."""
    import safetensors.numpy
    file = directory / f"{form}-{block_type}.gguf"
    measuring.run(options.program, "export", options.checkpoint, file, "--form", form, "--type", block_type)
    (directory / "question.json").write_text(json.dumps(
        {"ids": ids, "from": 1, "greedy": GREEDY, "vocab": vocabulary, "texts": []}))
    measuring.run(sys.executable, LLAMA_CPP, file, directory / "question.json", directory / "answer.safetensors")
    answer = safetensors.numpy.load_file(directory / "answer.safetensors")
    logprobs = answer["logprobs"].astype("float64")
    nll = -sum(logprobs[at, ids[at + 1]] for at in range(len(ids) - 1)) / (len(ids) - 1)
    size = file.stat().st_size
    file.unlink()
    return nll, [int(token) for token in answer["greedy"]], float(answer["cache_bytes"][0]), size


def agreeing(greedy, ours):
    same = next((i for i, (a, b) in enumerate(zip(greedy, ours)) if a != b), len(ours))
    return f"{same} of {len(ours)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=128, help="of the text's beginning, BOS included (default: %(default)s)")
    parser.add_argument("--program", default="build/bench/bin/mha2mla")
    options = parser.parse_args()
    import torch

    vocabulary = json.loads((options.checkpoint / "config.json").read_text())["vocab_size"]
    ids, bos = measuring.token_ids(options.checkpoint, options.text.read_text()[:20 * options.tokens])
    ids = (bos + ids)[:options.tokens]
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        nll, ours = our_own(options, ids, bos, directory)
        print("| engine | NLL | difference | greedy tokens as ours | bytes of a cached token | file |\n|---|---|---|---|---|---|")
        print(f"| mha2mla, F32 | {nll:.6f} | | | | |", flush=True)
        for dtype in (torch.float32, torch.bfloat16):
            theirs, greedy, kept = transformers_row(options.checkpoint, ids, dtype)
            print(f"| transformers, {str(dtype).removeprefix('torch.')} | {theirs:.6f} | {theirs - nll:+.1e} | "
                  f"{agreeing(greedy, ours)} | {kept:.0f} | |", flush=True)
        for form, block_type in FILES:
            theirs, greedy, kept, size = llama_cpp_row(options, ids, vocabulary, form, block_type, directory)
            print(f"| llama.cpp, {form} {block_type} | {theirs:.6f} | {theirs - nll:+.1e} | {agreeing(greedy, ours)} | "
                  f"{kept:.0f} (F32) | {size:,} |", flush=True)


if __name__ == "__main__":
    main()

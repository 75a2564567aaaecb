#!/usr/bin/env python3
"""Writes a Hugging Face checkpoint of random weights with the shapes of a real model, for benchmarks: config.json and sharded
safetensors, written as a stream. The weights have a realistic scale, but otherwise nothing in common with trained ones."""
import argparse
import json
import re
import struct
import sys
from pathlib import Path

import measuring

PRESETS = {
    "smollm-135m": dict(hidden=576, intermediate=1536, layers=30, heads=9, kv_heads=3, vocab=49152, tied=True,
                        rope_theta=10000.0, positions=2048, dtype="BF16"),
    "smollm-1.7b": dict(hidden=2048, intermediate=8192, layers=24, heads=32, kv_heads=32, vocab=49152, tied=True,
                        rope_theta=10000.0, positions=2048, dtype="BF16"),
    "llama-3-8b": dict(hidden=4096, intermediate=14336, layers=32, heads=32, kv_heads=8, vocab=128256, tied=False,
                       rope_theta=500000.0, positions=8192, dtype="BF16"),
    "llama-2-7b": dict(hidden=4096, intermediate=11008, layers=32, heads=32, kv_heads=32, vocab=32000, tied=False,
                       rope_theta=10000.0, positions=4096, dtype="F16"),
}
OVERRIDES = ("hidden", "intermediate", "layers", "heads", "kv_heads", "vocab")
DTYPES = {"F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2)}
BLOCK = 16_777_259  # random elements, which larger tensors repeat; a prime, so that no two rows are alike
PIECE = 1 << 24  # elements written at once


def config_of(model):
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": model["hidden"], "intermediate_size": model["intermediate"],
        "num_hidden_layers": model["layers"], "num_attention_heads": model["heads"],
        "num_key_value_heads": model["kv_heads"], "vocab_size": model["vocab"],
        "max_position_embeddings": model["positions"], "rms_norm_eps": 1e-05, "rope_theta": model["rope_theta"],
        "tie_word_embeddings": model["tied"], "attention_bias": False, "bos_token_id": 1, "eos_token_id": 2,
        "torch_dtype": DTYPES[model["dtype"]][0],
    }


def tensors_of(model):
    """The (name, shape) of all tensors, in the order of the files."""
    hidden, inner = model["hidden"], model["intermediate"]
    kv = hidden // model["heads"] * model["kv_heads"]
    yield "model.embed_tokens.weight", (model["vocab"], hidden)
    for layer in range(model["layers"]):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (hidden,)
        yield prefix + "self_attn.q_proj.weight", (hidden, hidden)
        yield prefix + "self_attn.k_proj.weight", (kv, hidden)
        yield prefix + "self_attn.v_proj.weight", (kv, hidden)
        yield prefix + "self_attn.o_proj.weight", (hidden, hidden)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
        yield prefix + "mlp.gate_proj.weight", (inner, hidden)
        yield prefix + "mlp.up_proj.weight", (inner, hidden)
        yield prefix + "mlp.down_proj.weight", (hidden, inner)
    yield "model.norm.weight", (hidden,)
    if not model["tied"]:
        yield "lm_head.weight", (model["vocab"], hidden)


def count_of(shape):
    return shape[0] if len(shape) == 1 else shape[0] * shape[1]


def shards_of(tensors, element_bytes, shard_size):
    shards, filled = [[]], 0
    for name, shape in tensors:
        size = count_of(shape) * element_bytes
        if shards[-1] and filled + size > shard_size:
            shards.append([])
            filled = 0
        shards[-1].append((name, shape))
        filled += size
    return shards


def header_of(shard, dtype):
    header, position = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shard:
        end = position + count_of(shape) * DTYPES[dtype][1]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def as_dtype(values, dtype):
    """float32 values as raw elements of `dtype`, rounded to nearest even."""
    import numpy as np
    if dtype == "F32":
        return values
    if dtype == "F16":
        return values.astype(np.float16)
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def random_block(dtype, largest, seed):
    import numpy as np
    values = np.random.default_rng(seed).standard_normal(min(BLOCK, largest), dtype=np.float32)
    values *= np.float32(0.02)
    return as_dtype(values, dtype)


def write_tensor(out, block, first, count):
    """`count` elements of the endless repetition of `block` from element `first`."""
    while count > 0:
        first %= len(block)
        piece = block[first:first + min(count, PIECE)]
        out.write(memoryview(piece))
        first += len(piece)
        count -= len(piece)


def make_checkpoint(directory, model, shard_size, seed=1):
    """Writes the checkpoint and returns the number of bytes of its weights."""
    import numpy as np
    directory.mkdir(parents=True)
    tensors = list(tensors_of(model))
    element_bytes = DTYPES[model["dtype"]][1]
    block = random_block(model["dtype"], max(count_of(shape) for _, shape in tensors) + 1, seed)
    norm = as_dtype(1 + 0.1 * np.random.default_rng(seed).standard_normal(model["hidden"], dtype=np.float32),
                    model["dtype"])
    shards = shards_of(tensors, element_bytes, shard_size)
    weight_map, total = {}, 0
    for index, shard in enumerate(shards):
        file = ("model.safetensors" if len(shards) == 1
                else f"model-{index + 1:05}-of-{len(shards):05}.safetensors")
        with open(directory / file, "wb") as out:
            out.write(header_of(shard, model["dtype"]))
            for name, shape in shard:
                if len(shape) == 1:
                    out.write(memoryview(norm))
                else:
                    write_tensor(out, block, 7_368_787 * len(weight_map), count_of(shape))
                weight_map[name] = file
                total += count_of(shape) * element_bytes
    if len(shards) > 1:
        write_json(directory / "model.safetensors.index.json",
                   {"metadata": {"total_size": total}, "weight_map": weight_map})
    write_json(directory / "config.json", config_of(model))
    return total


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def parse_size(text):
    units = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
    match = re.fullmatch(r"(\d+)([A-Z]*)", text.upper())
    if not match or match[2] not in units or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size such as 5GB, 500MB or 2GiB")
    return int(match[1]) * units[match[2]]


def add_model_options(parser):
    """Adds the options that model_of() reads."""
    parser.add_argument("--preset", choices=PRESETS, default="smollm-135m",
                        help="model with the wanted shapes (default: %(default)s)")
    for name in OVERRIDES:
        parser.add_argument("--" + name.replace("_", "-"), type=int, metavar="N", help=f"{name}, instead of that of the preset")
    parser.add_argument("--dtype", choices=DTYPES, help="element type of the weights, instead of that of the preset")
    parser.add_argument("--shard-size", type=parse_size, default=parse_size("5GB"), metavar="SIZE",
                        help="largest weight file (default: 5GB)")


def model_of(options):
    model = dict(PRESETS[options.preset])
    for name in (*OVERRIDES, "dtype"):
        if getattr(options, name) is not None:
            model[name] = getattr(options, name)
    if min(model[name] for name in OVERRIDES) < 1:
        sys.exit("error: every size must be at least 1")
    if model["hidden"] % model["heads"] or model["heads"] % model["kv_heads"]:
        sys.exit("error: --hidden must be a multiple of --heads, and --heads of --kv-heads")
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="output directory; must not exist")
    add_model_options(parser)
    parser.add_argument("--seed", type=int, default=1, help="random seed of the weights (default: %(default)s)")
    options = parser.parse_args()
    if options.directory.exists():
        sys.exit(f"error: {options.directory} exists; choose another place")
    measuring.import_or_exit("numpy")
    total = make_checkpoint(options.directory, model_of(options), options.shard_size, options.seed)
    print(f"{options.directory}: {total:,} bytes of weights")


if __name__ == "__main__":
    main()

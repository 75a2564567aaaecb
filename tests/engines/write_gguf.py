#!/usr/bin/env python3
"""Writes a Llama, Qwen2, Qwen3 or Gemma 3 checkpoint as GGUF by the gguf package, as llama.cpp's own converter does.

usage: write_gguf.py CHECKPOINT OUT.gguf TYPE     TYPE: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0 or Q5_1, of matrices whose rows are whole blocks
"""
import json
import pathlib
import sys

import gguf
import numpy as np
from safetensors import safe_open

checkpoint, out, type_name = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
config = json.load(open(checkpoint / "config.json"))
arch, heads, kv_heads = config["model_type"].removesuffix("_text"), config["num_attention_heads"], config["num_key_value_heads"]
head_dim = config.get("head_dim") or config["hidden_size"] // heads
writer = gguf.GGUFWriter(out, arch)
writer.add_context_length(config["max_position_embeddings"])
writer.add_embedding_length(config["hidden_size"])
writer.add_feed_forward_length(config["intermediate_size"])
writer.add_block_count(config["num_hidden_layers"])
writer.add_head_count(heads)
writer.add_head_count_kv(kv_heads)
writer.add_key_length(head_dim)
writer.add_value_length(head_dim)
writer.add_rope_dimension_count(head_dim)
rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
if arch == "gemma3":
    writer.add_float32("gemma3.rope.freq_base_swa", rope["sliding_attention"]["rope_theta"])
    writer.add_float32("gemma3.attention.scale", config["query_pre_attn_scalar"] ** -0.5)
    writer.add_sliding_window(config["sliding_window"])
    writer.add_uint32("gemma3.attention.sliding_window_pattern", config["layer_types"].index("full_attention") + 1)
    rope = rope["full_attention"]
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
theta = config.get("rope_theta") or rope.get("rope_theta", 10000.0)
writer.add_rope_freq_base(theta)
writer.add_layer_norm_rms_eps(config["rms_norm_eps"])

file = checkpoint / "tokenizer.json"
if file.exists():
    tokenizer = json.load(open(file))
    tokens = {id: name for name, id in tokenizer["model"]["vocab"].items()}
    special = {token["id"]: token["special"] for token in tokenizer["added_tokens"]}
    fallback = tokenizer["model"].get("byte_fallback", False)
    writer.add_tokenizer_model("llama" if fallback else "gpt2")
    writer.add_tokenizer_pre("default" if fallback else "gpt-2")
    writer.add_token_list([tokens[id] for id in range(config["vocab_size"])])
    writer.add_token_types([3 if special.get(id) else 4 if id in special else 1 for id in range(config["vocab_size"])])
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    if fallback:
        ranks = {}
        for rank, merge in enumerate(merges):
            ranks.setdefault(merge.replace(" ", "", 1), -rank)
        writer.add_token_scores([float(ranks.get(tokens[id], -1e6)) for id in range(config["vocab_size"])])
    else:
        writer.add_token_merges(merges)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(fallback)
    writer.add_chat_template("{{ messages[0]['content'] }}")

scaling = rope
if scaling.get("rope_type", scaling.get("type")) == "llama3":
    frequencies = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * np.pi)
    share = np.clip((turns - scaling["low_freq_factor"]) / (scaling["high_freq_factor"] - scaling["low_freq_factor"]), 0, 1)
    writer.add_tensor("rope_freqs.weight", (1 / ((1 - share) / scaling["factor"] + share)).astype(np.float32))

names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch.upper()], config["num_hidden_layers"])
quantisation = gguf.GGMLQuantizationType[type_name]
for path in sorted(checkpoint.glob("model*.safetensors")):
    with safe_open(path, "pt") as tensors:
        for name in tensors.keys():
            array = tensors.get_tensor(name).float().numpy()
            count = heads if "q_proj" in name else kv_heads if "k_proj" in name else 0
            if arch == "llama" and count:  # rows k and k + d/2 of a head become 2k and 2k + 1
                array = array.reshape(count, 2, head_dim // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
            if config.get("tie_word_embeddings") and name == "lm_head.weight":
                name = "model.embed_tokens.weight"
            if arch == "gemma3" and name.endswith("norm.weight"):
                array = array + 1
            stem, ending = name.rsplit(".", 1)
            kind = quantisation if array.ndim == 2 and array.shape[1] % gguf.GGML_QUANT_SIZES[quantisation][0] == 0 else \
                gguf.GGMLQuantizationType.F32
            writer.add_tensor(f"{names.get_name(stem)}.{ending}", gguf.quantize(np.ascontiguousarray(array), kind), raw_dtype=kind)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

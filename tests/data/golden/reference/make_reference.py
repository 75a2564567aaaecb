#!/usr/bin/env python3
"""Makes the checkpoints beside it: small random models, converted and written by the code of the MHA2MLA reference
implementation (https://github.com/JT-Ushio/MHA2MLA, commit 7a56785), and the logits that this code computes for them. With
is_gqa2mha2mla it converts, but fails to compute: of that case there is the original instead of logits.

usage: make_reference.py OUT      with PYTHONPATH the src/mha2mla of that repository, and transformers 4.57
"""
import json
import pathlib
import sys
import types

import patching_llama
import patching_qwen2
import patching_qwen3
import patching_qwen3_moe
import torch
from patching_model_load import patch_model
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

PATCHES = {
    "llama": patching_llama.mha2mla_llama,
    "qwen2": patching_qwen2.mha2mla_qwen2,
    "qwen3": patching_qwen3.mha2mla_qwen3,
    "qwen3_moe": patching_qwen3_moe.mha2mla_qwen3_moe,
}
HEADS, KV_HEADS, LAYERS, VOCABULARY = 4, 2, 2, 40
SHAPE = dict(
    vocab_size=VOCABULARY, hidden_size=32, intermediate_size=40, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
    num_key_value_heads=KV_HEADS, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    tie_word_embeddings=False, rope_theta=1000.0,
)
ARGUMENTS = dict(
    partial_rope_version="high", rope_dim_for_mla=4, uniform_start_point=0, qk_tensor_path=None, svd_init_method="joint",
    low_rank=6, is_baseline=False, is_gqa2mha2mla=False, is_mla_from_scratch=False,
)
# name, model_type, keys of config.json, arguments of the reference
CASES = [
    ("llama-2norm", "llama", dict(tie_word_embeddings=True),
     dict(partial_rope_version="2-norm", qk_tensor_path="utils/tiny-2_norm_rank.pth")),
    ("llama-low-split", "llama", dict(head_dim=8, attention_bias=True),
     dict(partial_rope_version="low", svd_init_method="split", low_rank=3)),
    ("qwen2-uniform", "qwen2", dict(),
     dict(partial_rope_version="uniform", uniform_start_point=1, svd_init_method="only_value")),
    ("qwen2-none", "qwen2", dict(), dict(svd_init_method="none", low_rank=0, rope_dim_for_mla=2)),
    ("qwen3-uniform", "qwen3", dict(head_dim=12, use_sliding_window=False),
     dict(partial_rope_version="uniform", low_rank=7, rope_dim_for_mla=6)),
    ("qwen3moe-high", "qwen3_moe",
     dict(head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, norm_topk_prob=True),
     dict(svd_init_method="only_key", low_rank=3)),
    ("llama-gqa2mha", "llama", dict(),
     dict(partial_rope_version="2-norm", qk_tensor_path="utils/tiny-2_norm_rank.pth", is_gqa2mha2mla=True)),
]


def randomise(model):
    for name, weight in model.named_parameters():
        noise = torch.randn_like(weight)
        if "norm" in name:
            weight.copy_(1 + 0.3 * noise)
        elif name.endswith("bias"):
            weight.copy_(0.3 * noise)
        elif "embed" in name:
            weight.copy_(0.7 * noise)
        else:
            weight.copy_(noise * 1.5 / weight.shape[-1] ** 0.5)


def write_ranks(path, heads, head_dim):
    ranks = torch.stack([torch.randperm(head_dim // 2) for _ in range(LAYERS * heads)])
    ranks = ranks.reshape(LAYERS, heads, head_dim // 2)
    torch.save(torch.cat([ranks, ranks], -1).to(torch.uint8), path)


def main():
    out = pathlib.Path(sys.argv[1])
    ids = torch.randint(3, VOCABULARY, (2, 24), generator=torch.Generator().manual_seed(5))
    ids[:, 0] = 1
    for index, (name, family, keys, changed) in enumerate(CASES):
        directory = out / name
        directory.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(20 + index)
        config = AutoConfig.for_model(family, **{**SHAPE, **keys})
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
        arguments = {**ARGUMENTS, **changed}
        with torch.no_grad():
            randomise(model)
            used = dict(arguments)
            if used["is_gqa2mha2mla"]:
                model.save_pretrained(directory / "original")
            if used["qk_tensor_path"] is not None:  # relative to where the reference ran; published beside the weights
                used["qk_tensor_path"] = directory / pathlib.Path(used["qk_tensor_path"]).name
                heads = HEADS if used["is_gqa2mha2mla"] else KV_HEADS
                write_ranks(used["qk_tensor_path"], heads, config.hidden_size // HEADS)
            model, q_idx, k_idx = patch_model(model, config, types.SimpleNamespace(**used))
            PATCHES[family](q_idx, k_idx)
            model.config.mha2mla = arguments
            logits = None if used["is_gqa2mha2mla"] else model(ids, use_cache=False).logits.float()
            # As its run_train.py does.
            tensors = model.state_dict()
            if config.tie_word_embeddings:
                tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
            model.save_pretrained(directory, state_dict=tensors)
        for file in directory.rglob("generation_config.json"):
            file.unlink()
        if logits is None:
            continue
        (directory / "expected.json").write_text(json.dumps({"ids": ids.tolist()}) + "\n")
        save_file({"logits": logits.contiguous()}, directory / "expected.safetensors")


main()

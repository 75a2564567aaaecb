#!/usr/bin/env python3
"""Makes small random models with experts in transformers, saves them, and writes their logits.

usage: experts.py IDS.json DIRECTORY

IDS.json holds a list of rows of token ids below 64. Each model is saved as DIRECTORY/NAME, with its logits in logits.safetensors.
"""
import json
import pathlib
import sys

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

COMMON = dict(vocab_size=64, hidden_size=32, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
              max_position_embeddings=64, rms_norm_eps=1e-3, moe_intermediate_size=24, num_experts_per_tok=2, bos_token_id=1, eos_token_id=2)
MLA = dict(num_key_value_heads=4, kv_lora_rank=12, q_lora_rank=None, qk_rope_head_dim=8, qk_nope_head_dim=16, v_head_dim=16,
           first_k_dense_replace=1, n_routed_experts=8, n_shared_experts=1, n_group=1, topk_group=1)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=8.0, original_max_position_embeddings=8, beta_fast=32, beta_slow=1)
MODELS = {
    "mixtral": dict(model_type="mixtral", num_local_experts=5, num_experts_per_tok=3, sliding_window=6, head_dim=12),
    "mixtral-fused": dict(model_type="mixtral", num_local_experts=3, num_experts_per_tok=1, tie_word_embeddings=True, fused=True),
    "qwen2_moe": dict(model_type="qwen2_moe", num_experts=6, norm_topk_prob=True, shared_expert_intermediate_size=20, decoder_sparse_step=2),
    "qwen2_moe-sliding": dict(model_type="qwen2_moe", num_experts=4, num_experts_per_tok=4, shared_expert_intermediate_size=8, qkv_bias=False,
                              mlp_only_layers=[1], use_sliding_window=True, sliding_window=4, max_window_layers=2, fused=True),
    "qwen3_moe": dict(model_type="qwen3_moe", num_experts=7, num_experts_per_tok=1, norm_topk_prob=False, head_dim=16, attention_bias=True,
                      use_sliding_window=True, sliding_window=5),
    "qwen3_moe-fused": dict(model_type="qwen3_moe", num_experts=7, num_experts_per_tok=3, norm_topk_prob=True, head_dim=16,
                            mlp_only_layers=[0, 2], rope_parameters=YARN, fused=True),
    "deepseek_v2": dict(MLA, model_type="deepseek_v2", topk_method="group_limited_greedy", n_group=4, topk_group=2, n_shared_experts=2,
                        routed_scaling_factor=3.0, q_lora_rank=10, attention_bias=True),
    "deepseek_v2-yarn": dict(MLA, model_type="deepseek_v2", first_k_dense_replace=0, num_experts_per_tok=1, mlp_bias=True,
                             rope_parameters=dict(YARN, mscale=0.707, mscale_all_dim=0.5)),
    "deepseek_v3": dict(MLA, model_type="deepseek_v3", n_group=4, topk_group=2, num_experts_per_tok=3, routed_scaling_factor=2.5,
                        q_lora_rank=10, qk_nope_head_dim=10, rope_parameters=dict(YARN, mscale=1.0, mscale_all_dim=1.0)),
    "deepseek_v3-fused": dict(MLA, model_type="deepseek_v3", norm_topk_prob=False, rope_interleave=False, n_shared_experts=3, v_head_dim=20,
                              num_experts_per_tok=1, tie_word_embeddings=True, fused=True),
    "deepseek_v3-dense": dict(MLA, model_type="deepseek_v3", first_k_dense_replace=3, hidden_size=36,
                              rope_parameters=dict(YARN, mscale_all_dim=0.8)),
}

torch.set_num_threads(1)
torch.manual_seed(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
ids = torch.tensor(json.load(open(sys.argv[1])))
for name, options in MODELS.items():
    options = COMMON | options
    fused = options.pop("fused", False)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**options), attn_implementation="eager").eval()
    for key, tensor in model.state_dict().items():
        torch.nn.init.normal_(tensor, 1.0 if "norm" in key else 0.0, 0.25)
    directory = pathlib.Path(sys.argv[2]) / name
    model.save_pretrained(directory, save_original_format=not fused)
    with torch.no_grad():
        save_file({"logits": model(ids).logits.contiguous()}, directory / "logits.safetensors")

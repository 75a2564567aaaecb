#!/usr/bin/env python3
"""Loads a checkpoint by AutoModelForCausalLM, without any code of its own, and writes its logits.

usage: transformers_logits.py CHECKPOINT CLASS IDS.json OUT.safetensors

IDS.json holds a list of rows of token ids. Fails if the class is another one, or if weights are missing or left over. Also fails if
greedy decoding with a cache gives other logits than the whole row at once.
"""
import json
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

checkpoint, class_name, ids_file, out = sys.argv[1:]
torch.set_num_threads(1)
model, info = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager",
                                                   output_loading_info=True)
assert type(model).__name__ == class_name, type(model)
wrong = {key: value for key, value in info.items() if value}
assert not wrong, wrong
ids = torch.tensor(json.load(open(ids_file)))
with torch.no_grad():
    logits = model(ids).logits
    cache = None
    for position in range(ids.shape[1]):
        step = model(ids[:, position:position + 1], cache=cache, use_cache=True)
        cache = step.past_key_values
        difference = (step.logits[:, 0] - logits[:, position]).abs().max().item()
        assert difference < 1e-4 * logits.abs().max().item() + 1e-4, (position, difference)
save_file({"logits": logits.contiguous()}, out)

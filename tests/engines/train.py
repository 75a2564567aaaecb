#!/usr/bin/env python3
"""Trains converted checkpoints in transformers for a few steps, all weights and those of the attention alone, and fails if the loss of
the text does not fall.

usage: train.py TEXT CHECKPOINT...
"""
import os
import sys
import tempfile

modules = tempfile.TemporaryDirectory()
os.environ["HF_MODULES_CACHE"] = modules.name  # where transformers copies code to

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

STEPS, ROWS, LENGTH, RATE = 20, 4, 96, 1e-3
torch.set_num_threads(1)
text = open(sys.argv[1], encoding="utf-8").read(40_000)
for checkpoint in sys.argv[2:]:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    ids = torch.tensor(tokenizer(text)["input_ids"])
    batches = ids[:len(ids) // (ROWS * LENGTH) * ROWS * LENGTH].view(-1, ROWS, LENGTH)
    for only_attention in (False, True):
        torch.manual_seed(0)
        code = True if checkpoint.endswith("mha2mla") else None
        model = AutoModelForCausalLM.from_pretrained(checkpoint, trust_remote_code=code, dtype=torch.float32).train()
        if only_attention:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(".self_attn." in name)
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=RATE)
        losses = []
        for step in range(STEPS):
            batch = batches[step % 4]
            loss = model(batch, labels=batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        first, last = sum(losses[:4]) / 4, sum(losses[-4:]) / 4
        print(f"{checkpoint} {'attention' if only_attention else 'all'}: {first:.4f} -> {last:.4f}")
        assert last < first - 0.05, losses
        moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
        expected = {name for name in before if not only_attention or ".self_attn." in name}
        assert moved == expected, moved ^ expected

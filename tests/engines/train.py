#!/usr/bin/env python3
"""Trains converted checkpoints in transformers for a few steps, all weights and those of the attention alone.

usage: train.py TEXT CHECKPOINT...

Fails unless the loss falls below that of the untrained model, on the batches and on text that is held out, and never rises far above it on
the way. A latent whose norm is the identity because it is tiny has rows that are too small for Adam and must be frozen (docs/formats.md);
fails also if they need not. With a constant in the latent, or a norm that the weights were refined with, everything trains.
"""
import json
import os
import sys
import tempfile

modules = tempfile.TemporaryDirectory()
os.environ["HF_MODULES_CACHE"] = modules.name  # where transformers copies code to

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

STEPS, BATCHES, ROWS, LENGTH, RATE = 20, 4, 4, 96, 5e-5
TINY = ("kv_a_proj_with_mqa", "q_a_proj")


def has_code(checkpoint):
    return os.path.exists(os.path.join(checkpoint, "modeling_mha2mla.py"))


def load(checkpoint, trains):
    """@param trains says of a parameter's name whether it is trained."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, trust_remote_code=has_code(checkpoint), dtype=torch.float32).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trains(name))
    return model


@torch.no_grad()
def losses_of(model, batches):
    return [model(batch, labels=batch).loss.item() for batch in batches]


def train(model, batches, steps):
    """The loss before each step."""
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=RATE)
    losses = []
    for step in range(steps):
        batch = batches[step % len(batches)]
        loss = model(batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def check(checkpoint, trains, batches, held_out, what):
    model = load(checkpoint, trains)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    untrained, held_before = losses_of(model, batches), losses_of(model, held_out)
    on_the_way = train(model, batches, STEPS)
    trained, held_after = losses_of(model, batches), losses_of(model, held_out)
    print(f"{os.path.basename(checkpoint)}, {what}: {sum(untrained) / BATCHES:.4f} -> {sum(trained) / BATCHES:.4f}, held out "
          f"{sum(held_before) / len(held_out):.4f} -> {sum(held_after) / len(held_out):.4f}")
    assert all(after < was - 0.05 for after, was in zip(trained, untrained)), (untrained, trained)
    assert max(on_the_way) < max(untrained) + 0.1, on_the_way
    assert sum(held_after) < sum(held_before), (held_before, held_after)
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    missed = {name for name in before if trains(name)} ^ moved
    assert all("_layernorm" in name and "_a_" in name for name in missed), missed  # 2^20, which float32 does not move by that little


torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
text = open(sys.argv[1], encoding="utf-8").read(40_000)
for checkpoint in sys.argv[2:]:
    ids = torch.tensor(AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=has_code(checkpoint))(text)["input_ids"])
    rows = ids[:len(ids) // (ROWS * LENGTH) * ROWS * LENGTH].view(-1, ROWS, LENGTH)
    batches, held_out = rows[:BATCHES], rows[-6:]
    with open(os.path.join(checkpoint, "mha2mla.json"), encoding="utf-8") as record:
        is_tiny = json.load(record)["method"].get("latent_norm") == "identity"

    def trains(name):
        return not (is_tiny and any(tiny in name for tiny in TINY))

    check(checkpoint, trains, batches, held_out, "all")
    check(checkpoint, lambda name: ".self_attn." in name and trains(name), batches, held_out, "attention")
    if is_tiny:
        losses = train(load(checkpoint, lambda name: True), batches, 2)
        assert losses[1] > losses[0] + 3, f"trains as a whole now, so docs/formats.md and the model card are wrong: {losses}"

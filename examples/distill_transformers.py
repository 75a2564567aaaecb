#!/usr/bin/env python3
"""Trains a converted checkpoint in transformers, towards the original's next-token distributions or the text's next tokens.

  python3 distill_transformers.py ./model-mla --teacher ./model --text corpus.txt --out ./model-ft --steps 2000

Runs on a GPU where torch finds one (weights and moments in float32, products in BF16), else on the processor. Layout deepseek and layout
mha2mla, whose code in the checkpoint is run. A latent that is made tiny so that its norm is an identity has rows that Adam cannot
train; they stay as they are. To train them too, convert with --latent-norm trained.
"""
import argparse
import json
import math
import pathlib

import torch
from torch.nn.functional import cross_entropy, kl_div
from transformers import AutoModelForCausalLM, AutoTokenizer

TINY = ("kv_a_proj_with_mqa", "q_a_proj")


def load(directory, **options):
    code = (directory / "modeling_mha2mla.py").exists()
    return AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=code, **options)


def is_tiny(directory):
    record = directory / "mha2mla.json"
    return record.exists() and json.loads(record.read_text())["method"].get("latent_norm") == "identity"


def sequences(directory, text, length):
    """Whole sequences that begin with BOS where there is one, [count, length]."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    rows = ids[:len(ids) // (length - len(bos)) * (length - len(bos))].view(-1, length - len(bos))
    return torch.cat((torch.tensor(bos).expand(len(rows), -1), rows), dim=1) if bos else rows


def loss_of(model, teacher, batch):
    logits = model(batch).logits.float()
    if teacher is None:
        return cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
    with torch.no_grad():
        wanted = teacher(batch).logits.float().log_softmax(-1)
    return kl_div(logits.log_softmax(-1).flatten(0, 1), wanted.flatten(0, 1), log_target=True, reduction="batchmean")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--teacher", type=pathlib.Path, help="the original; without it the loss is that of next tokens")
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=32, help="sequences of a step (default: %(default)s)")
    parser.add_argument("--micro-batch", type=int, default=4, help="sequences at once (default: %(default)s)")
    parser.add_argument("--seq-len", type=int, default=1024)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--attention-only", action="store_true")
    options = parser.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = load(options.model, dtype=torch.float32).to(device).train()
    model.gradient_checkpointing_enable()
    model.config.use_cache = False
    teacher = options.teacher and load(options.teacher, dtype="auto").to(device).eval()
    frozen = TINY if is_tiny(options.model) else ()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_((".self_attn." in name or not options.attention_only) and not any(part in name for part in frozen))
    optimiser = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=options.learning_rate, betas=(0.9, 0.95),
                                  weight_decay=0)
    warm_up = max(1, options.steps // 10)  # then constant, and 1 - sqrt in the last sixth (MHA2MLA, appendix C)
    fall = max(1, options.steps // 6)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm_up, 1 - math.sqrt(max(0, step + fall - options.steps) / fall)))

    rows = sequences(options.model, options.text.read_text(encoding="utf-8"), options.seq_len)
    if len(rows) < options.micro_batch:
        parser.error(f"{options.text} is {len(rows)} sequences, less than a micro-batch")
    order = torch.empty(0, dtype=torch.long)
    for step in range(options.steps):
        total = 0.0
        for _ in range(options.batch // options.micro_batch):
            if len(order) < options.micro_batch:
                order = torch.randperm(len(rows))
            batch, order = rows[order[:options.micro_batch]].to(device), order[options.micro_batch:]
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                loss = loss_of(model, teacher, batch) * options.micro_batch / options.batch
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        scheduler.step()
        print(json.dumps({"step": step + 1, "loss": total}), flush=True)

    model.config.use_cache = True
    model.save_pretrained(options.out)
    AutoTokenizer.from_pretrained(options.model).save_pretrained(options.out)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Predictions by transformers, as LongBench's pred.py and MHA2MLA's evaluation make them (their rules, not their code).
Usage: make_predictions.py MODEL DATA PROMPTS SETTINGS PROTOCOL MAX_TOKENS OUT

PROMPTS and SETTINGS are golden files. DATA holds <task>.jsonl; each task's predictions become OUT/<task>.jsonl. The
folders here were made of examples/kjv-1.8M and examples/longbench with 300 tokens."""
import json
import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

MODEL, DATA, PROMPTS, SETTINGS, PROTOCOL, MAX_TOKENS, OUT = sys.argv[1:]
MAX_TOKENS = int(MAX_TOKENS)
tokenizer = AutoTokenizer.from_pretrained(MODEL)
model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()


def longbench(form: str, item: dict, task: str, new: int) -> str:
    prompt = form.format(**item)
    ids = tokenizer(prompt, truncation=False, return_tensors="pt").input_ids[0]
    if len(ids) > MAX_TOKENS:
        half = int(MAX_TOKENS / 2)
        prompt = (tokenizer.decode(ids[:half], skip_special_tokens=True)
                  + tokenizer.decode(ids[-half:], skip_special_tokens=True))
    inputs = tokenizer(prompt, truncation=False, return_tensors="pt").input_ids
    more = {}
    if task == "samsum":
        newline = tokenizer.encode("\n", add_special_tokens=False)[-1]
        more = {"min_length": inputs.shape[1] + 1, "eos_token_id": [tokenizer.eos_token_id, newline]}
    out = model.generate(inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=new, num_beams=1, do_sample=False,
                         pad_token_id=tokenizer.eos_token_id, **more)[0]
    return tokenizer.decode(out[inputs.shape[1]:], skip_special_tokens=True)


def mha2mla(form: str, item: dict, task: str, new: int) -> str:
    most = 8 * MAX_TOKENS
    context = item["context"]
    if len(context) > most:
        context = context[:most // 2] + context[-(most // 2):]
    ids = tokenizer(form.format(context=context, input=item["input"])).input_ids
    longest = MAX_TOKENS - new
    half = longest // 2
    if len(ids) > longest:
        ids = ids[:longest - half] + ids[-half:]
    inputs = torch.tensor([ids])
    out = model.generate(inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=new, num_beams=1, do_sample=False,
                         pad_token_id=tokenizer.eos_token_id)[0]
    return tokenizer.decode(out[len(ids):])


prompts = json.load(open(PROMPTS))["prompts"]
settings = json.load(open(SETTINGS))["tasks"]
for file in sorted(pathlib.Path(DATA).glob("*.jsonl")):
    with open(pathlib.Path(OUT) / file.name, "w", encoding="utf-8") as out:
        for line in open(file, encoding="utf-8"):
            item = json.loads(line)
            make = {"longbench": longbench, "mha2mla": mha2mla}[PROTOCOL]
            pred = make(prompts[file.stem], item, file.stem, settings[file.stem]["max_new_tokens"])
            json.dump({"pred": pred, "answers": item["answers"], "all_classes": item["all_classes"],
                       "length": item["length"], "dataset": item["dataset"], "_id": item["_id"]}, out, ensure_ascii=False)
            out.write("\n")

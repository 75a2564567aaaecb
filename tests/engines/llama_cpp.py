#!/usr/bin/env python3
"""Runs a GGUF file in llama.cpp (PyPI: xllamacpp) and writes what it computes.

usage: llama_cpp.py FILE.gguf QUESTION.json ANSWER.safetensors

QUESTION.json: {"ids": a text, "from": a position, "greedy": a number of tokens, "vocab": of the model, "texts": [...]}.
ANSWER.safetensors: `logprobs`, log-probabilities of all tokens behind each prefix of at least `from` tokens; `greedy`, the ids that follow
the whole text at temperature 0, never the one that ends a text; `cache_bytes` per token, in F32, as llama.cpp reports its KV cache;
`text_<i>`, the ids of each of `texts`.
"""
import json
import os
import re
import sys
import tempfile
import urllib.request

import numpy as np
import xllamacpp
from safetensors.numpy import save_file

file, question, answer = sys.argv[1:]
question = json.load(open(question))
ids = question["ids"]

params = xllamacpp.CommonParams()
params.model.path = file
params.n_ctx = params.n_batch = 256
params.n_parallel = params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.warmup = False
params.verbosity = 4
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED


def complete(server, prompt, count, probabilities):
    result = server.handle_completions({"prompt": prompt, "n_predict": count, "n_probs": probabilities, "temperature": 0,
                                        "post_sampling_probs": False, "ignore_eos": True})
    result = json.loads(result) if isinstance(result, str) else result
    return result["choices"][0]["logprobs"]["content"]


def tokenize(server, text):
    question = json.dumps({"content": text, "add_special": True}).encode()
    request = urllib.request.Request(server.listening_address + "/tokenize", question, {"Content-Type": "application/json"})
    return np.array(json.load(urllib.request.urlopen(request))["tokens"], np.float32)


def run():
    server = xllamacpp.Server(params)
    rows = np.full((len(ids) - question["from"] + 1, question["vocab"]), np.nan, np.float32)
    for row, length in enumerate(range(question["from"], len(ids) + 1)):
        for token in complete(server, ids[:length], 1, question["vocab"])[0]["top_logprobs"]:
            rows[row, token["id"]] = token["logprob"]
    assert np.isfinite(rows).all(), "llama.cpp left tokens out"
    texts = {f"text_{i}": tokenize(server, text) for i, text in enumerate(question["texts"])}
    return texts, rows, np.array([token["id"] for token in complete(server, ids, question["greedy"], 1)], np.float32)


stderr = os.dup(2)
with tempfile.TemporaryFile() as log:  # messages are written by a thread of its own, all of them when the server is gone
    os.dup2(log.fileno(), 2)
    try:
        texts, rows, greedy = run()
    finally:
        os.dup2(stderr, 2)
        log.seek(0)
        messages = log.read().decode(errors="replace")
        if "rows" not in globals():
            print(messages, file=sys.stderr)
size, cells = re.search(r"KV buffer size =\s*([\d.]+) MiB[\s\S]*?\(\s*(\d+) cells", messages).groups()
save_file(texts | {"logprobs": rows, "greedy": greedy,
                   "cache_bytes": np.array([float(size) * 2**20 / int(cells)], np.float32)}, answer)

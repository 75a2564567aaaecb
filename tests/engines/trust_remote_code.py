#!/usr/bin/env python3
"""Loads checkpoints of layout mha2mla in transformers by the code that lies in them, and writes their logits.

usage: trust_remote_code.py IDS.json CHECKPOINT...

IDS.json holds a list of rows of token ids of one length. Logits go to CHECKPOINT/logits.safetensors. Fails if weights are missing or
left over, or if anything of the following gives something else than the whole rows at once: SDPA, one token after the other with a cache
(which has the size of the latents), rows of a batch with padding on the left, greedy generation, gradient checkpointing, saving and
loading. Fails also if the checkpoint can be loaded without its code.
"""
import json
import os
import pathlib
import sys
import tempfile

modules = tempfile.TemporaryDirectory()
os.environ["HF_MODULES_CACHE"] = modules.name  # where transformers copies code to

import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, DynamicCache  # noqa: E402

VERSION = tuple(map(int, transformers.__version__.split(".")[:2]))
CACHE = "cache" if VERSION >= (5, 24) else "past_key_values"
DTYPE = "dtype" if VERSION >= (5, 0) else "torch_dtype"


def load(checkpoint, auto_class=AutoModelForCausalLM, **options):
    model, info = auto_class.from_pretrained(checkpoint, trust_remote_code=True, output_loading_info=True, **{DTYPE: torch.float32},
                                             **options)
    wrong = {key: value for key, value in info.items() if value}
    if auto_class is AutoModel:
        wrong.pop("unexpected_keys", None)  # the head
    assert not wrong, wrong
    return model.eval()


def assert_near(found, expected, what):
    scale = expected.abs().max().item()
    difference = (found - expected).abs().max().item()
    assert difference <= 1e-4 * scale, f"{what}: {difference} of {scale}"


def widths(config):
    """Numbers of a token and layer that are cached: rotated keys, the rest."""
    mla, heads = config.mha2mla, config.num_key_value_heads
    nope, value, rank = config.head_dim - mla["rope_dim_for_mla"], config.head_dim, mla["kv_rank"]
    rest = {"joint": rank, "split": rank, "only_key": rank + value, "only_value": nope + rank, "none": nope + value}
    return heads * mla["rope_dim_for_mla"], heads * rest[mla["svd_init_method"]]


def slots(cache):
    """Of each layer, what lies in the places of keys and of values."""
    if hasattr(cache, "layers"):
        return [(layer.keys, layer.values) for layer in cache.layers]
    return list(zip(cache.key_cache, cache.value_cache))


def check_cache(model, ids, logits):
    cache = DynamicCache()
    pieces = [ids[:, :5]] + list(ids[:, 5:].split(1, dim=1))
    steps = [model(piece, use_cache=True, **{CACHE: cache}).logits for piece in pieces]
    assert_near(torch.cat(steps, dim=1), logits, "with a cache")
    for layer in slots(cache):
        sizes = [part.numel() // ids.numel() for part in layer]
        expected = widths(model.config)
        assert tuple(sizes) == (expected if expected[0] > 0 else expected[::-1]), (sizes, expected)


def check_padding(model, ids, logits):
    """A shorter row with padding before it, beside a whole one."""
    lead, keep = 7, ids.shape[1] - 7
    padded = torch.cat((torch.zeros_like(ids[:1, :lead]), ids[:1, :keep]), dim=1)
    batch = torch.cat((padded, ids[1:2]))
    mask = torch.ones_like(batch)
    mask[0, :lead] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    found = model(batch, attention_mask=mask, position_ids=positions).logits
    assert_near(found[0, lead:], logits[0, :keep], "with padding")
    assert_near(found[1], logits[1], "beside padding")
    return batch, mask


def check_generation(model, batch, mask):
    """Every token that is generated is the likeliest one behind its row, computed at once; up to a near tie."""
    lead = int((mask[0] == 0).sum())
    caches = ({}, {"cache_implementation": "static"}) if VERSION >= (5, 0) else ({},)  # which had keys and values of head_dim each
    for options in caches:
        length = 6
        tokens = model.generate(batch, attention_mask=mask, max_new_tokens=length, min_new_tokens=length, do_sample=False, pad_token_id=0,
                                **options)
        for row, start in ((0, lead), (1, 0)):
            whole = model(tokens[row:row + 1, start:]).logits[0, -length - 1:-1]
            if model.generation_config.eos_token_id is not None:
                whole[:, model.generation_config.eos_token_id] = -torch.inf  # min_new_tokens forbids it
            chosen = whole.gather(-1, tokens[row, -length:, None])[:, 0]
            assert (whole.max(-1).values - chosen).max() < 1e-3, (options, tokens)


def gradients(model, ids):
    model.train()
    model.zero_grad()
    model(ids, labels=ids, use_cache=False).loss.backward()
    model.eval()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.numel() > 0}
    assert all(gradient.isfinite().all() for gradient in found.values())
    return found


def check_gradients(model, ids):
    expected = gradients(model, ids)
    model.gradient_checkpointing_enable()
    found = gradients(model, ids)
    model.gradient_checkpointing_disable()
    for name, gradient in expected.items():
        assert_near(found[name], gradient, "gradient of " + name)
    assert any(gradient.abs().max() > 0 for name, gradient in expected.items() if ".kv_proj." in name)


def check_saved(model, checkpoint, ids, logits):
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        saved, original = (json.load(open(pathlib.Path(place) / "config.json")) for place in (directory, checkpoint))
        assert saved["model_type"] == original["model_type"], saved["model_type"]
        assert saved["mha2mla"] == original["mha2mla"]
        assert_near(load(directory)(ids).logits, logits, "after saving")


def check_refused(checkpoint):
    for auto_class in (AutoConfig, AutoModelForCausalLM):
        try:
            auto_class.from_pretrained(checkpoint)
        except ValueError as error:
            assert "trust_remote_code" in str(error), error
        else:
            raise AssertionError(f"{auto_class.__name__} loads {checkpoint} without its code")


def check(checkpoint, ids):
    check_refused(checkpoint)
    model = load(checkpoint, attn_implementation="eager")
    assert type(model).__name__ == json.load(open(pathlib.Path(checkpoint) / "config.json"))["architectures"][0], type(model)
    with torch.no_grad():
        logits = model(ids).logits
        check_cache(model, ids, logits)
        sdpa = load(checkpoint, attn_implementation="sdpa")
        assert_near(sdpa(ids).logits, logits, "sdpa")
        check_cache(sdpa, ids, logits)
        for each in (model, sdpa):
            batch, mask = check_padding(each, ids, logits)
        check_generation(sdpa, batch, mask)
        states = load(checkpoint, AutoModel)(ids).last_hidden_state
        assert_near(model.lm_head(states), logits, "AutoModel")
        check_saved(model, checkpoint, ids, logits)
    check_gradients(sdpa, ids)
    save_file({"logits": logits.contiguous()}, pathlib.Path(checkpoint) / "logits.safetensors")


torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
sys.stdin = open(os.devnull)  # nobody who could trust code
ids = torch.tensor(json.load(open(sys.argv[1])))
for checkpoint in sys.argv[2:]:
    try:
        check(checkpoint, ids)
    except Exception as error:
        error.add_note(checkpoint)
        raise

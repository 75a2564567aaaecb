#!/usr/bin/env python3
"""Measures the NLL if each layer has its own split, by combining layers of several conversions.

Converts a small Llama checkpoint with `--rope attention --svd weighted` once for every split. Without refinement layers do not
depend on each other, so layers of all these conversions can be combined; PyTorch computes the NLL, with the factors of keys and
values multiplied. Splits are chosen on calibration text for the same total cache, by the error of a layer's attention output or by
the NLL, changing one layer, or two in opposite directions, as long as this improves it. Token files are raw uint16, without BOS.

  GOLDEN=../shared/golden/TinyStories-656K
  /usr/bin/python3 bench/ragged_splits.py ../shared/models/TinyStories-656K $GOLDEN/calibration_tokens.u16 \\
      $GOLDEN/eval_tokens.u16 --step 1 --spread 4
"""
import argparse
import copy
import itertools
import json
import math
import struct
import sys
import tempfile
from pathlib import Path

import measuring

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
WINDOWS, CONTEXT, ERROR_WINDOWS = 24, 256, 16


def load(torch, directory):
    """config.json and the weights of a checkpoint in one file, as float32."""
    content = (directory / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    weights = {}
    for name, entry in json.loads(content[8:8 + size]).items():
        if name != "__metadata__":
            begin, end = (8 + size + o for o in entry["data_offsets"])
            flat = torch.frombuffer(bytearray(content[begin:end]), dtype=getattr(torch, DTYPES[entry["dtype"]]))
            weights[name] = flat.float().view(entry["shape"])
    return json.loads((directory / "config.json").read_text()), weights


class Llama:
    """A tied Llama of float32, whose layers' keys and values may be replaced."""

    def __init__(self, torch, directory):
        self.torch = torch
        config, self.weights = load(torch, directory)
        self.layers, self.heads = config["num_hidden_layers"], config["num_attention_heads"]
        self.kv_heads, self.bos = config["num_key_value_heads"], config["bos_token_id"]
        self.head_dim = config.get("head_dim") or config["hidden_size"] // self.heads
        self.eps = config["rms_norm_eps"]
        self.embedding = next(self.weights[n] for n in ("model.embed_tokens.weight", "lm_head.weight") if n in self.weights)
        pairs = torch.arange(0, self.head_dim, 2).float() / self.head_dim
        theta = config.get("rope_theta") or config.get("rope_parameters", {}).get("rope_theta", 10000.0)
        self.frequencies = theta ** -pairs

    def of(self, layer, name):
        return self.weights[f"model.layers.{layer}.{name}.weight"]

    def norm(self, x, gain):
        return x * self.torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * gain

    def rotate(self, x, kept):
        """x [windows, tokens, heads, head_dim], kept [heads, pairs]."""
        torch, half = self.torch, self.head_dim // 2
        angles = torch.outer(torch.arange(x.shape[1]).float(), self.frequencies)[:, None] * kept
        c, s = angles.cos(), angles.sin()
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * c - b * s, b * c + a * s], -1)

    def attention(self, layer, h, part=None):
        """Output of a layer's attention for its normed input; `part` is (keys, values, kept pairs) of a conversion."""
        torch, group = self.torch, self.heads // self.kv_heads
        keys, values, kept = part or (self.of(layer, "self_attn.k_proj"), self.of(layer, "self_attn.v_proj"),
                                      torch.ones(self.kv_heads, self.head_dim // 2))
        q, k, v = ((h @ w.T).unflatten(-1, (-1, self.head_dim)) for w in (self.of(layer, "self_attn.q_proj"), keys, values))
        q, k = self.rotate(q, kept.repeat_interleave(group, 0)), self.rotate(k, kept)
        q, k, v = (x.transpose(1, 2) for x in (q, k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)))
        mask = torch.full((h.shape[1],) * 2, -math.inf).triu(1)
        mixed = (q @ k.transpose(-1, -2) / math.sqrt(self.head_dim) + mask).softmax(-1) @ v
        return mixed.transpose(1, 2).flatten(2) @ self.of(layer, "self_attn.o_proj").T

    def forward(self, tokens, parts=None, tap=None):
        functional = self.torch.nn.functional
        x = self.embedding[tokens]
        for layer in range(self.layers):
            h = self.norm(x, self.of(layer, "input_layernorm"))
            out = self.attention(layer, h, parts and parts[layer])
            if tap:
                tap(layer, h, out)
            x = x + out
            h = self.norm(x, self.of(layer, "post_attention_layernorm"))
            gated = functional.silu(h @ self.of(layer, "mlp.gate_proj").T) * (h @ self.of(layer, "mlp.up_proj").T)
            x = x + gated @ self.of(layer, "mlp.down_proj").T
        return self.norm(x, self.weights["model.norm.weight"]) @ self.embedding.T

    def nll(self, tokens, parts=None):
        with self.torch.no_grad():
            logits = self.forward(tokens, parts)[:, :-1].flatten(0, 1)
            return self.torch.nn.functional.cross_entropy(logits, tokens[:, 1:].flatten()).item()

    def windows(self, path, count):
        """[count, CONTEXT], each BOS and then text."""
        ids = self.torch.frombuffer(bytearray(path.read_bytes()), dtype=self.torch.int16).long() & 0xFFFF
        text = ids[:count * (CONTEXT - 1)].view(count, CONTEXT - 1)
        return self.torch.cat([self.torch.full((count, 1), self.bos), text], 1)


def converted_layers(torch, directory, model):
    """(keys, values, kept) of every layer, multiplied out, rows in the original's order."""
    config, weights = load(torch, directory)
    half = model.head_dim // 2
    for layer, heads in enumerate(config["mha2mla"]["kept_pairs"]):
        kept = torch.zeros(model.kv_heads, half)
        for head, pairs in enumerate(heads):
            kept[head, pairs] = 1
        rotated = torch.cat([kept, kept], 1).flatten().bool()
        name = f"model.layers.{layer}.self_attn."
        down = weights[name + "kv_proj.down_kv.weight"]
        keys = torch.empty(model.kv_heads * model.head_dim, down.shape[1])
        keys[rotated] = weights[name + "k_r_proj.weight"]
        keys[~rotated] = weights[name + "kv_proj.up_k.weight"] @ down
        yield keys, weights[name + "kv_proj.up_v.weight"] @ down, kept


def conversions(torch, options, model, numbers):
    """(layer, split) -> part, for splits with a sum near `numbers`."""
    parts = {}
    with tempfile.TemporaryDirectory() as directory:
        stats, out = Path(directory, "stats.safetensors"), Path(directory, "out")
        measuring.run_json(options.program, "calibrate", options.checkpoint, "--tokens", options.calibration, "--samples", 160,
                           "--seq-len", CONTEXT, "--attention-order", "--moments", "--output", stats)
        for numbers_here in range(numbers - options.spread, numbers + options.spread + 1, options.step):
            for rope_dim in options.rope_dims or range(2, min(model.head_dim, numbers_here - 1), 2):
                split = rope_dim, numbers_here - rope_dim
                measuring.run_json(options.program, "convert", options.checkpoint, out, "--stats", stats, "--rope", "attention",
                                   "--svd", "weighted", "--rope-dim", split[0], "--kv-rank", split[1], "--overwrite")
                for layer, part in enumerate(converted_layers(torch, out, model)):
                    parts[layer, split] = part
    return parts


def layer_errors(torch, model, tokens, parts):
    """(layer, split) -> error of the attention's output on the original's hidden states, relative to the output."""
    seen = {}
    with torch.no_grad():
        model.forward(tokens, tap=lambda layer, h, out: seen.__setitem__(layer, (h, out)))
        return {(layer, split): ((model.attention(layer, seen[layer][0], part) - seen[layer][1]).pow(2).sum()
                                 / seen[layer][1].pow(2).sum()).item() for (layer, split), part in parts.items()}


def least_error(errors, layers, numbers):
    """The splits of all layers with the least sum of errors, for a total of layers * numbers."""
    best = {0: (0.0, ())}  # numbers so far -> (error, splits)
    for layer in range(layers):
        reached = {}
        for (spent, (error, chosen)), (of, split) in itertools.product(best.items(), errors):
            if of == layer:
                state = error + errors[layer, split], (*chosen, split)
                reached[spent + sum(split)] = min(reached.get(spent + sum(split), state), state)
        best = reached
    return best[layers * numbers][1]


def improve(measure, splits, chosen):
    """Changes the split of one layer, or moves numbers between two layers, as long as that reduces `measure`."""
    value, moved = measure(chosen), True
    while moved:
        moved = False
        pairs = [(i, i) for i in range(len(chosen))] + list(itertools.permutations(range(len(chosen)), 2))
        for i, j in pairs:
            for a, b in itertools.product(splits, splits if i != j else [None]):
                near = [(a, chosen[i])] + ([(b, chosen[j])] if b else [])
                candidate = tuple(a if k == i else b if k == j and b else s for k, s in enumerate(chosen))
                same_cache = sum(map(sum, candidate)) == sum(map(sum, chosen))
                if same_cache and all(abs(x[0] - y[0]) <= 2 for x, y in near) and candidate != chosen:
                    if (found := measure(candidate)) < value:
                        value, chosen, moved = found, candidate, True
    return chosen


def refine(torch, model, parts, tokens, steps, rate):
    """A copy of the model and its parts after Adam on the divergence from the original's next-token distributions, all layers
    together: W_q, W_o, the rotated keys, and both factors of the rest. A rate of 1 is a matrix's root mean square."""
    torch.manual_seed(0)
    refined, factors, trained = copy.copy(model), [], []
    refined.weights = dict(model.weights)

    def train(matrix):
        trained.append({"params": [matrix.clone().requires_grad_()], "lr": rate * matrix.pow(2).mean().sqrt().item()})
        return trained[-1]["params"][0]

    for layer, (keys, values, kept) in enumerate(parts):
        rotated = torch.cat([kept, kept], 1).flatten().bool()
        u, s, v = torch.linalg.svd(torch.cat([keys[~rotated], values]), full_matrices=False)
        rank = int((s > 1e-4 * s[0]).sum())
        factors.append((rotated, kept, train(keys[rotated]), train(u[:, :rank] * s[:rank].sqrt()),
                        train(s[:rank].sqrt()[:, None] * v[:rank])))
        for name in ("q_proj", "o_proj"):
            key = f"model.layers.{layer}.self_attn.{name}.weight"
            refined.weights[key] = train(model.weights[key])

    def built():
        for rotated, kept, rope, up, down in factors:
            latent = up @ down
            nope = int((~rotated).sum())
            keys = torch.zeros(len(rotated), latent.shape[1]).index_put((rotated.nonzero()[:, 0],), rope)
            yield keys.index_put(((~rotated).nonzero()[:, 0],), latent[:nope]), latent[nope:], kept

    optimiser = torch.optim.Adam(trained)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    for _ in range(steps):
        batch = tokens[torch.randint(len(tokens), (8,))]
        with torch.no_grad():
            wanted = model.forward(batch).log_softmax(-1)
        given = refined.forward(batch, list(built())).log_softmax(-1)
        loss = (wanted.exp() * (wanted - given)).sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        return refined, list(built())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("--program", default="build/release/bin/mha2mla")
    parser.add_argument("--reduction", type=float, default=0.6875)
    parser.add_argument("--spread", type=int, default=6, help="largest difference of a layer's d_r + d_kv from the mean")
    parser.add_argument("--step", type=int, default=2, help="step between the sums d_r + d_kv of a layer")
    parser.add_argument("--rope-dims", type=int, nargs="+", metavar="N", help="the d_r that are tried (default: all)")
    parser.add_argument("--by-error", action="store_true", help="no choices by NLL, which take long in deep models")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--nll-windows", type=int, default=16, metavar="N",
                        help="windows of calibration text for the choice by NLL (default: %(default)s)")
    parser.add_argument("--refine", type=int, default=0, metavar="STEPS",
                        help="then refine every case by gradient descent on the divergence from the original")
    parser.add_argument("--rate", type=float, default=0.05, help="learning rate of these steps (default: %(default)s)")
    options = parser.parse_args()
    measuring.limit_threads(options.threads)
    torch = measuring.import_torch(options.threads)
    model = Llama(torch, options.checkpoint)
    calibration = model.windows(options.calibration, max(ERROR_WINDOWS, options.nll_windows))
    evaluation = model.windows(options.evaluation, WINDOWS)
    numbers = round(2 * model.head_dim * (1 - options.reduction))
    parts = conversions(torch, options, model, numbers)
    splits = sorted({split for _, split in parts})
    layers = range(model.layers)
    errors = layer_errors(torch, model, calibration[:ERROR_WINDOWS], parts)

    def nll(chosen, tokens):
        return model.nll(tokens, [parts[layer, split] for layer, split in zip(layers, chosen)])

    def on_calibration(chosen):
        return nll(chosen, calibration[:options.nll_windows])

    same = [(s,) * model.layers for s in splits if sum(s) == numbers]
    usual = {key: e for key, e in errors.items() if sum(key[1]) == numbers}
    cases = [("one split, by error", min(same, key=lambda c: sum(errors[k] for k in zip(layers, c)))),
             ("one split, by NLL", min(same, key=on_calibration)),
             ("d_r by layer, by error", least_error(usual, model.layers, numbers)),
             ("all by layer, by error", least_error(errors, model.layers, numbers))]
    if not options.by_error:
        usual = [s for s in splits if sum(s) == numbers]
        cases.append(("d_r by layer, by NLL", improve(on_calibration, usual, cases[1][1])))
        cases.append(("all by layer, by NLL", improve(on_calibration, splits, min((c for _, c in cases), key=on_calibration))))
    everything = model.windows(options.calibration, options.calibration.stat().st_size // 2 // (CONTEXT - 1))
    print(f"| {options.checkpoint.name} | splits | mean error | NLL, calibration | NLL | refined |\n|---|---|---|---|---|---|")
    print(f"| original | | | {model.nll(calibration[:options.nll_windows]):.4f} | {model.nll(evaluation):.4f} | |")
    done = {}
    for name, chosen in cases:
        if options.refine and chosen not in done:
            used = [parts[key] for key in zip(layers, chosen)]
            refined, built = refine(torch, model, used, everything, options.refine, options.rate)
            done[chosen] = f"{refined.nll(evaluation, built):.4f}"
        error = sum(errors[key] for key in zip(layers, chosen)) / model.layers
        print(f"| {name} | {', '.join(f'{a} + {b}' for a, b in chosen)} | {error:.4f} | {on_calibration(chosen):.4f} | "
              f"{nll(chosen, evaluation):.4f} | {done.get(chosen, '')} |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

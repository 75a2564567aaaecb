#!/usr/bin/env python3
"""Measures every selection and factorisation, and the aligned method, on small real checkpoints, before any fine-tuning.

Runs `mha2mla calibrate`, `convert` and `eval` for one conversion after the other, and evaluates on text that was not used for
calibration. Writes a row for every conversion to NAME-MODEL.json, a drawing of them to NAME-MODEL.svg, and tables to stdout. Rows
that are already in the file are not measured again, so that an interrupted run can be resumed. Needs only Python's standard
library.

  python3 bench/study.py
  python3 bench/study.py --models kjv-1.8M --parts fast stages

Parts:
  fast         the default method at each budget
  stages       every selection x factorisation x budget x split; one statistics file per model
  sensitivity  `fast` at -68.75% on other texts, more or less text, longer and shorter sequences, and with other splits;
               also without refinement on the same texts
  pieces       the attention order from disjoint pieces of the calibration text
  best         --quality best at each budget, which takes the longest time
  layouts      --layout deepseek with every quality and with other frequencies, and --method transmla
"""
import argparse
import itertools
import json
import os
import resource
import sys
from pathlib import Path

import measuring
import study_models
import study_report

BUDGETS = (0.6875, 0.5, 0.8125)  # shares of the KV cache that are saved
SHARED_KEY_BUDGETS = (0.5, 0.6875, 0.8125, 0.875, 0.9375)
FREQUENCY_BUDGETS = (0.6875, 0.8125)
SELECTIONS = ("high", "low", "uniform", "2-norm", "attention")
FACTORISATIONS = {
    "joint": ("--svd", "joint"),
    "split": ("--svd", "split"),
    "whitened": ("--svd", "whitened", "--kv-balance", "auto"),
    "weighted": ("--svd", "weighted", "--kv-balance", "auto")}
PHASES = {f"{name}, phases": (*FACTORISATIONS[name], "--nope-phase", "fitted") for name in ("whitened", "weighted")}
SAMPLES, SEQ_LEN = 160, 256  # of calibration, for what is not aligned
ALIGN_SAMPLES = 480
LENGTHS = (16, 64, 160, 480)  # of the calibration text, in sequences
ALIGN_LENGTHS = (128, 512)  # of a sequence, beside SEQ_LEN
CONTEXT, WINDOWS = 256, 24
CONTEXTS = (64, 128, 256, 512, 1024)
PIECES = 8


class Study:
    """The rows of one model, by a key that identifies the conversion."""

    def __init__(self, options, model):
        self.program, self.model, self.best_budgets = options.program, model, options.best_budgets
        self.work = options.work / model.name
        self.work.mkdir(parents=True, exist_ok=True)
        self.path = Path(f"{options.name}-{model.name}.json")
        self.data = json.loads(self.path.read_text()) if self.path.exists() else {"model": model.name, "rows": {}}
        if "head_dim" not in self.data:
            self.data["head_dim"] = self.run("inspect", model.checkpoint)["head_dim"]
            self.data["original"] = self.evaluate(model.checkpoint, model.contexts(CONTEXTS))
        self.data["calibration"] = model.calibration.name
        self.head_dim, self.rows = self.data["head_dim"], self.data["rows"]

    def run(self, *arguments):
        return measuring.run_json(self.program, *arguments)

    def evaluate(self, checkpoint, contexts=(CONTEXT,)):
        """The NLL for each context, on the same tokens except for the last few."""
        text = self.model.evaluation.options("")
        return {str(c): self.run("eval", checkpoint, *text, "--context", c, "--max-windows", CONTEXT * WINDOWS // c)["nll"]
                for c in contexts}

    def statistics(self, text, samples):
        path = self.work / f"{text.name}-{samples}.safetensors"
        if not path.exists():
            self.run("calibrate", self.model.checkpoint, *text.options(""), "--samples", samples, "--seq-len", SEQ_LEN,
                     "--attention-order", "--moments", "--output", path)
        return path

    def convert(self, key, *options, contexts=(CONTEXT,), pairs=False, **fields):
        """The row of `key`; converts and evaluates if it does not exist yet. `seconds` is processor time."""
        if key in self.rows:
            return self.rows[key]
        out = self.work / "converted"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        report = self.run("convert", self.model.checkpoint, out, *options, "--overwrite")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = sum(getattr(after, f) - getattr(before, f) for f in ("ru_utime", "ru_stime"))
        row = {**fields, "rope_dim": report["rope_dim"], "kv_rank": report["kv_rank"],
               "seconds": round(seconds, 2), "nll": self.evaluate(out, contexts)}
        if pairs:
            row["pairs"] = json.loads((out / "config.json").read_text())["mha2mla"]["kept_pairs"]
        self.rows[key] = row
        self.save()
        print(f"{self.model.name}: {key}: {row['rope_dim']} + {row['kv_rank']}, NLL {row['nll'][str(CONTEXT)]:.4f}, "
              f"{seconds:.1f} s", file=sys.stderr)
        return row

    def save(self):
        """Writes one row per line, atomically."""
        head = {k: v for k, v in self.data.items() if k != "rows"}
        rows = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in self.rows.items())
        text = json.dumps(head)[:-1] + ', "rows": {\n' + rows + "\n}}\n"
        partial = self.path.with_suffix(".partial")
        partial.write_text(text)
        partial.replace(self.path)

    def aligned(self, quality, budget, text=None, samples=ALIGN_SAMPLES, seq_len=SEQ_LEN):
        """Measures the aligned method, in every context if the text is the usual one. `best` uses the whole text."""
        usual = (text, samples, seq_len) == (None, ALIGN_SAMPLES, SEQ_LEN)
        contexts = self.model.contexts(CONTEXTS) if text is None else (CONTEXT,)
        text = text or self.model.calibration
        amount = "all" if quality == "best" else samples
        key = f"aligned {quality} {budget}" + ("" if usual else f" {text.name} {amount} x {seq_len}")
        return self.convert(key, *text.options("calibration-"), "--layout", "mha2mla", "--seq-len", seq_len,
                            "--kv-reduction", budget, "--quality", quality, *([] if quality == "best" else ["--samples", samples]),
                            contexts=contexts, part="aligned", quality=quality, budget=budget, text=text.name,
                            samples=None if quality == "best" else samples, seq_len=seq_len)

    def shared_key(self, quality, budget):
        """Measures the layout with one rotated key, on the text and tokens of aligned()."""
        text = self.model.calibration
        return self.convert(f"deepseek {quality} {budget}", *text.options("calibration-"), "--layout", "deepseek",
                            "--seq-len", SEQ_LEN, "--kv-reduction", budget, "--quality", quality,
                            *([] if quality == "best" else ["--samples", ALIGN_SAMPLES]), part="shared key",
                            quality=quality, budget=budget)

    def other_frequencies(self, frequencies, budget):
        """Measures `fast` with one rotated key at other frequencies than an engine's."""
        return self.convert(f"deepseek fast {frequencies} {budget}", *self.model.calibration.options("calibration-"),
                            "--layout", "deepseek", "--rope-frequencies", frequencies, "--seq-len", SEQ_LEN,
                            "--kv-reduction", budget, "--samples", ALIGN_SAMPLES, part="frequencies",
                            frequencies=frequencies, budget=budget)

    def transmla(self, budget):
        """Measures TransMLA's conversion on the text and tokens of aligned()."""
        return self.convert(f"transmla {budget}", *self.model.calibration.options("calibration-"), "--method", "transmla",
                            "--seq-len", SEQ_LEN, "--kv-reduction", budget, "--samples", ALIGN_SAMPLES, part="transmla",
                            budget=budget)

    def aligned_split(self, budget, rope_dim):
        """Measures `fast` with a given split."""
        return self.convert(f"aligned fast {budget} rope-dim {rope_dim}", *self.model.calibration.options("calibration-"),
                            "--method", "aligned", "--layout", "mha2mla", "--seq-len", SEQ_LEN, "--samples", ALIGN_SAMPLES, "--kv-reduction", budget,
                            "--rope-dim", rope_dim, part="aligned split", budget=budget)

    def stages(self, selection, factorisation, budget, rope_dim, text=None, samples=SAMPLES):
        usual = text is None and samples == SAMPLES
        text = text or self.model.calibration
        key = f"{selection} {factorisation} {budget} {rope_dim}" + ("" if usual else f" {text.name} {samples}")
        default = (selection, factorisation, rope_dim) == ("2-norm", "joint", default_rope_dim(self.head_dim))
        return self.convert(key, "--stats", self.statistics(text, samples), "--rope", selection,
                            *(FACTORISATIONS | PHASES)[factorisation], "--rope-dim", rope_dim, "--kv-reduction", budget,
                            contexts=self.model.contexts(CONTEXTS) if default and usual else (CONTEXT,), part="stages",
                            selection=selection, factorisation=factorisation, budget=budget, text=text.name,
                            samples=samples)


def default_rope_dim(head_dim):
    """The paper's rope-dim."""
    return max(2, head_dim // 8)


def budgets(model, head_dim):
    """The budgets of the study, and for small heads all others that are possible."""
    every = [1 - numbers / (2 * head_dim) for numbers in range(3, 2 * head_dim - 1)] if model.every_budget else []
    return list(dict.fromkeys([*BUDGETS, *every]))


def splits(study, budget):
    """The rope-dims in steps of an eighth of a head, and the one that `fast` chose, if they leave room for the latent."""
    step, numbers = default_rope_dim(study.head_dim), round(2 * study.head_dim * (1 - budget))
    steps = range(step, min(study.head_dim, numbers), step)
    return numbers, sorted({study.aligned("fast", budget)["rope_dim"], *steps})


def measure_fast(study):
    for budget in budgets(study.model, study.head_dim):
        study.aligned("fast", budget)


def measure_best(study):
    for budget in study.best_budgets:
        study.aligned("best", budget)
    if BUDGETS[0] in study.best_budgets and 512 in study.model.contexts(ALIGN_LENGTHS):
        study.aligned("best", BUDGETS[0], seq_len=512)


def measure_stages(study):
    cases = [(s, f) for s, f in itertools.product(SELECTIONS, FACTORISATIONS)] + [("attention", f) for f in PHASES]
    for budget in budgets(study.model, study.head_dim):
        numbers, rope_dims = splits(study, budget)
        for rope_dim, (selection, factorisation) in itertools.product(rope_dims, cases):
            halves = 2 <= numbers - rope_dim <= 2 * (study.head_dim - rope_dim) + 1  # a latent each for NoPE keys and values
            if halves or factorisation != "split":
                study.stages(selection, factorisation, budget, rope_dim)


def measure_sensitivity(study):
    budget = BUDGETS[0]
    rope_dim = study.aligned("fast", budget)["rope_dim"]
    for samples in LENGTHS:
        study.aligned("fast", budget, samples=samples)
        study.stages("attention", "weighted", budget, rope_dim, samples=samples)
    for seq_len in study.model.contexts(ALIGN_LENGTHS):
        study.aligned("fast", budget, samples=ALIGN_SAMPLES * SEQ_LEN // seq_len, seq_len=seq_len)
    for text in study.model.other_texts:
        study.aligned("fast", budget, text)
        study.stages("attention", "weighted", budget, rope_dim, text, max(LENGTHS))
    for other in splits(study, budget)[1]:
        study.aligned_split(budget, other)


def measure_pieces(study):
    """Measures partial RoPE with K and V at full rank, so that only the order of pairs differs."""
    for i, text in enumerate(study.model.calibration.pieces(PIECES, study.work)):
        stats = study.work / f"piece-{i}.safetensors"
        for rope_dim in (study.head_dim // 4, study.head_dim // 2):
            key = f"piece {i} {rope_dim}"
            if key not in study.rows and not stats.exists():
                study.run("calibrate", study.model.checkpoint, *text.options(""), "--samples", 8, "--seq-len", SEQ_LEN,
                          "--attention-order", "--output", stats)
            study.convert(key, "--stats", stats, "--rope", "attention", "--svd", "none", "--rope-dim", rope_dim,
                          pairs=True, part="pieces")


def measure_layouts(study):
    """Measures one rotated key for all heads beside one for each KV head, at the budgets that both can spend."""
    for budget in SHARED_KEY_BUDGETS:
        for quality in ("none", "fast"):
            study.shared_key(quality, budget)
        if budget in study.best_budgets:
            study.shared_key("best", budget)
        study.transmla(budget)
        if budget not in BUDGETS and round(2 * study.head_dim * (1 - budget)) >= 3:
            study.aligned("fast", budget)
    for budget in FREQUENCY_BUDGETS:
        for frequencies in ("shared", "free"):
            study.other_frequencies(frequencies, budget)


PARTS = {"fast": measure_fast, "stages": measure_stages, "sensitivity": measure_sensitivity, "pieces": measure_pieces,
         "best": measure_best, "layouts": measure_layouts}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/release/bin/mha2mla")
    parser.add_argument("--shared", type=Path, default=Path("../shared"), metavar="DIR",
                        help="directory of the checkpoints and texts that are not in examples/ (default: %(default)s)")
    parser.add_argument("--name", default="docs/figures/study", help="NAME-MODEL.json and .svg (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("build/study"), metavar="DIR",
                        help="directory for statistics and the current conversion (default: %(default)s)")
    parser.add_argument("--models", nargs="+", choices=study_models.NAMES, default=study_models.NAMES)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--best-budgets", nargs="+", type=float, default=BUDGETS, metavar="X",
                        help="savings for which `best` is measured (default: %(default)s)")
    parser.add_argument("--report-only", action="store_true", help="only make tables and drawings of the existing files")
    options = parser.parse_args()
    for name, value in (("OMP_NUM_THREADS", "1"), ("OMP_WAIT_POLICY", "passive")):
        os.environ.setdefault(name, value)  # `seconds` are of one thread
    if options.report_only:
        rows = [json.loads(path.read_text()) for name in options.models
                if (path := Path(f"{options.name}-{name}.json")).exists()]
    else:
        studies = [Study(options, model) for model in study_models.find(options)]
        for part in options.parts:
            for study in studies:
                PARTS[part](study)
        rows = [study.data for study in studies]
    for data in rows:
        if study_report.has_stages(data):
            Path(f"{options.name}-{data['model']}.svg").write_text(study_report.draw(data))
    sys.stdout.write(study_report.tables(rows))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""NLL of conversions on more and more calibration text: what the second moments need, and where more brings nothing.

  python3 bench/calibration_tokens.py MODEL --text wikitext-2.valid.txt --eval-text wikitext-2-raw.test.txt
"""
import argparse
import tempfile
from pathlib import Path

import measuring


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--eval-text", type=Path, required=True)
    parser.add_argument("--samples", type=int, nargs="+", default=[4, 8, 16, 32, 64, 128], help="(default: %(default)s)")
    parser.add_argument("--seq-len", type=int, default=1024, help="(default: %(default)s)")
    parser.add_argument("--qualities", nargs="+", default=["none"], help="(default: %(default)s)")
    parser.add_argument("--kv-reduction", type=float, default=0.6875, help="(default: %(default)s)")
    parser.add_argument("--rope-dim", type=int, help="one split for all; default: what each conversion chooses")
    parser.add_argument("--context", type=int, default=512, help="(default: %(default)s)")
    parser.add_argument("--windows", type=int, default=12, help="(default: %(default)s)")
    measuring.add_build_option(parser)
    options = parser.parse_args()
    program = measuring.built(options.build, "bin/mha2mla")
    split = ["--rope-dim", options.rope_dim] if options.rope_dim else []
    print("| quality | calibration tokens | split | NLL |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        for quality in options.qualities:
            for samples in options.samples:
                made = measuring.run_json(program, "convert", options.model, Path(place, "out"), "--quality", quality,
                                          "--kv-reduction", options.kv_reduction, *split, "--calibration-text", options.text,
                                          "--samples", samples, "--seq-len", options.seq_len, "--overwrite")
                scored = measuring.run_json(program, "eval", Path(place, "out"), "--text", options.eval_text, "--context",
                                            options.context, "--max-windows", options.windows)
                print(f"| {quality} | {samples * options.seq_len:,} | {made['rope_dim']} + {made['kv_rank']} | {scored['nll']:.4f} |",
                      flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Makes blocks.safetensors: values, the blocks that other programs make of them, and the values of these blocks.

usage: make_blocks.py OUT.safetensors, in the environment of tools/test_venv.sh

F16, BF16, Q8_0, Q5_0 and Q4_0 are quantised by the gguf package, Q4_K by llama.cpp's reference quantiser. Blocks of the types that are only
read are random. `<type>` holds bytes, `<type>.values` what the gguf package makes of them.
"""
import ctypes
import glob
import os
import sys

import gguf
import numpy as np
import xllamacpp
from safetensors.numpy import save_file

random = np.random.default_rng(1)
rows = random.standard_normal((12, 256)).astype(np.float32)
rows[1] *= 1e-3
rows[2] *= 100
rows[3] = 0
rows[4] = np.abs(rows[4])
rows[5] = -np.abs(rows[5])
rows[6, ::32] = 50  # an outlier in each small block
rows[7, 32:64] = 0
rows[8] = 0.25
rows[9, :128] *= 30
rows[10] = np.round(rows[10] * 4) / 4  # ties
rows[11] = np.linspace(-1, 1, 256)

out = {"values": rows}
for name in ("F16", "BF16", "Q8_0", "Q5_0", "Q4_0"):
    out[name.lower()] = gguf.quantize(rows, gguf.GGMLQuantizationType[name]).view(np.uint8)

library = ctypes.CDLL(glob.glob(os.path.dirname(xllamacpp.__file__) + "/*.so")[0])
blocks = np.zeros((12, 144), np.uint8)
library.quantize_row_q4_K_ref(rows.ctypes.data_as(ctypes.c_void_p), blocks.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(rows.size))
out["q4_k"] = blocks

for name, places in (("Q4_1", (0, 2)), ("Q5_1", (0, 2)), ("Q5_K", (0, 2)), ("Q6_K", (208,))):
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]][1]
    blocks = random.integers(0, 256, (4, size), np.uint8)
    for place in places:  # scales must be finite
        blocks[:, place:place + 2] = random.standard_normal((4, 1)).astype(np.float16).view(np.uint8)
    out[name.lower()] = blocks
for name in [name for name in out if name != "values"]:
    out[name + ".values"] = gguf.dequantize(out[name], gguf.GGMLQuantizationType[name.upper()]).astype(np.float32)
save_file({name: np.ascontiguousarray(array) for name, array in out.items()}, sys.argv[1])

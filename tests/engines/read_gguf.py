#!/usr/bin/env python3
"""Reads a GGUF file by the gguf package and writes its tensors as F32.

usage: read_gguf.py FILE.gguf TENSORS.safetensors KEYS.json

KEYS.json: every key with its value, and `types` with the type of each tensor.
"""
import json
import sys

import gguf
import numpy as np
from safetensors.numpy import save_file

file, tensors, keys = sys.argv[1:]
reader = gguf.GGUFReader(file)
save_file({t.name: np.ascontiguousarray(gguf.dequantize(t.data, t.tensor_type).astype(np.float32)
                                        .reshape([int(n) for n in reversed(t.shape)])) for t in reader.tensors}, tensors)
content = {name: field.contents() for name, field in reader.fields.items()}
content["types"] = {t.name: t.tensor_type.name.lower() for t in reader.tensors}
json.dump(content, open(keys, "w"))

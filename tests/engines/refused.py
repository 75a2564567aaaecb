#!/usr/bin/env python3
"""Fails if transformers loads a checkpoint, with or without leave to run code of it. usage: refused.py CHECKPOINT"""
import os
import sys

from transformers import AutoModelForCausalLM

sys.stdin = open(os.devnull)  # nobody who could trust code
for trust in (None, False, True):
    try:
        AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=trust)
    except (ValueError, KeyError):
        continue
    raise AssertionError(f"trust_remote_code={trust} loads {sys.argv[1]}")

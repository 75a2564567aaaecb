#!/usr/bin/env python3
"""What Python makes of texts, for the test of LongBench's metrics.
Usage: python_text.py ratios PAIRS.json  |  python_text.py characters

ratios: the difflib ratio of each pair, as a JSON list.
characters: the version of Unicode; then for each code point in a line: its kinds (s white space, w word, d digit), how
a sigma is lowered beside it (f final, n not; four places), and its lower case in hexadecimal."""
import difflib
import json
import re
import sys
import unicodedata


def place(text: str) -> str:
    return "f" if "\u03c2" in text.lower() else "n"


if sys.argv[1] == "ratios":
    pairs = json.load(open(sys.argv[2], encoding="utf-8"))
    print(json.dumps([difflib.SequenceMatcher(None, a, b).ratio() for a, b in pairs]))
else:
    print(unicodedata.unidata_version)
    word, digit = re.compile(r"\w"), re.compile(r"\d")
    lines = []
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000:
            continue
        c = chr(code)
        kinds = ("s" if not c.split() else "") + ("w" if word.match(c) else "") + ("d" if digit.match(c) else "")
        sigma = place(c + "\u03a3") + place("a" + c + "\u03a3") + place("a\u03a3" + c) + place("a\u03a3" + c + "a")
        lines.append(f"{kinds} {sigma} {' '.join(format(ord(x), 'x') for x in c.lower())}")
    print("\n".join(lines))

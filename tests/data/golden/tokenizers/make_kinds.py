#!/usr/bin/env python3
"""Makes kinds.json beside it: a small tokenizer.json of each kind, and what the tokenizers library makes of some texts.

usage: make_kinds.py      with the python that tools/test_venv.sh prints

Each entry has `name`, `tokenizer`, and per text of `texts`: `ids` (with special tokens), `decoded` from these and
`skipped`, decoded without special tokens. In most of them every character is written as its bytes, the ids 0 to 255, and
a ¶ (256) stands before each word, so that the ids show where words begin and what a normalizer made of the text. Their
model stands once, as `byte_model`, and theirs is null.
"""
import base64
import json
import pathlib
import struct

import tokenizers

TEXTS = [
    "", " ", "   ", "\n", "\r\n\r\n \n\r\t", "a", "Hello, world! It's 3.14 (or so)...",
    "  two  spaces\tand a tab ", "e\u0301 \u00e9 \u1e69 q\u0323\u0307 \u0130I\u0131 \u01c5", "\ufb01 \u2460 \u00bd \uff21\uff22 \u3300 \u212b \u1e9b\u0323",
    "\u6f22\u5b57\u304b\u306a\u30ab\u30ca \ud55c\uad6d\uc5b4\u3001\u7d42\u308f\u308a\u3002", "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd\u061f 12\u0663\u0664",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f1eb\U0001f1f7 \u2764\ufe0f \U0001f44d\U0001f3fd", "a\x00b\x01c\x07d\x7fe\x85f\u00adg\ufeffh\ufffdi\u200bj\u2028k\u2029l\u180em",
    "\u00a0\u3000\u2003x\u1680", "$100 + 5% = ~a^b|c`d <x> @#&*_-\u2014\u2026\u00a7\u00b6\u20ac\u00ab\u00bb", "x86_64 2\u00b2 \u216b \u0967\u0968 \u0e51 CamelCaseWord snake_case",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0ba4\u0bae\u0bbf\u0bb4\u0bcd \u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22", "<s>a<|x|> b </s> <S> [MASK]c", "aaaaabbbbb ab aab abb unaffable \u2581a\u2581\u2581b", "f\u0301\u0301\u0301\u20dd \u0301lead",
    "don't won't  I'LL", "a\nb\n\n\nc\r\nd\re", "\u1100\u1161\u11a8 \uac01 \u0041\u030a", "z" * 40 + " " * 30 + "\u00e9" * 20,
]

BYTES = {f"<0x{b:02X}>": b for b in range(256)} | {"\u00b6": 256, "<unk>": 257, "<s>": 258, "</s>": 259}
MARK = {"type": "Metaspace", "replacement": "\u00b6", "prepend_scheme": "always", "split": False}
BACK = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}


def file_of(model, **parts):
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": None, "post_processor": None, "decoder": None, "model": model} | parts


BYTE_MODEL = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
              "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": True, "vocab": BYTES, "merges": []}


def by_bytes(**parts):
    return file_of(BYTE_MODEL, **({"decoder": BACK} | parts))


def words(*steps):
    """Bytes, where these steps begin words."""
    return by_bytes(pre_tokenizer={"type": "Sequence", "pretokenizers": [*steps, MARK]})


def regex(pattern, behavior="Isolated", invert=False):
    return words({"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert})


def added(token_id, content, **more):
    return {"id": token_id, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True} | more


def unigram(pieces, **more):
    return {"type": "Unigram", "unk_id": 0, "byte_fallback": False, "vocab": pieces} | more


PIECES = [["<unk>", 0.0], ["<s>", 0.0], ["</s>", 0.0], ["\u2581", -2.5], ["a", -3.1], ["b", -3.2], ["ab", -5.9], ["aab", -6.5],
          ["aa", -6.2], ["\u2581a", -5.0], ["e", -3.0], ["o", -3.3], ["l", -3.4], ["ll", -6.8], ["ello", -9.0], ["H", -4.0],
          ["\u6f22", -8.0], ["\u5b57", -8.0], ["\u6f22\u5b57", -10.0], [",", -4.0], ["n", -3.5], ["un", -6.0], ["\u0301", -9.5], ["z", -2.0],
          ["zzzz", -8.0], ["\u00e9", -7.0], ["\u00e9\u00e9\u00e9", -20.9]]
BYTE_PIECES = [[name, -12.5] for name in list(BYTES)[:256]]
METASPACE = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
WORD_PIECES = ["[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##a", "##b", "ab", "un", "##aff", "##able", "hello", "world", "!", ",",
               ".", "'", "it", "s", "3", "##14", "14", "\u6f22", "z", "##z", "##zzzz", "##", "e", "don", "t"]
TEMPLATE = {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [258], "tokens": ["<s>"]}}}


def charsmap(rules):
    """A double array as Darts makes it, naively: rules are texts and what takes their place."""
    texts, values = b"", {}
    for source, target in rules.items():
        values[source.encode()] = len(texts)
        texts += target.encode() + b"\0"
    units, used = {}, {0}

    def place(prefix, at):  # `at`: the unit of `prefix`
        children = sorted({key[len(prefix)] for key in values if len(key) > len(prefix) and key.startswith(prefix)})
        leaf = prefix in values
        base = 1
        while True:
            wanted = [base ^ child for child in children] + ([base] if leaf else [])
            offset = at ^ base
            if base not in used and offset < 1 << 21 and not used.intersection(wanted) and wanted.count(base) <= 1:
                break
            base += 1
        used.update(wanted)
        used.add(base)
        units[at] = units.get(at, 0) | (offset << 10) | (256 if leaf else 0)
        if leaf:
            units[base] = 0x80000000 | values[prefix]
        for child in children:
            units[base ^ child] = child
        for child in children:
            place(prefix + bytes([child]), base ^ child)

    place(b"", 0)
    array = [units.get(i, 0) for i in range((max(units) | 255) + 1)]
    return base64.b64encode(struct.pack(f"<I{len(array)}I", 4 * len(array), *array) + texts).decode()


CHARSMAP = charsmap({"\ufb01": "fi", "\u2460": "1", "\u00bd": "1/2", "\uff21": "A", "\u3300": "\u30a2\u30d1\u30fc\u30c8", "\u00a0": " ", "\u3000": " ", "\n": " ",
                     "\r\n": " ", "\t": " ", "\u00ad": "", "\ufeff": "", "\u200b": " ", "e\u0301": "\u00e9", "A\u030a": "\u00c5", "\U0001f44d": "+1", "\u2764": "<3",
                     "ab": "AB", "\u00e9": "e"})

SPLITS = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
SETS = [r" ?[^(\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+", r"[a-z&&[^aeiou]]+", r"[a[bc]d]+", r"[^a-z[^\w]]", r"[\W]+", r"[^\W\d]+", r"[[:alpha:]&&[^a-m]]+",
        r"[a-z&&b-y&&[^e]]+", r"[^a&&b]", r"[]a]+", r"[a\]\-b]+", r"[\w&&\P{L}]+", r"[\p{Han}[\p{Hiragana}\p{Katakana}]]+", r"[a-c[^\s]]+", r"[&a]+",
        r"[[^[a-z]]&&\S]+", r"(?i:[A-F[xy]])+", r"[\s&&[^\n]]+", r"^[\w]", r"\w+$", r"(?<=[a-z])(?=[A-Z])", r"[[:punct:]]+", r"[\h]{2}", "[\u00e9-\u00ff]+"]
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SPECIAL = [added(258, "<s>"), added(259, "</s>", lstrip=True), added(260, "<|x|>", rstrip=True, special=False)]

KINDS = {
    **{f"Punctuation {behavior}": words({"type": "Punctuation", "behavior": behavior}) for behavior in SPLITS},
    "Punctuation as in Falcon": words({"type": "Punctuation", "behavior": "Contiguous"},
                                      {"type": "Split", "pattern": {"Regex": "[0-9][0-9][0-9]"}, "behavior": "Isolated", "invert": False}),
    "Punctuation of older files": words({"type": "Punctuation"}),
    "Whitespace": words({"type": "Whitespace"}),
    "WhitespaceSplit": words({"type": "WhitespaceSplit"}),
    "Digits": words({"type": "Digits", "individual_digits": False}),
    "Digits one by one": words({"type": "Digits", "individual_digits": True}),
    "BertPreTokenizer": words({"type": "BertPreTokenizer"}),
    **{f"Split by a string, {behavior}": words({"type": "Split", "pattern": {"String": " "}, "behavior": behavior, "invert": False})
       for behavior in SPLITS},
    "Split by the words of GPT-2": regex(GPT2, "Removed", True),
    **{f"Split by {pattern}": regex(pattern) for pattern in SETS},
    **{f"normalizer {kind}": by_bytes(normalizer={"type": kind})
       for kind in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "ByteLevel", "Nmt")},
    **{f"normalizer Strip {left} {right}": by_bytes(normalizer={"type": "Strip", "strip_left": left, "strip_right": right})
       for left in (True, False) for right in (True, False)},
    **{f"BertNormalizer {clean} {chinese} {accents} {lower}": by_bytes(
        normalizer={"type": "BertNormalizer", "clean_text": clean, "handle_chinese_chars": chinese, "strip_accents": accents,
                    "lowercase": lower})
       for clean, chinese, accents, lower in ((True, True, None, True), (True, False, False, False), (False, True, True, False),
                                              (False, False, None, False))},
    "normalizer NFD, StripAccents, Lowercase": by_bytes(normalizer={"type": "Sequence", "normalizers": [
        {"type": "NFD"}, {"type": "StripAccents"}, {"type": "Lowercase"}]}),
    "Precompiled": by_bytes(normalizer={"type": "Precompiled", "precompiled_charsmap": CHARSMAP}),
    "Unigram": file_of(unigram(PIECES), pre_tokenizer=METASPACE, decoder=METASPACE),
    "Unigram without words": file_of(unigram(PIECES), normalizer={"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
                                     decoder={"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}),
    "Unigram with bytes": file_of(unigram(PIECES + BYTE_PIECES, byte_fallback=True),
                                  pre_tokenizer={**METASPACE, "prepend_scheme": "first", "split": False},
                                  decoder={"type": "Sequence", "decoders": [
                                      {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
                                      {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}),
    "Unigram with some bytes": file_of(unigram(PIECES + BYTE_PIECES[:128], byte_fallback=True), decoder={"type": "Fuse"}),
    "Unigram as in T5": file_of(
        unigram(PIECES, unk_id=0), added_tokens=[added(2, "</s>"), added(27, "<|x|>", lstrip=True)],
        normalizer={"type": "Sequence", "normalizers": [
            {"type": "Precompiled", "precompiled_charsmap": CHARSMAP}, {"type": "Strip", "strip_left": False, "strip_right": True},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u2581"}]},
        pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, METASPACE]},
        post_processor={"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1], "trim_offsets": True, "add_prefix_space": True},
        decoder=METASPACE),
    "Unigram with Nmt and NFKC": file_of(unigram(PIECES), decoder=METASPACE, pre_tokenizer=METASPACE, normalizer={
        "type": "Sequence", "normalizers": [{"type": "Nmt"}, {"type": "NFKC"}, {"type": "Lowercase"}]}),
    "WordPiece as in BERT": file_of(
        {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 30,
         "vocab": {name: i for i, name in enumerate(WORD_PIECES)}},
        added_tokens=[added(i, WORD_PIECES[i]) for i in range(4)],
        normalizer={"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
        pre_tokenizer={"type": "BertPreTokenizer"},
        post_processor={"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
        decoder={"type": "WordPiece", "prefix": "##", "cleanup": True}),
    "WordPiece without cleanup": file_of(
        {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
         "vocab": {name: i for i, name in enumerate(WORD_PIECES)}},
        pre_tokenizer={"type": "Whitespace"}, decoder={"type": "WordPiece", "prefix": "##", "cleanup": False}),
    "WordLevel": file_of({"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "a": 1, "Hello": 2, "ab": 3, ",": 4, "\u6f22\u5b57": 5}},
                         pre_tokenizer={"type": "Whitespace"}),
    "BPE with the suffix of older files": file_of(
        {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": "</w>",
         "fuse_unk": True, "byte_fallback": False,
         "vocab": {"<unk>": 0, "a": 1, "b": 2, "a</w>": 3, "b</w>": 4, "ab</w>": 5, "aa": 6, "e</w>": 7}, "merges": [["a", "b</w>"], ["a", "a"]]},
        pre_tokenizer={"type": "WhitespaceSplit"}, decoder={"type": "BPEDecoder", "suffix": "</w>"}),
    "RobertaProcessing": by_bytes(post_processor={"type": "RobertaProcessing", "sep": ["</s>", 259], "cls": ["<s>", 258],
                                                  "trim_offsets": True, "add_prefix_space": True}, added_tokens=SPECIAL),
    "TemplateProcessing": by_bytes(post_processor=TEMPLATE, added_tokens=SPECIAL),
    "added tokens that are normalized": by_bytes(normalizer={"type": "Lowercase"}, added_tokens=[
        *SPECIAL, added(261, "[mask]", normalized=True, special=False), added(262, "case", normalized=True, single_word=True)]),
}


def main():
    kinds = []
    for name, parts in KINDS.items():
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(parts))
        ids = [tokenizer.encode(text).ids for text in TEXTS]
        shown = parts | {"model": None} if parts["model"] is BYTE_MODEL else parts
        kinds.append({"name": name, "tokenizer": shown, "ids": ids,
                      "decoded": [tokenizer.decode(one, skip_special_tokens=False) for one in ids],
                      "skipped": [tokenizer.decode(one) for one in ids]})
    about = f"Made by make_kinds.py with the Hugging Face tokenizers library (Rust) {tokenizers.__version__}."
    lines = ",\n".join(json.dumps(kind, ensure_ascii=False, separators=(",", ":")) for kind in kinds)
    texts = json.dumps(TEXTS, ensure_ascii=False)
    path = pathlib.Path(__file__).with_name("kinds.json")
    path.write_text(f'{{"about":{json.dumps(about)},\n"texts":{texts},\n"byte_model":{json.dumps(BYTE_MODEL)},\n"kinds":[\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()

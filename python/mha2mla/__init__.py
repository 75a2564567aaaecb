"""The program `mha2mla` from Python, and its conversions of layout mha2mla in transformers.

    import mha2mla

    mha2mla.run(["convert", "SmolLM-135M", "SmolLM-135M-mla", "--calibration-text", "train.txt"])
    mha2mla.plan("SmolLM-135M", kv_reduction=0.875)["converted"]

The import also registers the classes of layout mha2mla with transformers, as soon as transformers itself is imported, so that
AutoModelForCausalLM.from_pretrained() loads such a directory without `trust_remote_code`.
"""
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import files, version
from pathlib import Path
from typing import Any, Union

from . import _registration

__all__ = ["Error", "plan", "program", "run"]
__version__ = version("mha2mla")

Argument = Union[str, "os.PathLike[str]", int, float]


class Error(subprocess.CalledProcessError):
    """The program failed: `returncode` is 1 (the run failed), 2 (wrong usage), 3 (a check missed its threshold) or 130 (interrupted)."""

    def __str__(self) -> str:
        said = (self.stderr or "").strip()
        return f"mha2mla exited with {self.returncode}" + (f": {said}" if said else "")


def program() -> str:
    """Path of the program: the one that was installed with this module, else the one on PATH."""
    installed = [Path(str(file.locate())) for file in files("mha2mla") or [] if file.parent.name == "bin"]
    beside = Path(__file__).parent.parent / "bin" / "mha2mla"  # where `pip install --target` puts it, whatever its records say
    for candidate in [*installed, beside]:
        if candidate.name == "mha2mla" and candidate.is_file():
            return str(candidate.resolve())
    found = shutil.which("mha2mla")
    if found is None:
        raise FileNotFoundError("the program mha2mla is neither beside this module nor on PATH; install the wheel of mha2mla again")
    return found


def run(arguments: Sequence[Argument], *, check: bool = True, capture_output: bool = False) -> "subprocess.CompletedProcess[str]":
    """Runs the program with these arguments, as a shell would.

    It prints to the terminal unless `capture_output`, where the result has `stdout` and `stderr` as text. With `check`, an exit code
    other than 0 raises Error.
    """
    if isinstance(arguments, str):
        raise TypeError('arguments are a list, as in run(["plan", "SmolLM-135M"]), not one string')
    result = subprocess.run([program(), *map(_text, arguments)], capture_output=capture_output, encoding="utf-8", errors="replace")
    if check and result.returncode != 0:
        raise Error(result.returncode, result.args, result.stdout, result.stderr)
    return result


def plan(config: Union[str, "os.PathLike[str]", Mapping[str, Any]], **options: Any) -> dict[str, Any]:
    """What a conversion of `config` would cost and save: the object that `mha2mla plan --json` prints.

    `config` is a directory, a config.json, or its content as a mapping. `options` are those of the command, with underscores:
    plan(directory, kv_reduction=0.8, layout="mha2mla", kv_bits=4); True stands for an option without a value. Reads no weights.
    """
    arguments = ["plan", "--json", "-q"]
    for name, value in options.items():
        if value is None or value is False:
            continue
        option = "--" + name.replace("_", "-")
        arguments += [option] if value is True else [option, _text(value)]
    with tempfile.TemporaryDirectory(prefix="mha2mla-") as directory:
        if isinstance(config, Mapping):
            Path(directory, "config.json").write_text(json.dumps(dict(config)), encoding="utf-8")
            config = directory
        planned: dict[str, Any] = json.loads(run([*arguments, config], capture_output=True).stdout)
    return planned


def _text(argument: Argument) -> str:
    return os.fspath(argument) if isinstance(argument, (str, os.PathLike)) else str(argument)


_registration.register_with_transformers()

"""Tells transformers of the classes of layout mha2mla.

Importing transformers takes seconds, with torch, so it is not imported for those who do not use it: the classes are registered when both it
and mha2mla have been imported, whichever comes first.
"""
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Optional


def register_with_transformers() -> None:
    if "transformers" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _WithTransformers())


class _WithTransformers(importlib.abc.MetaPathFinder):
    """Finds transformers as Python would, once, and registers behind its import."""

    def find_spec(self, name: str, path: Optional[Sequence[str]] = None, target: Optional[ModuleType] = None
                  ) -> Optional[importlib.machinery.ModuleSpec]:
        if name != "transformers":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                _register()

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _register() -> None:
    if importlib.util.find_spec("torch") is None:  # transformers for its tokenizers alone
        return
    try:
        from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

        configurations = import_module(".configuration_mha2mla", __package__)
        models = import_module(".modeling_mha2mla", __package__)
    except ImportError as error:
        warnings.warn(f"the classes of layout mha2mla do not fit this transformers ({error}): its models need trust_remote_code=True",
                      stacklevel=2)
        return
    for name, config in vars(configurations).items():
        model_type = getattr(config, "model_type", "")
        if isinstance(config, type) and model_type.startswith("mha2mla_"):
            start = name[: -len("Config")]
            AutoConfig.register(model_type, config, exist_ok=True)
            AutoModel.register(config, getattr(models, start + "Model"), exist_ok=True)
            AutoModelForCausalLM.register(config, getattr(models, start + "ForCausalLM"), exist_ok=True)

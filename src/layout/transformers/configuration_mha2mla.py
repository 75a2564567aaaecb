"""Configurations of models of layout mha2mla: those of the originals, and the object `mha2mla` that says what their latents are.

https://github.com/JT-Ushio/MHA2MLA has the method; docs/formats.md of the converter has the meaning of every key.
"""
import transformers
from transformers import LlamaConfig, MixtralConfig, Qwen2MoeConfig

# Models with a sliding window are not converted: what these keys say has no effect.
WINDOW_KEYS = ("sliding_window", "use_sliding_window", "max_window_layers", "layer_types")


def as_version_4(keys):
    """`rope_parameters` of version 5 as the keys that version 4 reads."""
    rope = dict(keys.pop("rope_parameters", None) or {})
    if "rope_theta" in rope:
        keys["rope_theta"] = rope.pop("rope_theta")
    if rope.get("rope_type", "default") != "default":
        keys["rope_scaling"] = rope


class LatentKeys:
    """What the configurations have in common, before the class of the original."""

    _auto_class = "AutoConfig"  # so that save_pretrained writes this file too
    base_model_tp_plan = None  # rows of q_proj are not those of one head after the other

    def __init__(self, mha2mla=None, **keys):
        for key in WINDOW_KEYS:
            keys.pop(key, None)
        rope = keys.get("rope_parameters")
        if isinstance(rope, dict) and "full_attention" in rope:
            keys["rope_parameters"] = rope["full_attention"]
        if transformers.__version__.startswith("4."):
            as_version_4(keys)
        super().__init__(**keys)
        self.mha2mla = mha2mla
        if getattr(self, "head_dim", None) is None:
            self.head_dim = self.hidden_size // self.num_attention_heads

    def validate_architecture(self):
        """`head_dim` need not be hidden_size / num_attention_heads."""

    @property
    def projection_bias(self):
        """Of queries, keys and values."""
        return self.attention_bias

    @property
    def output_bias(self):
        return self.attention_bias


class Mha2mlaConfig(LatentKeys, LlamaConfig):
    __init__ = LatentKeys.__init__


# Each family has classes of its own, because a class has one model_type; and its __init__ stands there, because version 5 would make a
# class without one a dataclass.


class Mha2mlaLlamaConfig(Mha2mlaConfig):
    model_type = "mha2mla_llama"
    __init__ = Mha2mlaConfig.__init__


class Mha2mlaMistralConfig(Mha2mlaConfig):
    model_type = "mha2mla_mistral"
    __init__ = Mha2mlaConfig.__init__


class Mha2mlaMinistralConfig(Mha2mlaConfig):
    model_type = "mha2mla_ministral"
    __init__ = Mha2mlaConfig.__init__


class Mha2mlaQwen2Config(Mha2mlaConfig):
    model_type = "mha2mla_qwen2"
    __init__ = Mha2mlaConfig.__init__

    @property
    def projection_bias(self):
        return True

    @property
    def output_bias(self):
        return False


class Mha2mlaMixtralConfig(LatentKeys, MixtralConfig):
    model_type = "mha2mla_mixtral"
    attention_bias = False
    __init__ = LatentKeys.__init__


class Mha2mlaQwen2MoeConfig(LatentKeys, Qwen2MoeConfig):
    model_type = "mha2mla_qwen2_moe"
    attention_bias = False
    __init__ = LatentKeys.__init__

    @property
    def projection_bias(self):
        return self.qkv_bias

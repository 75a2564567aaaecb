"""Models of layout mha2mla: originals whose attention has for each KV head a rotated key, and a latent for the rest of keys and values.

The KV cache of a token and layer holds the rotated keys in the place of keys, and the latent in the place of values. The latent's
numbers lie there in as many heads as keys have, which has no meaning: caches want one number of heads for both.

Of a head of head_dim dimensions, d_r = rope_dim_for_mla rotate, the pairs that `kept_pairs` lists, and come first.
"""
import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaForCausalLM,
    LlamaModel,
    LlamaPreTrainedModel,
    eager_attention_forward,
    rotate_half,
)
from transformers.models.mixtral.modeling_mixtral import MixtralForCausalLM, MixtralModel
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeForCausalLM, Qwen2MoeModel

from .configuration_mha2mla import (
    Mha2mlaLlamaConfig,
    Mha2mlaMinistralConfig,
    Mha2mlaMistralConfig,
    Mha2mlaMixtralConfig,
    Mha2mlaQwen2Config,
    Mha2mlaQwen2MoeConfig,
)

# svd_init_method -> whether keys that do not rotate, and values, are factorised
FACTORISED = {
    "joint": (True, True),
    "split": (True, True),
    "only_key": (True, False),
    "only_value": (False, True),
    "none": (False, False),
}


class LatentKeysAndValues(nn.Module):
    """Projections of hidden states to what is cached of keys that do not rotate and of values, and from there to both.

    What is not factorised is cached as it is, and has an up projection that reads the hidden states.
    """

    def __init__(self, config):
        super().__init__()
        mla, hidden, heads = config.mha2mla, config.hidden_size, config.num_key_value_heads
        method, bias = mla["svd_init_method"], config.projection_bias
        self.has_latent_key, self.has_latent_value = FACTORISED[method]
        self.shared = method == "joint"
        width = heads * mla["kv_rank"] // (2 if method == "split" else 1)
        key_rows = heads * (config.head_dim - mla["rope_dim_for_mla"])
        value_rows = heads * config.head_dim
        if self.shared:
            self.down_kv = nn.Linear(hidden, width, bias=False)
        if self.has_latent_key and not self.shared:
            self.down_k = nn.Linear(hidden, width, bias=False)
        if self.has_latent_value and not self.shared:
            self.down_v = nn.Linear(hidden, width, bias=False)
        self.up_k = nn.Linear(width if self.has_latent_key else hidden, key_rows, bias=bias)
        self.up_v = nn.Linear(width if self.has_latent_value else hidden, value_rows, bias=bias)
        self.cached_of_key = width if self.has_latent_key else key_rows
        self.cached_of_value = width if self.has_latent_value else value_rows

    def compress(self, hidden_states):
        """hidden states [..., hidden] -> what is cached of them [..., cached]."""
        if self.shared:
            return self.down_kv(hidden_states)
        key = self.down_k(hidden_states) if self.has_latent_key else self.up_k(hidden_states)
        value = self.down_v(hidden_states) if self.has_latent_value else self.up_v(hidden_states)
        return torch.cat((key, value), dim=-1)

    def forward(self, cached):
        """what is cached -> keys of all KV heads [..., heads * (head_dim - d_r)], values [..., heads * head_dim]."""
        if self.shared:
            return self.up_k(cached), self.up_v(cached)
        key, value = cached.split((self.cached_of_key, self.cached_of_value), dim=-1)
        return (self.up_k(key) if self.has_latent_key else key), (self.up_v(value) if self.has_latent_value else value)


def in_heads(rows, heads):
    """[batch, length, heads * dim] -> [batch, heads, length, dim]."""
    return rows.unflatten(-1, (heads, rows.shape[-1] // heads)).transpose(1, 2)


def out_of_heads(states):
    """The inverse of in_heads."""
    return states.transpose(1, 2).flatten(-2)


class Mha2mlaAttention(LlamaAttention):
    def __init__(self, config, layer_idx):
        super().__init__(config, layer_idx)
        del self.k_proj, self.v_proj
        hidden, self.heads, self.kv_heads = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
        self.rope_dim = config.mha2mla["rope_dim_for_mla"]
        pairs = config.mha2mla["kept_pairs"][layer_idx]
        self.kept_dims = [kept + [pair + self.head_dim // 2 for pair in kept] for kept in pairs]
        self.kept_on_device = None
        self.q_proj = nn.Linear(hidden, self.heads * self.head_dim, bias=config.projection_bias)
        self.k_r_proj = nn.Linear(hidden, self.kv_heads * self.rope_dim, bias=config.projection_bias)
        self.kv_proj = LatentKeysAndValues(config)
        self.o_proj = nn.Linear(self.heads * self.head_dim, hidden, bias=config.output_bias)

    def kept(self, waves):
        """cos or sin [batch, length, head_dim] -> those of each KV head's pairs [batch, kv_heads, length, d_r]."""
        if self.kept_on_device is None or self.kept_on_device.device != waves.device:
            self.kept_on_device = torch.tensor(self.kept_dims, dtype=torch.long, device=waves.device)
        return waves[..., self.kept_on_device].transpose(1, 2)

    def update(self, cache, key_rope, latent, cache_position):
        """Appends to the cache. Returns what it holds now."""
        if cache is None:
            return key_rope, latent
        slots = (key_rope, in_heads(latent, self.kv_heads))
        if self.rope_dim == 0:  # a cache tells its length by its keys
            slots = slots[::-1]
        slots = cache.update(*slots, self.layer_idx, {"cache_position": cache_position})
        key_rope, latent = slots if self.rope_dim > 0 else slots[::-1]
        return key_rope, out_of_heads(latent)

    def forward(
        self,
        hidden_states,
        position_embeddings,
        attention_mask=None,
        cache=None,
        past_key_values=None,  # `cache` before transformers 5.24
        past_key_value=None,  # the same before 4.56
        cache_position=None,
        **kwargs,
    ):
        cache = next((given for given in (cache, past_key_values, past_key_value) if given is not None), None)
        rope_rows = self.heads * self.rope_dim
        queries = self.q_proj(hidden_states).split((rope_rows, self.heads * self.head_dim - rope_rows), dim=-1)
        query_rope, query_nope = (in_heads(part, self.heads) for part in queries)
        key_rope = in_heads(self.k_r_proj(hidden_states), self.kv_heads)

        cos, sin = (self.kept(waves) for waves in position_embeddings)
        key_rope = key_rope * cos + rotate_half(key_rope) * sin
        cos, sin = (waves.repeat_interleave(self.num_key_value_groups, dim=1) for waves in (cos, sin))
        query_rope = query_rope * cos + rotate_half(query_rope) * sin

        latent = self.kv_proj.compress(hidden_states)
        key_rope, latent = self.update(cache, key_rope, latent, cache_position)
        key_nope, values = (in_heads(rows, self.kv_heads) for rows in self.kv_proj(latent))

        attend = ALL_ATTENTION_FUNCTIONS.get(self.config._attn_implementation, eager_attention_forward)
        output, weights = attend(
            self,
            torch.cat((query_rope, query_nope), dim=-1),
            torch.cat((key_rope, key_nope), dim=-1),
            values,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.o_proj(output.flatten(-2)), weights


class LatentLayers:
    """A model with this attention in its layers, before the class of the original."""

    _auto_class = "AutoModel"  # so that save_pretrained writes this file too

    def __init__(self, config):
        super().__init__(config)
        self.rotary_emb.attention_scaling = 1.0  # the queries have it
        for index, layer in enumerate(self.layers):
            layer.self_attn = Mha2mlaAttention(config, index)
        self.post_init()


class Mha2mlaModel(LatentLayers, LlamaModel):
    pass


class Mha2mlaForCausalLM(LlamaForCausalLM):
    _auto_class = "AutoModelForCausalLM"

    def __init__(self, config):
        LlamaPreTrainedModel.__init__(self, config)
        self.model = Mha2mlaModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


class Mha2mlaLlamaModel(Mha2mlaModel):
    config_class = Mha2mlaLlamaConfig


class Mha2mlaLlamaForCausalLM(Mha2mlaForCausalLM):
    config_class = Mha2mlaLlamaConfig


class Mha2mlaMistralModel(Mha2mlaModel):
    config_class = Mha2mlaMistralConfig


class Mha2mlaMistralForCausalLM(Mha2mlaForCausalLM):
    config_class = Mha2mlaMistralConfig


class Mha2mlaMinistralModel(Mha2mlaModel):
    config_class = Mha2mlaMinistralConfig


class Mha2mlaMinistralForCausalLM(Mha2mlaForCausalLM):
    config_class = Mha2mlaMinistralConfig


class Mha2mlaQwen2Model(Mha2mlaModel):
    config_class = Mha2mlaQwen2Config


class Mha2mlaQwen2ForCausalLM(Mha2mlaForCausalLM):
    config_class = Mha2mlaQwen2Config


def load_experts_as(model_type):
    """Version 5 makes one tensor of the experts of a layer when it loads them: of our classes only if it is told."""
    try:
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
    except ImportError:  # version 4 has a module for each expert
        return
    conversions = get_checkpoint_conversion_mapping(model_type)
    register_checkpoint_conversion_mapping("mha2mla_" + model_type, conversions, overwrite=True)


load_experts_as("mixtral")
load_experts_as("qwen2_moe")


class Mha2mlaMixtralModel(LatentLayers, MixtralModel):
    config_class = Mha2mlaMixtralConfig
    _can_record_outputs = {**(getattr(MixtralModel, "_can_record_outputs", None) or {}), "attentions": Mha2mlaAttention}


class Mha2mlaMixtralForCausalLM(MixtralForCausalLM):
    _auto_class = "AutoModelForCausalLM"
    config_class = Mha2mlaMixtralConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = Mha2mlaMixtralModel(config)
        self.post_init()


class Mha2mlaQwen2MoeModel(LatentLayers, Qwen2MoeModel):
    config_class = Mha2mlaQwen2MoeConfig
    _can_record_outputs = {**(getattr(Qwen2MoeModel, "_can_record_outputs", None) or {}), "attentions": Mha2mlaAttention}


class Mha2mlaQwen2MoeForCausalLM(Qwen2MoeForCausalLM):
    _auto_class = "AutoModelForCausalLM"
    config_class = Mha2mlaQwen2MoeConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = Mha2mlaQwen2MoeModel(config)
        self.post_init()

#include "families.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "mha2mla/error.hpp"
#include "rope_rules.hpp"

namespace mha2mla {
namespace {

std::int64_t window_of(const ConfigKeys& keys, std::int64_t fallback = 0) {
    if (keys.is_null("sliding_window") || (fallback == 0 && keys.find("sliding_window") == nullptr)) return 0;
    return keys.dimension("sliding_window", kMaxPositions, fallback);
}

Activation activation_of(const ConfigKeys& keys, const char* key, const std::string& fallback) {
    struct Row {
        const char* name;
        Activation activation;
    };
    static constexpr std::array<Row, 6> kRows = {{
        {"silu", Activation::silu},
        {"swish", Activation::silu},
        {"gelu", Activation::gelu},
        {"gelu_pytorch_tanh", Activation::gelu_tanh},
        {"gelu_new", Activation::gelu_tanh},
        {"relu2", Activation::relu_squared},
    }};
    const std::string name = keys.text(key, fallback);
    std::string known;
    for (const Row& row : kRows) {
        if (name == row.name) return row.activation;
        known += (known.empty() ? "" : ", ") + std::string(row.name);
    }
    keys.refuse(std::string(key) + " '" + name + "' is not supported; supported: " + known);
}

/// Which layers are "sliding_attention": from `layer_types`, or else what `by_default` says of each.
template <typename ByDefault>
std::vector<bool> sliding_layers(const ConfigKeys& keys, const ModelConfig& config, const ByDefault& by_default) {
    std::vector<bool> sliding;
    const auto layers = static_cast<std::size_t>(config.num_hidden_layers);
    const auto* types = keys.find("layer_types");
    if (types == nullptr) {
        for (std::size_t layer = 0; layer < layers; ++layer) {
            sliding.push_back(by_default(static_cast<std::int64_t>(layer)));
        }
        return sliding;
    }
    if (!types->is_array() || types->size() != layers) {
        keys.fail("layer_types", "must list a type for each of " + std::to_string(layers) + " layers");
    }
    for (const auto& type : *types) {
        if (type != "full_attention" && type != "sliding_attention") {
            keys.fail("layer_types", "must hold full_attention and sliding_attention only, not " + type.dump());
        }
        sliding.push_back(type == "sliding_attention");
    }
    return sliding;
}

/// A layer is full if its number, from 1, is a multiple of the pattern.
auto full_once_in(const ConfigKeys& keys, const char* key, std::int64_t fallback) {
    const std::int64_t pattern = keys.find("layer_types") != nullptr ? 1 : keys.dimension(key, 1 << 12, fallback);
    return [pattern](std::int64_t layer) { return (layer + 1) % pattern != 0; };
}

void slide(ModelConfig& config, const std::vector<bool>& sliding, std::int64_t window) {
    for (std::size_t layer = 0; layer < sliding.size(); ++layer) {
        if (sliding[layer]) config.rules.layers[layer].attention.window = window;
    }
}

/// The rules that most families share, for every layer; families change what is different.
struct Start {
    const char* eps_key = "rms_norm_eps";
    double eps = 1e-6;
    NormRule::Kind norm = NormRule::Kind::rms;
    float weight_offset = 0;
    RotaryDefaults rotary = {10000.0, std::nullopt};
    const char* activation_key = "hidden_act";
    const char* activation = "silu";
};
void start(const ConfigKeys& keys, ModelConfig& config, const Start& from = {}) {
    LayerRules rules;
    rules.norm = {from.norm, keys.positive(from.eps_key, from.eps), from.weight_offset};
    rules.attention.scale = 1.0F / std::sqrt(static_cast<float>(config.head_dim));
    rules.attention.qkv_bias = rules.attention.o_bias = keys.flag("attention_bias", false);
    rules.mlp = {activation_of(keys, from.activation_key, from.activation), true, keys.flag("mlp_bias", false)};
    rules.rotary = read_rotary(keys, config, "full_attention", from.rotary);
    config.rules.final_norm = rules.norm;
    config.rules.layers.assign(static_cast<std::size_t>(config.num_hidden_layers), rules);
}

template <typename Change>
void for_each_layer(ModelConfig& config, const Change& change) {
    for (LayerRules& rules : config.rules.layers) change(rules);
}

void llama(const ConfigKeys& keys, ModelConfig& config) { start(keys, config); }

void mistral(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config);
    slide(config, std::vector<bool>(config.rules.layers.size(), true), window_of(keys));
}

void ministral(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config);
    slide(config, sliding_layers(keys, config, [](std::int64_t) { return true; }), window_of(keys));
}

void slide_as_qwen(const ConfigKeys& keys, ModelConfig& config) {
    if (!keys.flag("use_sliding_window", false)) return;
    const std::int64_t first = keys.integer("max_window_layers").value_or(28);
    slide(config, sliding_layers(keys, config, [&](std::int64_t layer) { return layer >= first; }),
          window_of(keys, 4096));
}

void qwen2(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config);
    for_each_layer(config, [](LayerRules& rules) {
        rules.attention.qkv_bias = true;
        rules.attention.o_bias = false;
    });
    slide_as_qwen(keys, config);
}

void qwen3(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config);
    for_each_layer(config, [](LayerRules& rules) { rules.attention.query_key_norm = QueryKeyNorm::per_head; });
    slide_as_qwen(keys, config);
}

void smollm3(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config, {.rotary = {2000000.0, std::nullopt}});
    config.tie_word_embeddings = keys.flag("tie_word_embeddings", true);
    const auto layers = static_cast<std::size_t>(config.num_hidden_layers);
    const std::int64_t interval = keys.dimension("no_rope_layer_interval", 1 << 12, 4);
    const auto* list = keys.find("no_rope_layers");
    if (list != nullptr && (!list->is_array() || list->size() != layers)) {
        keys.fail("no_rope_layers", "must list 0 or 1 for each of " + std::to_string(layers) + " layers");
    }
    for (std::size_t layer = 0; layer < layers; ++layer) {
        const bool rotates =
            list != nullptr ? (*list)[layer] != 0 : (static_cast<std::int64_t>(layer) + 1) % interval != 0;
        if (!rotates) config.rules.layers[layer].rotary = {};
    }
    if (keys.flag("use_sliding_window", false)) {
        slide(config, sliding_layers(keys, config, [](std::int64_t) { return false; }), window_of(keys, 4096));
    }
}

/// Gemma's norms multiply by 1 + weight, and its embeddings are scaled.
void start_gemma(const ConfigKeys& keys, ModelConfig& config, const RotaryDefaults& rotary) {
    const bool newer = keys.find("hidden_activation") != nullptr;
    start(keys, config,
          {.weight_offset = 1,
           .rotary = rotary,
           .activation_key = newer ? "hidden_activation" : "hidden_act",
           .activation = "gelu_pytorch_tanh"});
    config.tie_word_embeddings = keys.flag("tie_word_embeddings", true);
    config.rules.embedding_scale = std::sqrt(static_cast<float>(config.hidden_size));
    if (keys.flag("use_bidirectional_attention", false)) keys.refuse("use_bidirectional_attention is not supported");
}

void gemma(const ConfigKeys& keys, ModelConfig& config) { start_gemma(keys, config, {10000.0, std::nullopt}); }

/// Names of the norms before and behind the attention, and before and behind the MLP; those before may be absent.
struct NormNames {
    std::string_view attention, attention_post, mlp, mlp_post;
};
void normed_behind(ModelConfig& config, const NormNames& names) {
    config.names.attention_norm = names.attention;
    config.names.attention_post_norm = names.attention_post;
    config.names.mlp_norm = names.mlp;
    config.names.mlp_post_norm = names.mlp_post;
    for_each_layer(config, [&](LayerRules& rules) {
        rules.pre_norm = !names.attention.empty();
        rules.post_norm = true;
    });
}

/// @return 0 for null.
float soft_cap(const ConfigKeys& keys, const char* key, double fallback) {
    return keys.is_null(key)
               ? 0.0F
               : static_cast<float>(fallback > 0 || keys.find(key) != nullptr ? keys.positive(key, fallback) : 0.0);
}

/// What Gemma 2 and 3 share.
void start_later_gemma(const ConfigKeys& keys, ModelConfig& config, double softcap, double final_softcap,
                       const RotaryDefaults& rotary) {
    start_gemma(keys, config, rotary);
    normed_behind(config, {"input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
                           "post_feedforward_layernorm"});
    config.rules.final_softcap = soft_cap(keys, "final_logit_softcapping", final_softcap);
    const auto scale = static_cast<float>(1 / std::sqrt(keys.positive("query_pre_attn_scalar", 256)));
    for_each_layer(config, [&](LayerRules& rules) {
        rules.attention.scale = scale;
        rules.attention.softcap = soft_cap(keys, "attn_logit_softcapping", softcap);
    });
}

void gemma2(const ConfigKeys& keys, ModelConfig& config) {
    start_later_gemma(keys, config, 50, 30, {10000.0, std::nullopt});
    slide(config, sliding_layers(keys, config, [](std::int64_t layer) { return layer % 2 == 0; }),
          window_of(keys, 4096));
}

void gemma3(const ConfigKeys& keys, ModelConfig& config) {
    start_later_gemma(keys, config, 0, 0, {1000000.0, std::nullopt});
    for_each_layer(config, [](LayerRules& rules) { rules.attention.query_key_norm = QueryKeyNorm::per_head; });
    const auto sliding = sliding_layers(keys, config, full_once_in(keys, "sliding_window_pattern", 6));
    slide(config, sliding, window_of(keys, 4096));
    RotaryRule local;
    if (keys.find("rope_parameters") != nullptr) {
        local = read_rotary(keys, config, "sliding_attention", {10000.0, std::nullopt});
    } else {
        local.frequencies = rope_frequencies(keys.positive("rope_local_base_freq", 10000.0), config.head_dim);
    }
    for (std::size_t layer = 0; layer < sliding.size(); ++layer) {
        if (sliding[layer]) config.rules.layers[layer].rotary = local;
    }
}

constexpr NormNames kNormsBehind = {{}, "post_attention_layernorm", {}, "post_feedforward_layernorm"};

void olmo2(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config, {.eps = 1e-5});
    normed_behind(config, kNormsBehind);
    for_each_layer(config, [](LayerRules& rules) { rules.attention.query_key_norm = QueryKeyNorm::whole; });
}

void olmo3(const ConfigKeys& keys, ModelConfig& config) {
    olmo2(keys, config);
    const auto sliding = sliding_layers(keys, config, [](std::int64_t layer) { return (layer + 1) % 4 != 0; });
    slide(config, sliding, window_of(keys, 4096));
    // In files of transformers 4, rope_scaling is that of the full layers alone.
    RotaryRule local;
    if (keys.find("rope_parameters") != nullptr) {
        local = read_rotary(keys, config, "sliding_attention", {10000.0, std::nullopt});
    } else {
        local.frequencies = rope_frequencies(keys.positive("rope_theta", 10000.0), config.head_dim);
    }
    for (std::size_t layer = 0; layer < sliding.size(); ++layer) {
        if (sliding[layer]) config.rules.layers[layer].rotary = local;
    }
}

void exaone4(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config, {.eps = 1e-5});
    normed_behind(config, kNormsBehind);
    const std::int64_t window = window_of(keys, 4096);
    const auto sliding = window == 0 ? std::vector<bool>(config.rules.layers.size(), false)
                                     : sliding_layers(keys, config, full_once_in(keys, "sliding_window_pattern", 4));
    slide(config, sliding, window);
    for (std::size_t layer = 0; layer < sliding.size(); ++layer) {
        LayerRules& rules = config.rules.layers[layer];
        rules.attention.query_key_norm = QueryKeyNorm::per_head;
        rules.attention.qkv_bias = rules.attention.o_bias = false;
        if (window > 0 && !sliding[layer]) rules.rotary = {};
    }
}

void granite(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config);
    config.rules.embedding_scale = static_cast<float>(keys.positive("embedding_multiplier", 1));
    config.rules.logit_scale = static_cast<float>(1 / keys.positive("logits_scaling", 1));
    for_each_layer(config, [&](LayerRules& rules) {
        rules.residual_scale = static_cast<float>(keys.positive("residual_multiplier", 1));
        rules.attention.scale = static_cast<float>(keys.positive("attention_multiplier", 1));
    });
}

void cohere(const ConfigKeys& keys, ModelConfig& config) {
    if (keys.flag("use_qk_norm", false)) keys.refuse("use_qk_norm is not supported for model_type 'cohere'");
    start(keys, config, {.eps_key = "layer_norm_eps", .eps = 1e-5, .norm = NormRule::Kind::layer});
    config.tie_word_embeddings = keys.flag("tie_word_embeddings", true);
    config.rules.logit_scale = static_cast<float>(keys.positive("logit_scale", 0.0625));
    config.names.mlp_norm = {};
    for_each_layer(config, [](LayerRules& rules) {
        rules.parallel = true;
        rules.rotary.interleaved = true;
    });
}

void cohere2(const ConfigKeys& keys, ModelConfig& config) {
    cohere(keys, config);
    const auto sliding = sliding_layers(keys, config, full_once_in(keys, "sliding_window_pattern", 4));
    slide(config, sliding, window_of(keys, 4096));
    for (std::size_t layer = 0; layer < sliding.size(); ++layer) {
        if (!sliding[layer]) config.rules.layers[layer].rotary = {};
    }
}

void phi3(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config, {.eps = 1e-5, .rotary = {10000.0, 1.0}});
    config.names.qkv = "self_attn.qkv_proj";
    config.names.gate_up = "mlp.gate_up_proj";
    slide(config, std::vector<bool>(config.rules.layers.size(), true), window_of(keys));
}

void glm(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config, {.eps = 1.5625e-7, .rotary = {10000.0, 0.5}});
    config.names.gate_up = "mlp.gate_up_proj";
    for_each_layer(config, [](LayerRules& rules) {
        rules.attention.o_bias = false;
        rules.rotary.interleaved = true;
    });
}

void glm4(const ConfigKeys& keys, ModelConfig& config) {
    glm(keys, config);
    normed_behind(config,
                  {"input_layernorm", "post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm"});
}

void stablelm(const ConfigKeys& keys, ModelConfig& config) {
    if (keys.flag("qk_layernorm", false)) keys.refuse("qk_layernorm is not supported for model_type 'stablelm'");
    start(keys, config,
          {.eps_key = "layer_norm_eps", .eps = 1e-5, .norm = NormRule::Kind::layer, .rotary = {10000.0, 0.25}});
    const bool parallel = keys.flag("use_parallel_residual", false);
    if (parallel) config.names.mlp_norm = {};
    for_each_layer(config, [&](LayerRules& rules) {
        rules.parallel = parallel;
        rules.attention.qkv_bias = keys.flag("use_qkv_bias", false);
        rules.attention.o_bias = false;
    });
}

void starcoder2(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config,
          {.eps_key = "norm_epsilon", .eps = 1e-5, .norm = NormRule::Kind::layer, .activation = "gelu_pytorch_tanh"});
    config.tie_word_embeddings = keys.flag("tie_word_embeddings", true);
    config.names.up = "mlp.c_fc";
    config.names.down = "mlp.c_proj";
    const bool bias = keys.flag("use_bias", true);
    for_each_layer(config, [&](LayerRules& rules) {
        rules.attention.qkv_bias = rules.attention.o_bias = rules.mlp.bias = bias;
        rules.mlp.gated = false;
    });
    slide(config, std::vector<bool>(config.rules.layers.size(), true), window_of(keys));
}

void arcee(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config, {.eps = 1e-5, .activation = "relu2"});
    for_each_layer(config, [](LayerRules& rules) { rules.mlp.gated = false; });
}

void nemotron(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config,
          {.eps_key = "norm_eps",
           .eps = 1e-5,
           .norm = NormRule::Kind::layer,
           .weight_offset = 1,
           .rotary = {10000.0, 0.5},
           .activation = "relu2"});
    for_each_layer(config, [](LayerRules& rules) { rules.mlp.gated = false; });
}

void helium(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config, {.eps = 1e-8});
    for_each_layer(config, [](LayerRules& rules) {
        rules.attention.o_bias = false;
        rules.rotary.interleaved = true;
    });
}

void seed_oss(const ConfigKeys& keys, ModelConfig& config) {
    start(keys, config);
    for_each_layer(config, [&](LayerRules& rules) {
        rules.attention.qkv_bias = keys.flag("attention_bias", true);
        rules.attention.o_bias = keys.flag("attention_out_bias", false);
    });
}

/// Multi-head latent attention: the layout room reads its widths. Of a query or key the last qk_rope_head_dim dims
/// rotate.
void deepseek(const ConfigKeys& keys, ModelConfig& config, bool interleaved) {
    const std::int64_t rotated = keys.dimension("qk_rope_head_dim", 512);
    if (rotated % 2 != 0) keys.fail("qk_rope_head_dim", "must be even, not " + std::to_string(rotated));
    config.head_dim = rotated;
    start(keys, config);
    config.head_dim = keys.dimension("v_head_dim", 512);
    config.num_key_value_heads = config.num_attention_heads;
    const std::int64_t dims = rotated + keys.dimension("qk_nope_head_dim", 512);
    for_each_layer(config, [&](LayerRules& rules) {
        rules.attention.scale = 1.0F / std::sqrt(static_cast<float>(dims));
        rules.rotary.interleaved = interleaved;
    });
    if (config.rules.layers.front().rotary.gain != 1) keys.refuse("rope_type yarn is not supported for DeepSeek");
    if (keys.integer("first_k_dense_replace").value_or(0) < config.num_hidden_layers) {
        keys.refuse("layers of experts (first_k_dense_replace) are not supported");
    }
}

void deepseek_v2(const ConfigKeys& keys, ModelConfig& config) { deepseek(keys, config, true); }

void deepseek_v3(const ConfigKeys& keys, ModelConfig& config) {
    deepseek(keys, config, keys.flag("rope_interleave", true));
}

/// DeepSeek-V3 with frequencies of each layer's own.
void mha2mla_deepseek(const ConfigKeys& keys, ModelConfig& config) {
    deepseek_v3(keys, config);
    const auto* const lists = keys.find("rope_frequencies");
    const std::size_t pairs = config.rules.layers.front().rotary.frequencies.size();
    const std::string wanted = "must list " + std::to_string(pairs) + " positive numbers for each of " +
                               std::to_string(config.num_hidden_layers) + " layers";
    if (lists == nullptr || !lists->is_array() || lists->size() != config.rules.layers.size()) {
        keys.fail("rope_frequencies", wanted);
    }
    for (std::size_t layer = 0; layer < lists->size(); ++layer) {
        const auto& list = (*lists)[layer];
        RotaryRule& rotary = config.rules.layers[layer].rotary;
        if (!list.is_array() || list.size() != pairs) keys.fail("rope_frequencies", wanted);
        for (std::size_t k = 0; k < pairs; ++k) {
            const double frequency = list[k].is_number() ? list[k].get<double>() : 0;
            if (!(frequency > 0 && frequency <= 4)) keys.fail("rope_frequencies", wanted);
            rotary.frequencies[k] = frequency;
        }
        rotary.trained_length = 0;
    }
}

struct Family {
    ModelFamily row;
    void (*fill)(const ConfigKeys&, ModelConfig&);
};
constexpr std::array<Family, 27> kFamilies = {{
    {{"llama", "Llama 1-3, SmolLM, TinyStories and others of the same architecture", true}, llama},
    {{"mistral", "Mistral 7B, with or without a sliding window", true}, mistral},
    {{"ministral", "Ministral 8B", true}, ministral},
    {{"qwen2", "Qwen 2 and 2.5", true}, qwen2},
    {{"qwen3", "Qwen 3"}, qwen3},
    {{"smollm3", "SmolLM3"}, smollm3},
    {{"gemma", "Gemma"}, gemma},
    {{"gemma2", "Gemma 2"}, gemma2},
    {{"gemma3_text", "Gemma 3, text only"}, gemma3},
    {{"olmo2", "OLMo 2"}, olmo2},
    {{"olmo3", "OLMo 3"}, olmo3},
    {{"exaone4", "EXAONE 4"}, exaone4},
    {{"granite", "Granite 3"}, granite},
    {{"cohere", "Command R"}, cohere},
    {{"cohere2", "Command R7B, Command A"}, cohere2},
    {{"phi3", "Phi-3, Phi-4-mini"}, phi3},
    {{"glm", "GLM-4 9B"}, glm},
    {{"glm4", "GLM-4-0414"}, glm4},
    {{"stablelm", "StableLM 2"}, stablelm},
    {{"starcoder2", "StarCoder2"}, starcoder2},
    {{"arcee", "AFM 4.5B"}, arcee},
    {{"nemotron", "Nemotron-4, Minitron"}, nemotron},
    {{"helium", "Helium"}, helium},
    {{"seed_oss", "Seed-OSS"}, seed_oss},
    {{"deepseek_v2", "DeepSeek-V2 without experts"}, deepseek_v2},
    {{"deepseek_v3", "DeepSeek-V3 without experts, and what layout deepseek writes"}, deepseek_v3},
    {{"mha2mla_deepseek", "what layout deepseek writes with free rope-frequencies"}, mha2mla_deepseek},
}};
constexpr auto kRows = [] {
    std::array<ModelFamily, kFamilies.size()> rows;
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = kFamilies[i].row;
    return rows;
}();

const Family* find_row(std::string_view model_type) {
    const auto it = std::find_if(kFamilies.begin(), kFamilies.end(),
                                 [&](const Family& family) { return family.row.model_type == model_type; });
    return it == kFamilies.end() ? nullptr : &*it;
}

/// The family of a model, or of the original that it was converted from.
const Family* find_family(std::string_view model_type) {
    const Family* family = find_row(model_type);
    if (family != nullptr || !model_type.starts_with(kConvertedPrefix)) return family;
    family = find_row(model_type.substr(kConvertedPrefix.size()));
    return family != nullptr && family->row.converts ? family : nullptr;
}

/// The rule of a layer that no conversion is known for, or empty.
std::string obstacle(const LayerRules& rules, std::int64_t head_dim) {
    const AttentionRule& attention = rules.attention;
    if (attention.window > 0) return "a sliding window";
    if (attention.softcap > 0) return "soft-capped attention logits";
    if (attention.query_key_norm != QueryKeyNorm::none) return "norms of queries and keys";
    if (attention.scale != 1.0F / std::sqrt(static_cast<float>(head_dim))) return "an attention scale of its own";
    if (rules.rotary.frequencies.empty()) return "layers without RoPE";
    if (rules.rotary.rotated_dims() != head_dim) return "partial rotation";
    if (rules.rotary.interleaved) return "interleaved rotation";
    if (rules.rotary.gain != 1) return "a gain of the rotation (yarn, longrope)";
    if (rules.rotary.trained_length > 0) return "RoPE that depends on the length of the sequence";
    if (rules.parallel) return "attention and MLP side by side";
    if (rules.post_norm || !rules.pre_norm) return "norms behind attention and MLP";
    if (rules.norm.kind != NormRule::Kind::rms || rules.norm.weight_offset != 0) return "norms other than RMSNorm";
    if (rules.residual_scale != 1) return "a scale of what layers add";
    if (!rules.mlp.gated || rules.mlp.activation != Activation::silu) return "an MLP other than SwiGLU";
    return {};
}

}  // namespace

std::span<const ModelFamily> model_families() { return kRows; }

void check_family(const ConfigKeys& keys, const std::string& model_type) {
    if (find_family(model_type) != nullptr) return;
    std::string supported;
    for (const auto& row : kRows) supported += (supported.empty() ? "" : ", ") + std::string(row.model_type);
    keys.refuse("model_type '" + model_type + "' is not supported; supported: " + supported);
}

bool is_converted_family(std::string_view model_type) {
    return find_row(model_type) == nullptr && find_family(model_type) != nullptr;
}

void apply_family(const ConfigKeys& keys, ModelConfig& config) {
    check_family(keys, config.model_type);
    find_family(config.model_type)->fill(keys, config);
}

void refuse_conversion(const ModelConfig& config) {
    const std::string start = "model_type '" + config.model_type + "' cannot be converted to MLA yet";
    for (const LayerRules& rules : config.rules.layers) {
        const std::string rule = obstacle(rules, config.head_dim);
        if (!rule.empty()) throw Error(ErrorCode::unsupported, start + ": it has " + rule);
    }
    const ModelRules& rules = config.rules;
    if (rules.embedding_scale != 1 || rules.logit_scale != 1 || rules.final_softcap != 0) {
        throw Error(ErrorCode::unsupported, start + ": it has scales of embeddings or logits");
    }
    const Family* family = find_family(config.model_type);
    if (family != nullptr && !family->row.converts) throw Error(ErrorCode::unsupported, start);
}

}  // namespace mha2mla

// Multi-head latent attention from the start.
#include <cmath>

#include "experts.hpp"
#include "families.hpp"

namespace mha2mla::family {
namespace {

/// Multi-head latent attention: the layout room reads its widths. Of a query or key the last qk_rope_head_dim dims
/// rotate.
void start_deepseek(const ConfigKeys& keys, ModelConfig& config, bool interleaved) {
    const std::int64_t rotated = keys.dimension("qk_rope_head_dim", 512);
    if (rotated % 2 != 0) keys.fail("qk_rope_head_dim", "must be even, not " + std::to_string(rotated));
    config.head_dim = rotated;
    start(keys, config);
    config.head_dim = keys.dimension("v_head_dim", 512);
    config.num_key_value_heads = config.num_attention_heads;
    const std::int64_t dims = rotated + keys.dimension("qk_nope_head_dim", 512);
    const auto scale = static_cast<float>(attention_scale_factor(keys) / std::sqrt(static_cast<double>(dims)));
    for_each_layer(config, [&](LayerRules& rules) {
        rules.attention.scale = scale;
        rules.rotary.interleaved = interleaved;
    });
}

void refuse_others(const ConfigKeys& keys, const char* key, std::initializer_list<std::string_view> supported) {
    const std::string value = keys.text(key, std::string(*supported.begin()));
    std::string known;
    for (const std::string_view name : supported) {
        if (value == name) return;
        known += (known.empty() ? "" : ", ") + std::string(name);
    }
    keys.refuse(std::string(key) + " '" + value + "' is not supported for this model_type; supported: " + known);
}

/// What differs between the versions of DeepSeek's experts.
struct DeepseekExperts {
    ExpertKeys keys;
    const char* scoring;  // `scoring_func`, which transformers does not look at
    std::int64_t default_dense_layers, default_shared;
    double default_scale;
    void (*choose)(const ConfigKeys&, MixtureRule&);
};

void add_deepseek_experts(const ConfigKeys& keys, ModelConfig& config, const DeepseekExperts& version) {
    const std::int64_t dense = keys.integer("first_k_dense_replace").value_or(version.default_dense_layers);
    if (dense >= config.num_hidden_layers) return;
    refuse_others(keys, "scoring_func", {version.scoring});
    if (const auto frequency = keys.integer("moe_layer_freq"); frequency && *frequency != 1) {
        keys.refuse("moe_layer_freq " + std::to_string(*frequency) + " is not supported; supported: 1");
    }
    MixtureRule mixture = read_experts(keys, version.keys);
    mixture.scale = static_cast<float>(keys.positive("routed_scaling_factor", version.default_scale));
    const std::int64_t shared =
        keys.is_null("n_shared_experts") ? 0 : keys.integer("n_shared_experts").value_or(version.default_shared);
    if (shared < 0 || shared > kMaxMlpWidth / mixture.width) {
        keys.fail("n_shared_experts", "is out of range: " + std::to_string(shared));
    }
    mixture.shared_width = shared * mixture.width;
    version.choose(keys, mixture);
    place_experts(config, mixture, [dense](std::int64_t layer) { return layer >= dense; });
}

/// DeepSeek-V2. As in transformers, whatever `norm_topk_prob` says.
void choose_greedily(const ConfigKeys& keys, MixtureRule& mixture) {
    refuse_others(keys, "topk_method", {"greedy", "group_limited_greedy"});
    if (keys.text("topk_method", "greedy") == "group_limited_greedy") read_groups(keys, 1, 1, mixture);
}

/// DeepSeek-V3 (section 2.1.2): without an auxiliary loss, by scores that a correction balances.
void choose_corrected(const ConfigKeys& keys, MixtureRule& mixture) {
    refuse_others(keys, "topk_method", {"noaux_tc"});
    mixture.score = ExpertScore::sigmoid;
    mixture.corrected = true;
    mixture.normalised = keys.flag("norm_topk_prob", true);
    mixture.group_best = 2;
    read_groups(keys, 8, 4, mixture);
}

}  // namespace

void deepseek_v2(const ConfigKeys& keys, ModelConfig& config) {
    start_deepseek(keys, config, true);
    add_deepseek_experts(
        keys, config,
        {{.experts = {"n_routed_experts", "num_experts"}, .default_experts = 64, .default_width = 1407},
         "softmax",
         0,
         2,
         1.0,
         choose_greedily});
}

void deepseek_v3(const ConfigKeys& keys, ModelConfig& config) {
    start_deepseek(keys, config, keys.flag("rope_interleave", true));
    for_each_layer(config, [](LayerRules& rules) { rules.mlp.bias = false; });
    add_deepseek_experts(keys, config,
                         {{.experts = {"n_routed_experts", "num_local_experts"},
                           .default_experts = 256,
                           .default_per_token = 8,
                           .default_width = 2048},
                          "sigmoid",
                          3,
                          1,
                          2.5,
                          choose_corrected});
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

}  // namespace mha2mla::family

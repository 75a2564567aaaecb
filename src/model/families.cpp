#include "families.hpp"

#include <algorithm>
#include <array>

#include "families/families.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

struct Family {
    ModelFamily row;
    void (*fill)(const ConfigKeys&, ModelConfig&);
};

constexpr std::string_view kWindow = R"({"sliding_window": 32})";
constexpr std::string_view kWindowInThreeOfFour =
    R"({"sliding_window": 32, "layer_types": ["full_attention", "sliding_attention", "sliding_attention",
        "sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "sliding_attention"]})";
constexpr std::string_view kGranite =
    R"({"embedding_multiplier": 12.0, "attention_multiplier": 0.015625, "residual_multiplier": 0.22,
        "logits_scaling": 16.0})";
constexpr std::string_view kBiases = R"({"attention_bias": true})";
constexpr std::string_view kDeepseekV2 =
    R"({"kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16,
        "first_k_dense_replace": 1, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32})";
constexpr std::string_view kDeepseekV3 =
    R"({"kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16,
        "first_k_dense_replace": 1, "n_routed_experts": 16, "num_experts_per_tok": 2, "n_group": 4, "topk_group": 2,
        "moe_intermediate_size": 32})";
constexpr std::string_view kFreeDeepseek =
    R"({"kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 16, "v_head_dim": 16,
        "first_k_dense_replace": 8, "rope_frequencies": [[1, 0.1], [1, 0.1], [1, 0.1], [1, 0.1], [1, 0.1], [1, 0.1],
        [1, 0.1], [1, 0.1]]})";

constexpr std::array<Family, 30> kFamilies = {{
    {{"llama", "Llama 1-3, SmolLM, TinyStories and others of the same architecture", true}, family::llama},
    {{"mistral", "Mistral 7B, with or without a sliding window", true, kWindow}, family::mistral},
    {{"mixtral", "Mixtral 8x7B, 8x22B", true}, family::mixtral},
    {{"ministral", "Ministral 8B", true, kWindowInThreeOfFour}, family::ministral},
    {{"qwen2", "Qwen 2 and 2.5", true}, family::qwen2},
    {{"qwen3", "Qwen 3", true}, family::qwen3},
    {{"qwen2_moe", "Qwen1.5-MoE, Qwen 2 57B-A14B", true}, family::qwen2_moe},
    {{"qwen3_moe", "Qwen 3 30B-A3B, 235B-A22B", true}, family::qwen3_moe},
    {{"smollm3", "SmolLM3", true}, family::smollm3},
    {{"gemma", "Gemma", true}, family::gemma},
    {{"gemma2", "Gemma 2", true}, family::gemma2},
    {{"gemma3_text", "Gemma 3, text only", true}, family::gemma3},
    {{"olmo2", "OLMo 2", true}, family::olmo2},
    {{"olmo3", "OLMo 3", true}, family::olmo3},
    {{"exaone4", "EXAONE 4", true}, family::exaone4},
    {{"granite", "Granite 3", true, kGranite}, family::granite},
    {{"cohere", "Command R", true}, family::cohere},
    {{"cohere2", "Command R7B, Command A", true}, family::cohere2},
    {{"phi3", "Phi-3, Phi-4-mini", true, R"({"partial_rotary_factor": 0.75})"}, family::phi3},
    {{"glm", "GLM-4 9B", true, kBiases}, family::glm},
    {{"glm4", "GLM-4-0414", true, kBiases}, family::glm4},
    {{"stablelm", "StableLM 2", true, R"({"use_qkv_bias": true})"}, family::stablelm},
    {{"starcoder2", "StarCoder2", true, kWindow}, family::starcoder2},
    {{"arcee", "AFM 4.5B", true}, family::arcee},
    {{"nemotron", "Nemotron-4, Minitron", true}, family::nemotron},
    {{"helium", "Helium", true}, family::helium},
    {{"seed_oss", "Seed-OSS", true}, family::seed_oss},
    {{"deepseek_v2", "DeepSeek-V2, -V2-Lite, -V2.5", false, kDeepseekV2}, family::deepseek_v2},
    {{"deepseek_v3", "DeepSeek-V3, -R1, Moonlight, and what layout deepseek writes", false, kDeepseekV3},
     family::deepseek_v3},
    {{"mha2mla_deepseek", "what layout deepseek writes with free rope-frequencies", false, kFreeDeepseek},
     family::mha2mla_deepseek},
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
    const RotaryRule& rotary = rules.rotary;
    if (rules.attention.query_key_norm != QueryKeyNorm::none) {
        const bool plain = rotary.frequencies.empty() || (rotary.rotated_dims() == head_dim && !rotary.interleaved);
        if (!plain) return "norms of queries and keys of which a part rotates, or pairs of neighbours";
        if (rules.attention.qkv_bias) return "norms of queries and keys with biases";
    }
    if (rotary.dynamic_factor > 0 && rotary.rotated_dims() != head_dim) {
        return "partial rotation that depends on the length of the sequence";
    }
    return {};
}

/// The rule of a layer that a DeepSeek block has no place for, or empty.
std::string deepseek_obstacle(const LayerRules& rules, std::int64_t positions) {
    const std::int64_t window = rules.attention.window;
    if (window > 0 && window < positions) return "a sliding window";
    if (rules.attention.softcap > 0) return "soft-capped attention logits";
    if (rules.attention.query_key_norm != QueryKeyNorm::none) return "norms of queries and keys";
    if (rules.rotary.frequencies.empty()) return "layers without RoPE";
    if (rules.rotary.gain != 1) return "a gain of the rotation (yarn, longrope)";
    if (rules.rotary.trained_length > 0) return "RoPE that depends on the length of the sequence";
    if (rules.parallel) return "attention and MLP side by side";
    if (rules.post_norm || !rules.pre_norm) return "norms behind attention and MLP";
    if (rules.norm.kind != NormRule::Kind::rms || rules.norm.weight_offset != 0) return "norms other than RMSNorm";
    if (rules.residual_scale != 1) return "a scale of what layers add";
    // DeepSeek-V2 has a softmax over all experts, and transformers does not look at its norm_topk_prob; V3 has
    // sigmoids.
    if (rules.mlp.mixture.shared_gate) return "a shared expert with a gate";
    if (rules.mlp.mixture.experts > 0) return "experts whose weights sum to 1";
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

std::string conversion_obstacle(const ModelConfig& config) {
    if (config.latent && !config.latent->layout->model_type.empty()) return "MLA from the start";
    for (const LayerRules& rules : config.rules.layers) {
        std::string rule = obstacle(rules, config.head_dim);
        if (!rule.empty()) return rule;
    }
    const Family* family = find_family(config.model_type);
    return family != nullptr && !family->row.converts ? "rules that no conversion is known for" : "";
}

void refuse_conversion(const ModelConfig& config) {
    if (config.latent && !config.latent->layout->model_type.empty()) {
        throw Error(ErrorCode::unsupported, "model_type '" + config.model_type +
                                                "' is MLA already, by a conversion or from the start; there is nothing "
                                                "to convert");
    }
    const std::string rule = conversion_obstacle(config);
    if (rule.empty()) return;
    throw Error(ErrorCode::unsupported,
                "model_type '" + config.model_type + "' cannot be converted to MLA yet: it has " + rule);
}

std::string deepseek_obstacle(const ModelConfig& config) {
    for (const LayerRules& rules : config.rules.layers) {
        std::string rule = deepseek_obstacle(rules, config.max_position_embeddings);
        if (!rule.empty()) return rule;
    }
    const ModelRules& rules = config.rules;
    if (rules.embedding_scale != 1 || rules.logit_scale != 1 || rules.final_softcap != 0) {
        return "scales of embeddings or logits";
    }
    return {};
}

}  // namespace mha2mla

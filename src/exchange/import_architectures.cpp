#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "import_parts.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

using OrderedJson = nlohmann::ordered_json;

/// Larger is a damaged file, not a model; no product of two overflows.
constexpr std::int64_t kMost = std::int64_t{1} << 28;

std::string key_of(const ImportedArchitecture& architecture, std::string_view key) {
    return std::string(architecture.name) + "." + std::string(key);
}

[[noreturn]] void refuse_key(const GgufFile& file, const std::string& key, const std::string& what) {
    throw Error(ErrorCode::unsupported, file.path().string() + ": key '" + key + "' " + what);
}

std::int64_t size_of(const GgufFile& file, const std::string& key, std::optional<std::int64_t> fallback = {}) {
    const auto size = file.integer(key);
    if (!size && !fallback) file.fail(key, "is missing");
    if (size && (*size < 1 || *size > kMost)) file.fail(key, "is out of range: " + std::to_string(*size));
    return size.value_or(fallback.value_or(0));
}

constexpr std::int64_t kMostLayers = std::int64_t{1} << 12;

/// A float as people write it: 1e-05 instead of 9.99999974e-06.
double shortest(float value) {
    std::array<char, 32> text{};
    const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
    double to = 0;
    (void)std::from_chars(text.data(), end, to);
    return to;
}

/// A float that config.json can say. @throws Error{format} if it is not finite
std::optional<float> number_of(const GgufFile& file, const std::string& key) {
    const auto number = file.number(key);
    if (number && !std::isfinite(*number)) file.fail(key, "is not finite");
    return number;
}

/// What Llama 3.1 and later divide frequencies by; models differ in `factor`, and in what they were trained for before.
constexpr double kLowFactor = 1, kHighFactor = 4;
struct Llama3Scaling {
    double factor;
    std::int64_t trained_length;
};

bool are_llama3(const std::vector<float>& factors, double theta, const Llama3Scaling& scaling) {
    const auto pairs = static_cast<double>(factors.size());
    for (std::size_t k = 0; k < factors.size(); ++k) {
        const double frequency = std::pow(theta, -static_cast<double>(k) / pairs);
        const double turns = static_cast<double>(scaling.trained_length) * frequency / (2 * std::acos(-1.0));
        const double share = std::clamp((turns - kLowFactor) / (kHighFactor - kLowFactor), 0.0, 1.0);
        const double expected = 1 / ((1 - share) / scaling.factor + share);
        if (!(std::abs(factors[k] - expected) <= 1e-4 * expected)) return false;
    }
    return true;
}

/// The scaling with these factors; nothing if there is none.
std::optional<Llama3Scaling> llama3_scaling(const std::vector<float>& factors, double theta) {
    constexpr std::int64_t kUsual = 8192, kLongest = std::int64_t{1} << 20;
    const double factor = *std::max_element(factors.begin(), factors.end());
    if (const Llama3Scaling usual{factor, kUsual}; are_llama3(factors, theta, usual)) return usual;
    for (std::int64_t length = 16; length <= kLongest; length *= 2) {
        if (const Llama3Scaling other{factor, length}; are_llama3(factors, theta, other)) return other;
    }
    return std::nullopt;
}

OrderedJson rope_scaling(const GgufFile& file, const ImportedArchitecture& architecture, double theta,
                         std::int64_t dims) {
    const std::string key = key_of(architecture, "rope.scaling.type");
    const std::string_view type = file.text(key).value_or("none");
    if (const GgufTensor* factors = file.find("rope_freqs.weight")) {
        std::vector<float> values(static_cast<std::size_t>(factors->row_length()));
        factors->read_row(0, values);
        const auto scaling =
            factors->rows() == 1 && factors->row_length() == dims / 2 ? llama3_scaling(values, theta) : std::nullopt;
        if (!scaling) {
            throw Error(ErrorCode::unsupported, file.path().string() +
                                                    ": tensor 'rope_freqs.weight' holds other factors than Llama 3's, "
                                                    "which config.json has no place for");
        }
        return {{"rope_type", "llama3"},
                {"factor", shortest(static_cast<float>(scaling->factor))},
                {"low_freq_factor", kLowFactor},
                {"high_freq_factor", kHighFactor},
                {"original_max_position_embeddings", scaling->trained_length}};
    }
    if (type == "none") return nullptr;
    const auto factor = number_of(file, key_of(architecture, "rope.scaling.factor"));
    if (type != "linear" || !factor) refuse_key(file, key, "is '" + std::string(type) + "', which is not supported");
    return {{"rope_type", "linear"}, {"factor", shortest(*factor)}};
}

/// Every sixth layer of Gemma 3 sees all tokens, with a base and a scaling of its own.
void add_gemma3(const GgufFile& file, const ImportedShape& shape, OrderedJson& config) {
    const std::int64_t pattern = size_of(file, "gemma3.attention.sliding_window_pattern", 6);
    OrderedJson types = OrderedJson::array();
    for (std::int64_t layer = 1; layer <= shape.layers; ++layer) {
        types.push_back(layer % pattern == 0 ? "full_attention" : "sliding_attention");
    }
    config["layer_types"] = types;
    config["sliding_window"] = size_of(file, "gemma3.attention.sliding_window");
    const double local = shortest(number_of(file, "gemma3.rope.freq_base_swa").value_or(10000.0F));
    OrderedJson full = {{"rope_theta", config["rope_theta"]}, {"rope_type", "default"}};
    if (config["rope_scaling"].is_object()) full.update(config["rope_scaling"]);
    config["rope_parameters"] = {{"full_attention", full},
                                 {"sliding_attention", {{"rope_theta", local}, {"rope_type", "default"}}}};
    config["rope_local_base_freq"] = local;
    // The divisor of Gemma 3 27B, which has 62 layers, is not in the file.
    constexpr std::int64_t kLayersOf27b = 62;
    const auto scale = number_of(file, "gemma3.attention.scale");
    config["query_pre_attn_scalar"] = scale && *scale > 0            ? shortest(1 / (*scale * *scale))
                                      : shape.layers == kLayersOf27b ? static_cast<double>(shape.hidden / shape.heads)
                                                                     : static_cast<double>(shape.head_dim);
    for (const auto& [name, key] : {std::pair{"attn_logit_softcapping", "gemma3.attn_logit_softcapping"},
                                    {"final_logit_softcapping", "gemma3.final_logit_softcapping"}}) {
        const auto cap = number_of(file, key);
        config[name] = cap ? OrderedJson(shortest(*cap)) : OrderedJson();
    }
    config.erase("hidden_act");
    config["hidden_activation"] = "gelu_pytorch_tanh";
}

constexpr std::array<ImportedNorm, 2> kNorms = {{
    {"attn_norm", "input_layernorm"},
    {"ffn_norm", "post_attention_layernorm"},
}};
constexpr std::array<ImportedNorm, 4> kNormsOfQwen3 = {{
    {"attn_norm", "input_layernorm"},
    {"attn_q_norm", "self_attn.q_norm", true},
    {"attn_k_norm", "self_attn.k_norm", true},
    {"ffn_norm", "post_attention_layernorm"},
}};
constexpr std::array<ImportedNorm, 6> kNormsOfGemma3 = {{
    {"attn_norm", "input_layernorm"},
    {"attn_q_norm", "self_attn.q_norm", true},
    {"attn_k_norm", "self_attn.k_norm", true},
    {"post_attention_norm", "post_attention_layernorm"},
    {"ffn_norm", "pre_feedforward_layernorm"},
    {"post_ffw_norm", "post_feedforward_layernorm"},
}};

constexpr std::array<ImportedArchitecture, 4> kArchitectures = {{
    {"llama", "llama", "LlamaForCausalLM", true, false, kNorms, 0, nullptr},
    {"qwen2", "qwen2", "Qwen2ForCausalLM", false, true, kNorms, 0, nullptr},
    {"qwen3", "qwen3", "Qwen3ForCausalLM", false, false, kNormsOfQwen3, 0, nullptr},
    {"gemma3", "gemma3_text", "Gemma3ForCausalLM", false, false, kNormsOfGemma3, 1, add_gemma3},
}};

}  // namespace

const ImportedArchitecture& architecture_of(const GgufFile& file) {
    constexpr std::string_view kKey = "general.architecture";
    const auto name = file.text(kKey);
    if (!name) file.fail(kKey, "is missing");
    std::string known;
    for (const ImportedArchitecture& architecture : kArchitectures) {
        if (architecture.name == *name) return architecture;
        known += (known.empty() ? "" : ", ") + std::string(architecture.name);
    }
    refuse_key(file, std::string(kKey), "is '" + std::string(*name) + "', which cannot be imported; known: " + known);
}

ImportedShape shape_of(const GgufFile& file, const ImportedArchitecture& architecture) {
    const auto key = [&](std::string_view name) { return key_of(architecture, name); };
    if (file.integer("split.count").value_or(1) > 1) {
        refuse_key(file, "split.count", "says that this is a part of several; join them with llama-gguf-split first");
    }
    if (file.integer(key("expert_count")).value_or(0) > 0) {
        refuse_key(file, key("expert_count"), "says that there are experts, which are not supported");
    }
    ImportedShape shape{};
    shape.hidden = size_of(file, key("embedding_length"));
    shape.intermediate = size_of(file, key("feed_forward_length"));
    shape.layers = size_of(file, key("block_count"));
    if (shape.layers > kMostLayers) file.fail(key("block_count"), "is out of range: " + std::to_string(shape.layers));
    shape.heads = size_of(file, key("attention.head_count"));
    shape.kv_heads = size_of(file, key("attention.head_count_kv"), shape.heads);
    shape.head_dim = size_of(file, key("attention.key_length"), std::max<std::int64_t>(shape.hidden / shape.heads, 1));
    for (const char* same : {"attention.value_length", "rope.dimension_count"}) {
        if (size_of(file, key(same), shape.head_dim) != shape.head_dim) {
            refuse_key(
                file, key(same),
                "must be the " + std::to_string(shape.head_dim) + " of a head's keys; other shapes are not supported");
        }
    }
    const GgufTensor* embeddings = file.find("token_embd.weight");
    if (embeddings == nullptr) {
        throw Error(ErrorCode::format, file.path().string() + ": tensor 'token_embd.weight' is missing");
    }
    shape.vocab_size = embeddings->rows();
    shape.tied = file.find("output.weight") == nullptr;
    return shape;
}

OrderedJson imported_config(const GgufFile& file, const ImportedArchitecture& architecture,
                            const ImportedShape& shape) {
    const auto key = [&](std::string_view name) { return key_of(architecture, name); };
    const auto eps = number_of(file, key("attention.layer_norm_rms_epsilon"));
    if (!eps) file.fail(key("attention.layer_norm_rms_epsilon"), "is missing");
    const double theta = shortest(number_of(file, key("rope.freq_base")).value_or(10000.0F));
    OrderedJson config;
    config["architectures"] = {architecture.class_name};
    config["model_type"] = architecture.model_type;
    config["vocab_size"] = shape.vocab_size;
    config["hidden_size"] = shape.hidden;
    config["intermediate_size"] = shape.intermediate;
    config["num_hidden_layers"] = shape.layers;
    config["num_attention_heads"] = shape.heads;
    config["num_key_value_heads"] = shape.kv_heads;
    config["head_dim"] = shape.head_dim;
    config["hidden_act"] = "silu";
    config["max_position_embeddings"] = size_of(file, key("context_length"), 2048);
    config["rms_norm_eps"] = shortest(*eps);
    config["rope_theta"] = theta;
    config["rope_scaling"] = rope_scaling(file, architecture, theta, shape.head_dim);
    config["tie_word_embeddings"] = shape.tied;
    if (!architecture.query_bias) config["attention_bias"] = file.find("blk.0.attn_q.bias") != nullptr;
    for (const auto& [name, from] : {std::pair{"bos_token_id", "tokenizer.ggml.bos_token_id"},
                                     {"eos_token_id", "tokenizer.ggml.eos_token_id"},
                                     {"pad_token_id", "tokenizer.ggml.padding_token_id"}}) {
        const auto id = file.integer(from);
        if (id && *id >= 0 && *id < shape.vocab_size) config[name] = *id;
    }
    if (architecture.add_config != nullptr) architecture.add_config(file, shape, config);
    return config;
}

}  // namespace mha2mla

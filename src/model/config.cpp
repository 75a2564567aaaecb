#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "../layout/latent_json.hpp"
#include "../support/json_file.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/model.hpp"

namespace mha2mla {
namespace {

using Json = nlohmann::ordered_json;
// Larger is a damaged file, not a model. Within these limits no count of parameters or cache bytes overflows 64 bits.
constexpr std::int64_t kMaxWidth = std::int64_t{1} << 22;
constexpr std::int64_t kMaxVocabulary = std::int64_t{1} << 26;
constexpr std::int64_t kMaxLayers = std::int64_t{1} << 12;
constexpr std::int64_t kMaxPositions = std::int64_t{1} << 31;
constexpr std::size_t kMaxConfigBytes = 8'000'000;

constexpr std::array<ModelFamily, 1> kFamilies = {{
    {"llama", "Llama 1-3, SmolLM, TinyStories and others of the same architecture"},
}};

/// Typed access to the keys of one JSON object; every message names file and key.
class Keys {
public:
    Keys(const Json& object, std::string where) : object_(object), where_(std::move(where)) {}

    [[nodiscard]] const Json* find(const char* key) const {
        const auto it = object_.find(key);
        return it == object_.end() || it->is_null() ? nullptr : &*it;
    }
    [[noreturn]] void fail(const char* key, const std::string& problem) const {
        throw Error(ErrorCode::format, where_ + ": key '" + key + "' " + problem);
    }
    [[nodiscard]] std::optional<std::int64_t> integer(const char* key) const {
        const Json* value = find(key);
        if (value == nullptr) return std::nullopt;
        if (!value->is_number_integer()) fail(key, "must be a whole number, not " + value->dump());
        if (value->is_number_unsigned() && value->get<std::uint64_t>() > INT64_MAX) {
            fail(key, "is out of range: " + value->dump());
        }
        return value->get<std::int64_t>();
    }
    [[nodiscard]] std::int64_t dimension(const char* key, std::int64_t largest,
                                         std::optional<std::int64_t> fallback = std::nullopt) const {
        const auto value = integer(key);
        if (!value && !fallback) fail(key, "is missing; is this the config.json of a language model?");
        const std::int64_t result = value ? *value : *fallback;
        if (result < 1 || result > largest) fail(key, "is out of range: " + std::to_string(result));
        return result;
    }
    [[nodiscard]] double positive(const char* key, double fallback) const {
        const Json* value = find(key);
        if (value == nullptr) return fallback;
        if (!value->is_number() || !(value->get<double>() > 0) || !std::isfinite(value->get<double>())) {
            fail(key, "must be a positive number, not " + value->dump());
        }
        return value->get<double>();
    }
    [[nodiscard]] bool flag(const char* key, bool fallback) const {
        const Json* value = find(key);
        if (value == nullptr) return fallback;
        if (!value->is_boolean()) fail(key, "must be true or false, not " + value->dump());
        return value->get<bool>();
    }
    [[nodiscard]] std::string text(const char* key, const std::string& fallback) const {
        const Json* value = find(key);
        if (value == nullptr) return fallback;
        if (!value->is_string()) fail(key, "must be a string, not " + value->dump());
        return value->get<std::string>();
    }

private:
    const Json& object_;
    std::string where_;
};

/// @param name of the object in config.json, for messages.
RopeScaling read_rope_scaling(const Json& object, const std::string& file, const std::string& name) {
    if (!object.is_object()) throw Error(ErrorCode::format, file + ": key '" + name + "' must be an object");
    const Keys keys(object, file + ": " + name);
    const auto require = [&](std::initializer_list<const char*> needed, const char* type) {
        for (const char* key : needed) {
            if (keys.find(key) == nullptr)
                keys.fail(key, std::string("is missing, but rope_type ") + type + " needs it");
        }
    };
    const std::string type = keys.text("rope_type", keys.text("type", "default"));
    RopeScaling scaling;
    if (type == "default") return scaling;
    scaling.factor = keys.positive("factor", 1.0);
    if (type == "linear") {
        require({"factor"}, "linear");
        scaling.type = RopeScaling::Type::linear;
    } else if (type == "llama3") {
        scaling.type = RopeScaling::Type::llama3;
        require({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}, "llama3");
        scaling.low_freq_factor = keys.positive("low_freq_factor", 1.0);
        scaling.high_freq_factor = keys.positive("high_freq_factor", 4.0);
        scaling.original_max_position_embeddings = keys.positive("original_max_position_embeddings", 8192);
        if (scaling.high_freq_factor <= scaling.low_freq_factor) {
            keys.fail("high_freq_factor", "must be larger than low_freq_factor");
        }
    } else {
        throw Error(ErrorCode::unsupported,
                    file + ": " + name + " of type '" + type + "' is not supported; default, linear and llama3 are");
    }
    return scaling;
}

/// transformers 5 moved rope_theta and rope_scaling into one object, `rope_parameters`.
void read_rope(const Json& json, const Keys& keys, const std::string& file, ModelConfig& config) {
    config.rope_theta = keys.positive("rope_theta", 10000.0);
    double rotary_factor = keys.positive("partial_rotary_factor", 1.0);
    if (const Json* parameters = keys.find("rope_parameters")) {
        config.rope_scaling = read_rope_scaling(*parameters, file, "rope_parameters");
        const Keys inner(*parameters, file + ": rope_parameters");
        config.rope_theta = inner.positive("rope_theta", config.rope_theta);
        rotary_factor = inner.positive("partial_rotary_factor", rotary_factor);
    } else if (json.contains("rope_scaling") && !json["rope_scaling"].is_null()) {
        config.rope_scaling = read_rope_scaling(json["rope_scaling"], file, "rope_scaling");
    }
    if (rotary_factor != 1.0) {
        throw Error(ErrorCode::unsupported, file + ": partial_rotary_factor other than 1 is not supported");
    }
}

void refuse_unsupported(const Keys& keys, const std::string& file, const std::string& model_type) {
    const bool known = std::any_of(kFamilies.begin(), kFamilies.end(),
                                   [&](const ModelFamily& family) { return family.model_type == model_type; });
    if (!known) {
        std::string supported;
        for (const auto& family : kFamilies) {
            supported += (supported.empty() ? "" : ", ") + std::string(family.model_type);
        }
        throw Error(ErrorCode::unsupported,
                    file + ": model_type '" + model_type + "' is not supported; supported: " + supported);
    }
    if (const std::string act = keys.text("hidden_act", "silu"); act != "silu" && act != "swish") {
        throw Error(ErrorCode::unsupported, file + ": hidden_act '" + act + "' is not supported; silu is");
    }
    if (keys.find("quantization_config") != nullptr) {
        throw Error(ErrorCode::unsupported,
                    file + ": the checkpoint is quantised (quantization_config); dequantise it to BF16 first");
    }
}

}  // namespace

std::span<const ModelFamily> model_families() { return kFamilies; }

ModelConfig read_config(const std::filesystem::path& config_json) {
    const std::string file = config_json.string();
    const Json json = read_json_file<Json>(config_json, kMaxConfigBytes);
    if (!json.is_object()) throw Error(ErrorCode::format, file + ": must be a JSON object");
    const Keys keys(json, file);
    ModelConfig config;
    config.model_type = keys.text("model_type", "");
    if (config.model_type.empty()) keys.fail("model_type", "is missing; is this a Hugging Face config.json?");
    refuse_unsupported(keys, file, config.model_type);
    config.vocab_size = keys.dimension("vocab_size", kMaxVocabulary);
    config.hidden_size = keys.dimension("hidden_size", kMaxWidth);
    config.intermediate_size = keys.dimension("intermediate_size", kMaxWidth);
    config.num_hidden_layers = keys.dimension("num_hidden_layers", kMaxLayers);
    config.num_attention_heads = keys.dimension("num_attention_heads", kMaxWidth);
    config.num_key_value_heads = keys.dimension("num_key_value_heads", kMaxWidth, config.num_attention_heads);
    if (config.num_attention_heads % config.num_key_value_heads != 0) {
        keys.fail("num_key_value_heads", "(" + std::to_string(config.num_key_value_heads) +
                                             ") must divide num_attention_heads (" +
                                             std::to_string(config.num_attention_heads) + ")");
    }
    if (keys.find("head_dim") == nullptr && config.hidden_size % config.num_attention_heads != 0) {
        keys.fail("num_attention_heads", "must divide hidden_size where head_dim is not given");
    }
    config.head_dim = keys.dimension("head_dim", kMaxWidth,
                                     std::max<std::int64_t>(1, config.hidden_size / config.num_attention_heads));
    if (config.head_dim % 2 != 0 || config.head_dim > 512) {
        keys.fail("head_dim", "must be even and at most 512, not " + std::to_string(config.head_dim));
    }
    if (config.num_attention_heads * config.head_dim > kMaxWidth) {
        keys.fail("num_attention_heads",
                  "times head_dim is out of range: " + std::to_string(config.num_attention_heads * config.head_dim));
    }
    config.max_position_embeddings = keys.dimension("max_position_embeddings", kMaxPositions, 2048);
    config.rms_norm_eps = keys.positive("rms_norm_eps", 1e-6);
    read_rope(json, keys, file, config);
    config.attention_bias = keys.flag("attention_bias", false);
    config.mlp_bias = keys.flag("mlp_bias", false);
    config.tie_word_embeddings = keys.flag("tie_word_embeddings", false);
    config.bos_token_id = keys.integer("bos_token_id");
    if (config.bos_token_id && (*config.bos_token_id < 0 || *config.bos_token_id >= config.vocab_size)) {
        keys.fail("bos_token_id", "is not in the vocabulary");
    }
    if (const Json* latent = keys.find("mha2mla")) config.latent = latent_from_json(*latent, config, file);
    return config;
}

std::vector<double> rope_frequencies(const ModelConfig& config) {
    std::vector<double> frequencies(static_cast<std::size_t>(config.num_pairs()));
    const RopeScaling& scaling = config.rope_scaling;
    for (std::size_t k = 0; k < frequencies.size(); ++k) {
        double theta =
            std::pow(config.rope_theta, -2.0 * static_cast<double>(k) / static_cast<double>(config.head_dim));
        if (scaling.type == RopeScaling::Type::linear) {
            theta /= scaling.factor;
        } else if (scaling.type == RopeScaling::Type::llama3) {
            // Long wavelengths are stretched by the whole factor, short ones not at all, those between in part.
            const double turns = scaling.original_max_position_embeddings * theta / (2 * std::numbers::pi);
            const double smooth = std::clamp(
                (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor), 0.0, 1.0);
            theta = (1 - smooth) * theta / scaling.factor + smooth * theta;
        }
        frequencies[k] = theta;
    }
    return frequencies;
}

}  // namespace mha2mla

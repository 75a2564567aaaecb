#include <algorithm>

#include "../checkpoint/config_json.hpp"
#include "../support/json_file.hpp"
#include "config_keys.hpp"
#include "families.hpp"
#include "head_order.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/model.hpp"
#include "read_config.hpp"

namespace mha2mla {
namespace {

using Json = nlohmann::ordered_json;
// Larger is a damaged file, not a model. Within these limits no count of parameters or cache bytes overflows 64 bits.
constexpr std::int64_t kMaxWidth = std::int64_t{1} << 22;
constexpr std::int64_t kMaxVocabulary = std::int64_t{1} << 26;
constexpr std::int64_t kMaxLayers = std::int64_t{1} << 12;

}  // namespace

ModelConfig read_config(const std::filesystem::path& config_json) {
    return read_config(read_json_file<Json>(config_json, kMaxConfigBytes), config_json.string());
}

ModelConfig read_config(const Json& json, const std::string& file) {
    if (!json.is_object()) throw Error(ErrorCode::format, file + ": must be a JSON object");
    const ConfigKeys keys(json, file);
    ModelConfig config;
    config.model_type = keys.text("model_type", "");
    if (config.model_type.empty()) keys.fail("model_type", "is missing; is this a Hugging Face config.json?");
    check_family(keys, config.model_type);
    if (keys.find("quantization_config") != nullptr) {
        keys.refuse("the checkpoint is quantised (quantization_config); dequantise it to BF16 first");
    }
    if (keys.find("quantization") != nullptr) {
        keys.refuse("the checkpoint is quantised (quantization, as MLX writes it); take the original in BF16");
    }
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
    // Heads of MLA from the start have keys of their own.
    const bool latent = keys.find("kv_lora_rank") != nullptr;
    const char* head_dim = latent ? "v_head_dim" : "head_dim";
    if (!latent && keys.find("head_dim") == nullptr && config.hidden_size % config.num_attention_heads != 0) {
        keys.fail("num_attention_heads", "must divide hidden_size where head_dim is not given");
    }
    config.head_dim =
        keys.dimension(head_dim, kMaxWidth, std::max<std::int64_t>(1, config.hidden_size / config.num_attention_heads));
    if (config.head_dim % 2 != 0 || config.head_dim > 512) {
        keys.fail(head_dim, "must be even and at most 512, not " + std::to_string(config.head_dim));
    }
    if (config.num_attention_heads * config.head_dim > kMaxWidth) {
        keys.fail("num_attention_heads",
                  "times head_dim is out of range: " + std::to_string(config.num_attention_heads * config.head_dim));
    }
    config.max_position_embeddings = keys.dimension("max_position_embeddings", kMaxPositions, 2048);
    config.tie_word_embeddings = keys.flag("tie_word_embeddings", false);
    config.bos_token_id = keys.integer("bos_token_id");
    config.num_nextn_predict_layers =
        std::clamp<std::int64_t>(keys.integer("num_nextn_predict_layers").value_or(0), 0, kMaxLayers);
    // Left over from another model's config; doctor() tells.
    if (config.bos_token_id && (*config.bos_token_id < 0 || *config.bos_token_id >= config.vocab_size)) {
        config.bos_token_id.reset();
    }
    apply_family(keys, config);
    config.latent = read_latent_config(json, config.attention_shape(), config.num_hidden_layers, file);
    const bool by_family = config.latent && config.latent->layout->model_type.empty();
    if (is_converted_family(config.model_type) && !by_family) {
        keys.fail("mha2mla", "is missing, but model_type '" + config.model_type + "' is that of a converted model");
    }
    if (by_family) {
        refuse_conversion(config);
        // Its heads are in the order of HeadOrder.
        for (LayerRules& rules : config.rules.layers) {
            rules.attention = ordered_attention(rules);
            rules.rotary = ordered_rule(rules.rotary, config.head_dim);
            rules.attention.rotates_before_norm = config.latent->rotates_before_norm;
        }
        if (config.latent->value_heads > 0) config.num_key_value_heads = config.num_attention_heads;
    }
    return config;
}

}  // namespace mha2mla

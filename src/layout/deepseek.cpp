// Layout `deepseek`: tensor names and config.json of transformers' DeepseekV3ForCausalLM (DeepSeek-AI 2024,
// section 2.1.1), which engines load. Every layer's MLP is dense.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "../checkpoint/config_json.hpp"
#include "layouts.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

using Json = nlohmann::ordered_json;

/// A number of config.json; nothing for an absent key and for null.
std::optional<std::int64_t> number(const Json& config, const char* key, std::int64_t low, std::int64_t high,
                                   const std::string& file) {
    const auto found = config.find(key);
    if (found == config.end() || found->is_null()) return std::nullopt;
    if (!found->is_number_integer() || found->get<std::int64_t>() < low || found->get<std::int64_t>() > high) {
        throw Error(ErrorCode::format, file + ": key '" + key + "' must be a whole number from " + std::to_string(low) +
                                           " to " + std::to_string(high) + ", not " + found->dump());
    }
    return found->get<std::int64_t>();
}

std::int64_t needed(const Json& config, const char* key, std::int64_t high, const std::string& file) {
    const auto found = number(config, key, 1, high, file);
    if (!found) throw Error(ErrorCode::format, file + ": key '" + key + "' is missing");
    return *found;
}

/// The base of the original's rotary embedding and its scaling, as transformers 5 nests them.
Json nested_rope(const Json& original) {
    if (const auto found = original.find("rope_parameters"); found != original.end() && found->is_object()) {
        return *found;
    }
    Json rope = Json::object();
    if (const auto scaling = original.find("rope_scaling"); scaling != original.end() && scaling->is_object()) {
        rope = *scaling;
    }
    if (!rope.contains("rope_theta")) rope["rope_theta"] = original.value("rope_theta", Json(10000.0));
    if (!rope.contains("rope_type")) rope["rope_type"] = rope.value("type", "default");
    return rope;
}

/// The same, without the keys by which loaders of this architecture, and they alone, scale the attention as well. What
/// converts has yarn with an attention factor of 1, of which mscale and mscale_all_dim are one way to say it.
Json rope_parameters(const Json& original) {
    Json rope = nested_rope(original);
    rope.erase("partial_rotary_factor");  // all dims of the rotated key rotate
    if (rope.erase("mscale_all_dim") > 0) {
        rope.erase("mscale");
        rope["attention_factor"] = 1.0;
    }
    return rope;
}

/// For a frequency of 0 (pairs that the original does not rotate), which has no divisor: one that turns by nothing.
constexpr double kLeastFrequency = 1e-30;

/// A list of frequencies that all layers share, as divisors of those that an engine starts from.
Json as_longrope(const Json& rope, const std::vector<double>& frequencies, const Json& positions) {
    const double theta = rope.at("rope_theta").get<double>();
    std::vector<double> factors;
    for (const double frequency : frequencies) {
        const auto exponent = static_cast<double>(factors.size()) / static_cast<double>(frequencies.size());
        factors.push_back(std::pow(theta, -exponent) / std::max(frequency, kLeastFrequency));
    }
    return {{"rope_type", "longrope"},
            {"rope_theta", theta},
            {"short_factor", factors},
            {"long_factor", factors},
            {"factor", 1.0},
            {"attention_factor", 1.0},
            {"original_max_position_embeddings", positions}};
}

}  // namespace

std::vector<LatentTensor> deepseek_tensors(const LatentShape& shape) {
    std::vector<LatentTensor> tensors;
    const std::int64_t hidden = shape.hidden, query_rows = shape.latent_query_rows();
    if (shape.query_rank > 0) {
        tensors = {
            {LatentRole::query_down, "self_attn.q_a_proj", shape.query_rank, hidden, Projection::query, true},
            {LatentRole::query_norm, "self_attn.q_a_layernorm", shape.query_rank, 0, Projection::query, false},
            {LatentRole::query, "self_attn.q_b_proj", query_rows, shape.query_rank, Projection::query, false},
        };
    } else {
        tensors = {{LatentRole::query, "self_attn.q_proj", query_rows, hidden, Projection::query, false}};
    }
    tensors.insert(tensors.end(),
                   {
                       {LatentRole::down_and_key_rope, "self_attn.kv_a_proj_with_mqa", shape.kv_rank + shape.rope_dim,
                        hidden, Projection::key, true},
                       {LatentRole::latent_norm, "self_attn.kv_a_layernorm", shape.kv_rank, 0, Projection::key, false},
                       {LatentRole::up, "self_attn.kv_b_proj", shape.up_key_rows() + shape.up_value_rows(),
                        shape.kv_rank, Projection::value, false},
                       {LatentRole::output, "self_attn.o_proj", hidden, shape.query_rows(), Projection::output, true},
                   });
    return tensors;
}

LatentRows deepseek_rows(const LatentShape& shape) {
    const std::int64_t nope = shape.nope_dim();
    return {{nope, nope + shape.rope_dim},
            {0, nope + shape.rope_dim},
            {0, nope + shape.head_dim},
            {nope, nope + shape.head_dim}};
}

std::optional<LatentConfig> read_deepseek_config(const Json& config, const AttentionShape& /*attention*/,
                                                 std::int64_t /*layers*/, const std::string& file) {
    if (!config.contains("kv_lora_rank")) return std::nullopt;
    constexpr std::int64_t kMost = std::int64_t{1} << 20;
    LatentConfig latent;
    latent.rope.strategy = "shared key";
    latent.rope.rope_dim = needed(config, "qk_rope_head_dim", kMost, file);
    latent.kv_rank = needed(config, "kv_lora_rank", kMost, file);
    latent.query_rank = number(config, "q_lora_rank", 1, kMost, file).value_or(0);
    latent.nope_dim = needed(config, "qk_nope_head_dim", kMost, file);
    return latent;
}

std::string deepseek_config_text(const Json& original, const LatentConfig& latent, const LayoutNotes& notes) {
    Json config;
    const bool own_frequencies = latent.frequencies.size() > 1;  // of each layer, which no other loader reads
    config["architectures"] = {own_frequencies ? "Mha2mlaDeepseekForCausalLM" : "DeepseekV3ForCausalLM"};
    config["model_type"] = own_frequencies ? "mha2mla_deepseek" : "deepseek_v3";
    const auto keep = [&](std::initializer_list<const char*> keys) {
        for (const char* key : keys) {
            if (const auto found = original.find(key); found != original.end()) config[key] = *found;
        }
    };
    keep({"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"});
    const Json heads = original.at("num_attention_heads");
    config["num_key_value_heads"] = heads;
    const std::int64_t head_dim = original.contains("head_dim") && original["head_dim"].is_number_integer()
                                      ? original["head_dim"].get<std::int64_t>()
                                      : original.at("hidden_size").get<std::int64_t>() / heads.get<std::int64_t>();
    config["kv_lora_rank"] = latent.kv_rank;
    config["q_lora_rank"] = latent.query_rank > 0 ? Json(latent.query_rank) : Json(nullptr);
    config["qk_rope_head_dim"] = latent.rope.rope_dim;
    config["qk_nope_head_dim"] = head_dim;
    config["v_head_dim"] = head_dim;
    config["qk_head_dim"] = head_dim + latent.rope.rope_dim;
    config["head_dim"] = latent.rope.rope_dim;  // as transformers writes it
    config["first_k_dense_replace"] = original.at("num_hidden_layers");
    config["num_nextn_predict_layers"] = 0;
    config["attention_bias"] = notes.biased;
    keep({"hidden_act", "max_position_embeddings", "rms_norm_eps", "initializer_range", "attention_dropout"});
    config["tie_word_embeddings"] = false;  // the output has the head, for engines that know no tying
    Json rope = rope_parameters(original);
    if (latent.frequencies.size() == 1) {
        rope = as_longrope(rope, latent.frequencies.front(), original.value("max_position_embeddings", Json(2048)));
    }
    if (own_frequencies) {
        auto lists = latent.frequencies;
        for (auto& list : lists) {
            for (double& frequency : list) frequency = std::max(frequency, kLeastFrequency);
        }
        config["rope_frequencies"] = lists;
    }
    config["rope_interleave"] = true;
    config["rope_parameters"] = rope;
    // transformers 4 reads these two.
    config["rope_theta"] = rope.at("rope_theta");
    config["rope_scaling"] = rope.at("rope_type") == "default" ? Json(nullptr) : rope;
    keep({"bos_token_id", "eos_token_id", "pad_token_id", "use_cache", "dtype", "torch_dtype", "transformers_version"});
    return mha2mla::config_text(config);
}

}  // namespace mha2mla

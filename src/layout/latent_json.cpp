#include "latent_json.hpp"

#include <algorithm>

#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

using Json = nlohmann::ordered_json;

[[noreturn]] void fail(const std::string& file, const std::string& key, const std::string& problem) {
    throw Error(ErrorCode::format, file + ": key 'mha2mla." + key + "' " + problem);
}

std::int64_t whole_number(const Json& object, const char* key, std::int64_t low, std::int64_t high,
                          const std::string& file) {
    const auto it = object.find(key);
    if (it == object.end() || !it->is_number_integer()) fail(file, key, "must be a whole number");
    const auto value = it->get<std::int64_t>();
    if (value < low || value > high) fail(file, key, "is out of range: " + std::to_string(value));
    return value;
}

std::string text(const Json& object, const char* key, const std::string& file) {
    const auto it = object.find(key);
    if (it == object.end() || !it->is_string()) fail(file, key, "must be a string");
    return it->get<std::string>();
}

void read_pairs(const Json& object, const ModelConfig& config, const std::string& file, RopeSelection& rope) {
    const std::string shape = "must list, for each of " + std::to_string(config.num_hidden_layers) + " layers and " +
                              std::to_string(config.num_key_value_heads) + " KV heads, " +
                              std::to_string(rope.rope_dim / 2) + " ascending rotary pairs";
    const auto it = object.find("kept_pairs");
    const auto is_list = [](const Json& value, std::int64_t size) {
        return value.is_array() && value.size() == static_cast<std::size_t>(size);
    };
    if (it == object.end() || !is_list(*it, config.num_hidden_layers)) fail(file, "kept_pairs", shape);
    for (const auto& layer : *it) {
        if (!is_list(layer, config.num_key_value_heads)) fail(file, "kept_pairs", shape);
        auto& heads = rope.pairs.emplace_back();
        for (const auto& head : layer) {
            if (!is_list(head, rope.rope_dim / 2)) fail(file, "kept_pairs", shape);
            auto& pairs = heads.emplace_back();
            for (const auto& pair : head) {
                if (!pair.is_number_integer()) fail(file, "kept_pairs", shape);
                const auto value = pair.get<std::int64_t>();
                if (value < 0 || value >= config.num_pairs() || (!pairs.empty() && value <= pairs.back())) {
                    fail(file, "kept_pairs", shape);
                }
                pairs.push_back(value);
            }
        }
    }
}

}  // namespace

LatentConfig latent_from_json(const Json& object, const ModelConfig& config, const std::string& file) {
    if (!object.is_object()) throw Error(ErrorCode::format, file + ": key 'mha2mla' must be an object");
    LatentConfig latent;
    latent.rope.rope_dim = whole_number(object, "rope_dim_for_mla", 0, config.head_dim, file);
    if (latent.rope.rope_dim % 2 != 0) fail(file, "rope_dim_for_mla", "must be even");
    latent.kv_rank = whole_number(object, "kv_rank", 1, std::int64_t{2} * config.hidden_size, file);
    latent.rope.strategy = text(object, "rope_selection", file);
    const std::string method = text(object, "svd_init_method", file);
    const std::string own = object.contains("factorization") ? text(object, "factorization", file) : std::string();
    const auto row = std::find_if(kFactorizations.begin(), kFactorizations.end(), [&](const auto& candidate) {
        return candidate.reference_name == method && (own.empty() || candidate.name == own);
    });
    if (row == kFactorizations.end()) {
        fail(file, "svd_init_method",
             "is unknown: '" + method + "'" + (own.empty() ? "" : " with factorization '" + own + "'"));
    }
    latent.factorization = row->factorization;
    read_pairs(object, config, file, latent.rope);
    return latent;
}

Json latent_to_json(const LatentConfig& latent, const std::string& rank_file, std::int64_t uniform_start) {
    const bool split = latent.factorization == Factorization::split;
    // The reference knows four selections. Any other is handed to it as a rank file, which its 2-norm reads.
    const bool by_rank_file = !rank_file.empty();
    Json json;
    json["partial_rope_version"] = by_rank_file ? "2-norm" : latent.rope.strategy;
    json["rope_dim_for_mla"] = latent.rope.rope_dim;
    json["uniform_start_point"] = uniform_start;
    json["qk_tensor_path"] = by_rank_file ? Json(rank_file) : Json(nullptr);
    json["svd_init_method"] = row_of(latent.factorization).reference_name;
    json["low_rank"] = split ? latent.kv_rank / 2 : latent.kv_rank;
    json["is_baseline"] = false;
    json["is_gqa2mha2mla"] = false;
    json["is_mla_from_scratch"] = false;
    json["format_version"] = 1;
    json["rope_selection"] = latent.rope.strategy;
    json["factorization"] = row_of(latent.factorization).name;
    json["kv_rank"] = latent.kv_rank;
    json["kept_pairs"] = latent.rope.pairs;
    return json;
}

}  // namespace mha2mla

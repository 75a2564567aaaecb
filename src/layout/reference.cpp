// Layout `mha2mla`: rows, names and keys of the MHA2MLA reference implementation, and code with which transformers
// loads them.
#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "layouts.hpp"
#include "loader_code.hpp"
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

void read_pairs(const Json& object, const AttentionShape& attention, std::int64_t layers, const std::string& file,
                RopeSelection& rope) {
    const std::string shape = "must list, for each of " + std::to_string(layers) + " layers and " +
                              std::to_string(attention.num_kv_heads) + " KV heads, " +
                              std::to_string(rope.rope_dim / 2) + " ascending rotary pairs";
    const auto it = object.find("kept_pairs");
    const auto is_list = [](const Json& value, std::int64_t size) {
        return value.is_array() && value.size() == static_cast<std::size_t>(size);
    };
    if (it == object.end() || !is_list(*it, layers)) fail(file, "kept_pairs", shape);
    for (const auto& layer : *it) {
        if (!is_list(layer, attention.num_kv_heads)) fail(file, "kept_pairs", shape);
        auto& heads = rope.pairs.emplace_back();
        for (const auto& head : layer) {
            if (!is_list(head, rope.rope_dim / 2)) fail(file, "kept_pairs", shape);
            auto& pairs = heads.emplace_back();
            for (const auto& pair : head) {
                if (!pair.is_number_integer()) fail(file, "kept_pairs", shape);
                const auto value = pair.get<std::int64_t>();
                if (value < 0 || value >= attention.head_dim / 2 || (!pairs.empty() && value <= pairs.back())) {
                    fail(file, "kept_pairs", shape);
                }
                pairs.push_back(value);
            }
        }
    }
}

bool is_true(const Json& object, const char* key, const std::string& file) {
    const auto it = object.find(key);
    if (it == object.end() || it->is_null()) return false;
    if (!it->is_boolean()) fail(file, key, "must be true or false");
    return it->get<bool>();
}

/// Whether keys are repeated for each query head, which has pairs of its own; values are not. The reference does that
/// with one of its selections alone.
bool has_query_head_keys(const Json& object, const AttentionShape& attention, const std::string& file) {
    return is_true(object, "is_gqa2mha2mla", file) && text(object, "partial_rope_version", file) == "2-norm" &&
           attention.group_size() > 1;
}

/// Where the object is and what it is about.
struct Place {
    const Json& object;
    const AttentionShape& attention;
    std::int64_t layers;
    const std::string& file;
};

/// The pairs that the reference's mask has for every head: dims `start`, `start + step`, ... of both halves.
std::vector<std::int64_t> uniform_pairs(const Place& at, std::int64_t rope_dim) {
    const std::int64_t half = at.attention.head_dim / 2,
                       step = at.attention.head_dim / std::max<std::int64_t>(1, rope_dim);
    const std::int64_t start = whole_number(at.object, "uniform_start_point", 0, half, at.file);
    std::vector<std::int64_t> pairs;
    for (std::int64_t pair = start; pair < half; pair += step) pairs.push_back(pair);
    if (half % step != 0 || start >= step || std::ssize(pairs) != rope_dim / 2) {
        fail(at.file, "rope_dim_for_mla",
             "(" + std::to_string(rope_dim) + ") with uniform_start_point " + std::to_string(start) +
                 " does not select so many evenly spaced dimensions of " + std::to_string(at.attention.head_dim));
    }
    return pairs;
}

/// The rank file that `qk_tensor_path` names, wherever it may have been put.
PairRanks find_rank_file(const Place& at) {
    namespace fs = std::filesystem;
    const fs::path directory = fs::path(at.file).parent_path();
    const auto path = at.object.find("qk_tensor_path");
    const bool named = path != at.object.end() && path->is_string() && !path->get_ref<const std::string&>().empty();
    const fs::path name = named ? fs::path(path->get<std::string>()) : fs::path("2_norm_rank.pth");
    for (const fs::path& candidate : {directory / name.filename(), directory / name, name}) {
        std::error_code ignored;
        if (fs::is_regular_file(candidate, ignored)) return read_rank_file(candidate);
    }
    throw Error(ErrorCode::io, at.file +
                                   ": partial_rope_version is 2-norm, but the rank file that says which rotary pairs "
                                   "were kept is missing: put " +
                                   name.filename().string() +
                                   (named ? "" : ", which calibration of the original gave,") + " into " +
                                   (directory.empty() ? "." : directory.string()));
}

/// What selection and shapes follow from the keys of the reference alone, in a checkpoint that its code wrote.
void read_what_the_reference_wrote(const Place& at, const FactorizationRow& row, LatentConfig& latent) {
    const AttentionShape& attention = at.attention;
    const std::int64_t rank = whole_number(at.object, "low_rank", 0, std::int64_t{2} * attention.hidden, at.file);
    latent.kv_rank = std::max<std::int64_t>(1, row.halves_rank() ? 2 * rank : rank);
    latent.rope.strategy = text(at.object, "partial_rope_version", at.file);
    latent.norms_by_part = true;
    const std::int64_t dim = latent.rope.rope_dim, count = dim / 2;
    const auto in_all_heads = [&](const std::vector<std::int64_t>& pairs) {
        const auto heads = static_cast<std::size_t>(attention.num_kv_heads);
        latent.rope.pairs.assign(static_cast<std::size_t>(at.layers), LayerPairs(heads, pairs));
    };
    const auto from = [&](std::int64_t first) {
        std::vector<std::int64_t> pairs(static_cast<std::size_t>(count));
        std::iota(pairs.begin(), pairs.end(), first);
        return pairs;
    };
    if (latent.rope.strategy == "high") return in_all_heads(from(0));
    if (latent.rope.strategy == "low") return in_all_heads(from(attention.head_dim / 2 - count));
    if (latent.rope.strategy == "uniform") return in_all_heads(uniform_pairs(at, dim));
    if (latent.rope.strategy != "2-norm") {
        fail(at.file, "partial_rope_version",
             "is '" + latent.rope.strategy + "'; supported: high, low, uniform, 2-norm");
    }
    const bool expanded = has_query_head_keys(at.object, attention, at.file);
    const PairRanks ranks = find_rank_file(at);
    const std::int64_t heads = expanded ? attention.num_heads : attention.num_kv_heads;
    if (ranks.layers != at.layers || ranks.kv_heads != heads || ranks.head_dim != attention.head_dim) {
        fail(at.file, "qk_tensor_path",
             "names ranks of another model: they are for " + std::to_string(ranks.layers) + " layers with " +
                 std::to_string(ranks.kv_heads) + " heads of " + std::to_string(ranks.head_dim) + ", not " +
                 std::to_string(at.layers) + " with " + std::to_string(heads) + " of " +
                 std::to_string(attention.head_dim));
    }
    for (std::int64_t layer = 0; layer < at.layers; ++layer) latent.rope.pairs.push_back(kept_pairs(ranks, layer, dim));
    if (expanded) latent.value_heads = attention.num_kv_heads;
}

Json object_of(const LatentConfig& latent, const LayoutNotes& notes) {
    const FactorizationRow& row = row_of(latent.factorization);
    // The reference knows four selections. Any other is handed to it as a rank file, which its 2-norm reads.
    const bool by_rank_file = !notes.rank_file.empty();
    Json json;
    json["partial_rope_version"] = by_rank_file ? "2-norm" : latent.rope.strategy;
    json["rope_dim_for_mla"] = latent.rope.rope_dim;
    json["uniform_start_point"] = notes.uniform_start;
    json["qk_tensor_path"] = by_rank_file ? Json(notes.rank_file) : Json(nullptr);
    json["svd_init_method"] = row.reference_name;
    json["low_rank"] = row.halves_rank() ? latent.kv_rank / 2 : latent.kv_rank;
    json["is_baseline"] = false;
    json["is_gqa2mha2mla"] = latent.value_heads > 0;
    json["is_mla_from_scratch"] = false;
    json["format_version"] = 1;
    json["rope_selection"] = latent.rope.strategy;
    json["factorization"] = row.name;
    json["kv_rank"] = latent.kv_rank;
    json["kept_pairs"] = latent.rope.pairs;
    if (notes.aligned) json["aligned"] = true;
    if (latent.norms_by_part) json["norms_by_part"] = true;
    return json;
}

/// As transformers writes it in names of classes: qwen2_moe is Qwen2Moe.
std::string in_camel_case(const std::string& family) {
    std::string name;
    bool begins = true;
    for (const char c : family) {
        if (c != '_') name += begins && c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
        begins = c == '_';
    }
    return name;
}

/// Names classes of the output's own, so that no loader takes it for an original: those of loader_files(), where there
/// are some for the original's family. @param config the original's.
void name_classes(Json& config) {
    const bool loaded = reference_has_classes(config);
    const auto family = config.at("model_type").get<std::string>();
    config["model_type"] = std::string(kConvertedPrefix) + family;
    const std::string start = "Mha2mla" + in_camel_case(family);
    config["architectures"] = {start + "ForCausalLM"};
    if (!loaded) return;
    config["auto_map"] = {{"AutoConfig", "configuration_mha2mla." + start + "Config"},
                          {"AutoModel", "modeling_mha2mla." + start + "Model"},
                          {"AutoModelForCausalLM", "modeling_mha2mla." + start + "ForCausalLM"}};
}

/// What transformers 5 nests or renames, also as version 4 reads it, which would take a default instead.
void add_old_keys(Json& config) {
    const auto rope = config.find("rope_parameters");
    if (rope != config.end() && rope->is_object() && rope->contains("rope_theta")) {
        Json scaling = *rope;
        const Json theta = scaling.at("rope_theta");
        scaling.erase("rope_theta");
        if (!config.contains("rope_theta")) config["rope_theta"] = theta;
        const bool scales = scaling.value("rope_type", Json("default")) != "default";
        if (!config.contains("rope_scaling")) config["rope_scaling"] = scales ? scaling : Json(nullptr);
    }
    if (config.contains("dtype") && !config.contains("torch_dtype")) config["torch_dtype"] = config.at("dtype");
}

}  // namespace

std::vector<LatentTensor> reference_tensors(const LatentShape& shape) {
    const LatentWidths widths = shape.widths();
    const bool shared = shares_latent(shape.factorization);
    const std::int64_t hidden = shape.hidden;
    std::vector<LatentTensor> tensors = {
        {LatentRole::query, "self_attn.q_proj", shape.latent_query_rows(), hidden, Projection::query, true},
        {LatentRole::key_rope, "self_attn.k_r_proj", shape.rope_rows(), hidden, Projection::key, true},
    };
    const auto add_down = [&](LatentRole role, std::string_view name, std::int64_t rows, Projection from) {
        if (rows > 0) tensors.push_back({role, name, rows, hidden, from, false});
    };
    add_down(LatentRole::down, "self_attn.kv_proj.down_kv", shared ? widths.key : 0, Projection::key);
    add_down(LatentRole::down_key, "self_attn.kv_proj.down_k", shared ? 0 : widths.key, Projection::key);
    add_down(LatentRole::down_value, "self_attn.kv_proj.down_v", shared ? 0 : widths.value, Projection::value);
    // An up projection without a down projection reads the hidden states.
    tensors.insert(tensors.end(),
                   {
                       {LatentRole::up_key, "self_attn.kv_proj.up_k", shape.up_key_rows(),
                        widths.key > 0 ? widths.key : hidden, Projection::key, true},
                       {LatentRole::up_value, "self_attn.kv_proj.up_v", shape.up_value_rows(),
                        widths.value > 0 ? widths.value : hidden, Projection::value, true},
                       {LatentRole::output, "self_attn.o_proj", hidden, shape.query_rows(), Projection::output, true},
                   });
    return tensors;
}

LatentRows reference_rows(const LatentShape& shape) {
    const std::int64_t nope = shape.nope_dim();
    return {{0, shape.rope_dim}, {shape.num_heads * shape.rope_dim, nope}, {0, nope}, {0, shape.head_dim}};
}

/// The object `mha2mla`: the reference's own keys and, beside them, ours.
std::optional<LatentConfig> read_reference_config(const Json& config, const AttentionShape& attention,
                                                  std::int64_t layers, const std::string& file) {
    const auto found = config.find("mha2mla");
    if (found == config.end() || found->is_null()) return std::nullopt;
    const Json& object = *found;
    if (!object.is_object()) throw Error(ErrorCode::format, file + ": key 'mha2mla' must be an object");
    if (is_true(object, "is_baseline", file)) return std::nullopt;  // fine-tuned, not converted
    LatentConfig latent;
    latent.rope.rope_dim = whole_number(object, "rope_dim_for_mla", 0, attention.head_dim, file);
    if (latent.rope.rope_dim % 2 != 0) fail(file, "rope_dim_for_mla", "must be even");
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
    const std::string family = config.value("model_type", "");
    if (!object.contains("kept_pairs")) {
        read_what_the_reference_wrote({object, attention, layers, file}, *row, latent);
    } else {
        latent.kv_rank = whole_number(object, "kv_rank", 1, std::int64_t{2} * attention.hidden, file);
        latent.rope.strategy = text(object, "rope_selection", file);
        AttentionShape selected = attention;
        if (has_query_head_keys(object, attention, file)) {
            latent.value_heads = attention.num_kv_heads;
            selected.num_kv_heads = attention.num_heads;
        }
        read_pairs(object, selected, layers, file, latent.rope);
        latent.norms_by_part = is_true(object, "norms_by_part", file);
    }
    latent.rotates_before_norm = latent.norms_by_part && family == "qwen3";
    return latent;
}

/// Whether the classes of loader_files() compute what a model with this configuration computes.
bool reference_has_classes(const Json& config) {
    constexpr std::array<std::string_view, 6> kFamilies = {"llama", "mistral", "ministral",
                                                           "qwen2", "mixtral", "qwen2_moe"};
    const auto family = config.at("model_type").get<std::string>();
    if (std::find(kFamilies.begin(), kFamilies.end(), family) == kFamilies.end()) return false;
    const auto window = config.find("sliding_window");
    if (window == config.end() || !window->is_number() || family == "llama") return true;
    return family.starts_with("qwen2") && !config.value("use_sliding_window", false);
}

std::vector<LoaderFile> reference_loader_files() {
    return {{"configuration_mha2mla.py", loader_code_configuration_mha2mla_py()},
            {"modeling_mha2mla.py", loader_code_modeling_mha2mla_py()}};
}

/// Every key of the original is kept, but for those that name the classes that load it.
std::string reference_config_text(const Json& config, const LatentConfig& latent, const LayoutNotes& notes) {
    Json changed = config;
    if (!notes.reference) name_classes(changed);
    add_old_keys(changed);
    changed["mha2mla"] = object_of(latent, notes);
    // A number a line would make thousands of lines of the pairs; a layer a line can be read.
    Json& pairs = changed["mha2mla"]["kept_pairs"];
    std::string compact;
    for (const auto& layer : pairs) compact += (compact.empty() ? "\n      " : ",\n      ") + layer.dump();
    pairs = nullptr;
    std::string text = changed.dump(2) + "\n";
    const std::string empty = "\"kept_pairs\": null";
    const std::size_t object = text.find("\n  \"mha2mla\": {");  // other objects may have such a key too
    return text.replace(text.find(empty, object), empty.size(), "\"kept_pairs\": [" + compact + "\n    ]");
}

}  // namespace mha2mla

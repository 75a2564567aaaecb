#include "mha2mla/fingerprint.hpp"

#include <algorithm>

#include "../support/hash.hpp"
#include "../support/json_file.hpp"
#include "mha2mla/conversion_request.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/version.hpp"
#include "output_files.hpp"

namespace mha2mla {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kSample = 4096;

std::string weight_file_hash(const SafetensorsFile& file) {
    Hasher hasher;
    const auto bytes = file.file().bytes();
    std::uint64_t data_start = bytes.size();
    for (const auto& tensor : file.tensors()) data_start = std::min(data_start, tensor.file_offset);
    hasher.add(bytes.first(static_cast<std::size_t>(data_start)));
    for (const auto& tensor : file.tensors()) {
        const std::size_t count = std::min(kSample, tensor.data.size());
        hasher.add(tensor.data.first(count));
        hasher.add(tensor.data.last(count));
    }
    return hasher.hex();
}

Json balance_json(const KvBalance& balance) {
    switch (balance.how) {
        case KvBalance::How::automatic:
            return "auto";
        case KvBalance::How::none:
            return "none";
        case KvBalance::How::factor:
            break;
    }
    return balance.factor;
}

// One row for each member below; a new member does not compile until it is added.

Json stages_json(const StagedPlan& stages) {
    const auto& [rope, kv_rank, factorization, svd, balance, nope_phase, query_head_keys] = stages;
    const auto& [strategy, rope_dim, uniform_start] = rope;
    const auto& [sigma, method, max_excess] = svd;
    Json json;
    json["rope"] = strategy;
    json["rope-dim"] = rope_dim;
    json["uniform-start"] = uniform_start;
    json["kv-rank"] = kv_rank;
    json["svd"] = row_of(factorization).name;
    if (row_of(factorization).needs_moments()) json["kv-balance"] = balance_json(balance);
    if (nope_phase == NopePhase::fitted) json["nope-phase"] = "fitted";
    if (query_head_keys) json["gqa2mha"] = true;
    json["sigma"] = kSigmaPlacements.at(static_cast<std::size_t>(sigma)).name;
    json["svd-method"] = kSvdMethods.at(static_cast<std::size_t>(method)).name;
    json["svd-excess"] = max_excess;
    return json;
}

/// The choices follow from these settings and the text.
Json request_json(const AlignOptions& options, std::string_view method) {
    const auto& [reduction, rope_dim, kv_rank, quality, layout, frequencies, basis, latent_norm, pad, without_bias] =
        options;
    Json json;
    (void)basis;  // the method's
    json["method"] = method;
    json["layout"] = layout->name;
    if (layout->shared_rope_key) {
        json["rope-frequencies"] = kRopeFrequencies.at(static_cast<std::size_t>(frequencies)).name;
        json["latent-norm"] = kLatentNorms.at(static_cast<std::size_t>(latent_norm)).name;
        if (pad) json["pad"] = true;
        if (without_bias) json["without-bias"] = true;
    }
    json["kv-reduction"] = reduction;
    json["quality"] = quality.name;
    json["rope-dim"] = rope_dim ? Json(*rope_dim) : Json("chosen");
    json["kv-rank"] = kv_rank ? Json(*kv_rank) : Json("chosen");
    return json;
}

Json settings_json(const ConversionPlan& plan, const RunLimits& limits) {
    const auto& [weights, dtype, reference_config] = plan;
    Json json = plan.staged() != nullptr ? stages_json(*plan.staged())
                                         : request_json(plan.aligned()->options, method_of(plan).name);
    (void)weights;
    if (!plan.layout().shared_rope_key) json["reference-config"] = reference_config;
    json["dtype"] = dtype ? dtype_name(*dtype) : "auto";
    json["max-shard-size"] = limits.max_shard_bytes;
    return json;
}

/// "owner/name" of a directory ".../models--owner--name/snapshots/<revision>" in the Hub's cache; otherwise "".
std::string name_in_hub_cache(const std::filesystem::path& directory) {
    constexpr std::string_view kModels = "models--";
    std::string name = directory.parent_path().parent_path().filename().string();
    if (directory.parent_path().filename() != "snapshots" || !name.starts_with(kModels)) return "";
    name.erase(0, kModels.size());
    const auto dashes = name.find("--");
    return dashes == std::string::npos ? name : name.replace(dashes, 2, "/");
}

std::string shown(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

/// "/settings/kv-rank" -> "kv-rank": settings are shown by their names.
std::string shown_name(const std::string& pointer) {
    constexpr std::string_view kSettings = "/settings/";
    if (pointer.empty()) return "fingerprint";  // of a file that was edited
    return pointer.starts_with(kSettings) ? pointer.substr(kSettings.size()) : pointer.substr(1);
}

}  // namespace

std::string file_hash(const std::filesystem::path& path) { return hash_of(MappedFile(path).bytes()); }

std::string text_hash(std::string_view text) { return hash_of(std::as_bytes(std::span(text))); }

std::string base_model(const Model& source) {
    const auto directory = std::filesystem::weakly_canonical(source.checkpoint.directory());
    const auto config = read_json_file(directory / "config.json");
    std::string name = config.value("_name_or_path", nlohmann::json()).is_string()
                           ? config.at("_name_or_path").get<std::string>()
                           : std::string();
    const auto slash = name.find('/');
    const bool on_hub = slash != std::string::npos && slash > 0 && slash + 1 < name.size() && name[0] != '.' &&
                        name.find('/', slash + 1) == std::string::npos;
    if (on_hub) return name;
    std::string cached = name_in_hub_cache(directory);
    return cached.empty() ? directory.filename().string() : cached;
}

Json source_fingerprint(const Model& source) {
    Json json;
    for (const auto& file : source.checkpoint.files()) {
        json[file.path().filename().string()] = {{"bytes", file.file().bytes().size()},
                                                 {"sample", weight_file_hash(file)}};
    }
    const auto& directory = source.checkpoint.directory();
    json["config.json"] = file_hash(directory / "config.json");
    for (const auto& name : side_files(source.checkpoint).copied) json[name] = file_hash(directory / name);
    return json;
}

Json conversion_fingerprint(const Model& source, const ConversionPlan& plan, const RunLimits& limits,
                            const Provenance& provenance) {
    return with_errors([&] {
        Json json;
        json["version"] = version();
        json["settings"] = settings_json(plan, limits);
        json["statistics"] = provenance.ranks_from;
        json["source"] = source_fingerprint(source);
        return json;
    });
}

std::string differences(const Json& was, const Json& is) {
    constexpr std::size_t kShown = 3;
    std::vector<std::string> found;
    const Json before = was.flatten(), now = is.flatten();
    for (const auto& [pointer, value] : now.items()) {
        const auto it = before.find(pointer);
        if (it == before.end()) {
            found.push_back(shown_name(pointer) + " was not there and is " + shown(value));
        } else if (*it != value) {
            found.push_back(shown_name(pointer) + " was " + shown(*it) + " and is " + shown(value));
        }
    }
    for (const auto& [pointer, value] : before.items()) {
        if (!now.contains(pointer)) found.push_back(shown_name(pointer) + " was " + shown(value) + " and is not there");
    }
    std::string text;
    for (std::size_t i = 0; i < std::min(kShown, found.size()); ++i) text += (i == 0 ? "" : ", ") + found[i];
    if (found.size() > kShown) text += " and " + std::to_string(found.size() - kShown) + " more";
    return text;
}

}  // namespace mha2mla

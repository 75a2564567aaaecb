#include <charconv>
#include <cmath>
#include <cstring>

#include "mha2mla/calibration.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

constexpr const char* kFormat = "mha2mla statistics 1";

std::vector<std::byte> bytes_of(const std::vector<double>& values) {
    const auto bytes = std::as_bytes(std::span(values));
    return {bytes.begin(), bytes.end()};
}

/// A non-negative F64 tensor of three dimensions.
std::vector<double> read_norms(const SafetensorsFile& file, const char* name, Shape& shape) {
    const TensorView* tensor = file.find(name);
    if (tensor == nullptr || tensor->dtype != Dtype::f64 || tensor->shape.size() != 3) {
        throw Error(ErrorCode::format, file.path().string() + ": needs a tensor '" + name +
                                           "' of F64 [layers, heads, "
                                           "pairs]; is it the output of calibrate?");
    }
    shape = tensor->shape;
    std::vector<double> values(element_count(shape));
    if (!values.empty()) std::memcpy(values.data(), tensor->data.data(), tensor->data.size());
    for (const double value : values) {
        if (!std::isfinite(value) || value < 0) {
            throw Error(ErrorCode::format, file.path().string() + ": tensor '" + name +
                                               "' holds a norm that is "
                                               "negative or not finite; calibrate again");
        }
    }
    return values;
}

std::int64_t metadata_number(const SafetensorsFile& file, const char* key) {
    const auto it = file.metadata().find(key);
    const std::string text = it == file.metadata().end() ? "" : it->second;
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < 0) {
        throw Error(ErrorCode::format, file.path().string() + ": metadata '" + key + "' must be a number");
    }
    return value;
}

}  // namespace

void save_stats(const std::filesystem::path& path, const CalibrationStats& stats) {
    std::map<std::string, std::string> metadata = {{"format", kFormat},
                                                   {"model", stats.model},
                                                   {"data", stats.data},
                                                   {"sequences", std::to_string(stats.sequences)},
                                                   {"seq_len", std::to_string(stats.seq_len)},
                                                   {"tokens", std::to_string(stats.sequences * stats.seq_len)}};
    if (stats.settling) {
        metadata["settling_rope_dim"] = std::to_string(stats.settling->rope_dim);
        metadata["unsettled_layers"] = std::to_string(stats.settling->unsettled_layers);
    }
    write_safetensors(path,
                      {{"mean_query_norm", Dtype::f64, {stats.layers, stats.heads, stats.pairs}},
                       {"mean_key_norm", Dtype::f64, {stats.layers, stats.kv_heads, stats.pairs}}},
                      {bytes_of(stats.mean_query_norm), bytes_of(stats.mean_key_norm)}, metadata);
}

CalibrationStats load_stats(const std::filesystem::path& path) {
    const SafetensorsFile file(path);
    const auto text = [&](const char* key) {
        const auto it = file.metadata().find(key);
        return it == file.metadata().end() ? std::string() : it->second;
    };
    if (text("format") != kFormat) {
        throw Error(ErrorCode::format, path.string() + ": not a statistics file; make one with calibrate");
    }
    CalibrationStats stats;
    Shape query, key;
    stats.mean_query_norm = read_norms(file, "mean_query_norm", query);
    stats.mean_key_norm = read_norms(file, "mean_key_norm", key);
    if (query[0] != key[0] || query[2] != key[2] || key[1] < 1 || query[1] % key[1] != 0) {
        throw Error(ErrorCode::format, path.string() + ": shapes of queries " + to_string(query) + " and keys " +
                                           to_string(key) + " do not belong together");
    }
    stats.layers = query[0];
    stats.heads = query[1];
    stats.kv_heads = key[1];
    stats.pairs = query[2];
    stats.model = text("model");
    stats.data = text("data");
    stats.sequences = metadata_number(file, "sequences");
    stats.seq_len = metadata_number(file, "seq_len");
    if (file.metadata().count("unsettled_layers") != 0) {
        stats.settling = {metadata_number(file, "settling_rope_dim"), metadata_number(file, "unsettled_layers")};
    }
    return stats;
}

void check_stats_fit(const CalibrationStats& stats, const ModelConfig& config, const std::string& name) {
    const Shape have{stats.layers, stats.heads, stats.kv_heads, stats.pairs};
    const Shape want{config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads,
                     config.num_pairs()};
    if (have != want) {
        throw Error(ErrorCode::usage, name + ": statistics of another model: [layers, heads, KV heads, pairs] is " +
                                          to_string(have) + ", the checkpoint's is " + to_string(want));
    }
}

}  // namespace mha2mla

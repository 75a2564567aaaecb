#include <cmath>
#include <cstring>

#include "mha2mla/calibration.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/safetensors_writer.hpp"
#include "stats_inputs.hpp"

namespace mha2mla {
namespace {

constexpr const char* kFormat = "mha2mla statistics 1";
constexpr const char* kShardKey = "shard";
constexpr const char* kRunKey = "run";
constexpr std::int64_t kMostLayers = std::int64_t{1} << 12U;  // of a model

template <typename Value>
std::vector<std::byte> bytes_of(const std::vector<Value>& values) {
    const auto bytes = std::as_bytes(std::span(values));
    return {bytes.begin(), bytes.end()};
}

/// Reads a non-negative F64 tensor of three dimensions.
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

/// Checks that the ranks of each head are a permutation.
std::vector<std::uint8_t> read_ranks(const SafetensorsFile& file, const TensorView& tensor, const Shape& norms) {
    const auto refuse = [&](const std::string& problem) {
        throw Error(ErrorCode::format, file.path().string() + ": tensor '" + tensor.name + "' " + problem,
                    Remedy::calibrate_with_order);
    };
    if (tensor.dtype != Dtype::u8 || tensor.shape != norms) {
        refuse("must be U8 " + to_string(norms) + ", not " + std::string(dtype_name(tensor.dtype)) + " " +
               to_string(tensor.shape));
    }
    std::vector<std::uint8_t> ranks(tensor.data.size());
    if (!ranks.empty()) std::memcpy(ranks.data(), tensor.data.data(), ranks.size());
    const auto pairs = static_cast<std::size_t>(norms[2]);
    for (std::size_t first = 0; first < ranks.size(); first += pairs) {
        std::vector<bool> seen(pairs);
        for (std::size_t i = first; i < first + pairs; ++i) {
            if (ranks[i] >= pairs || seen[ranks[i]]) refuse("does not rank each pair of a head once");
            seen[ranks[i]] = true;
        }
    }
    return ranks;
}

}  // namespace

void save_stats(const std::filesystem::path& path, const CalibrationStats& stats, Observer& observer) {
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
    if (stats.part) {
        metadata[kShardKey] = stats.part->shard.text();
        metadata[kRunKey] = stats.part->run;
    }
    std::vector<TensorSpec> tensors = {{"mean_query_norm", Dtype::f64, {stats.layers, stats.heads, stats.pairs}},
                                       {"mean_key_norm", Dtype::f64, {stats.layers, stats.kv_heads, stats.pairs}}};
    std::vector<std::function<std::vector<std::byte>()>> data = {[&] { return bytes_of(stats.mean_query_norm); },
                                                                 [&] { return bytes_of(stats.mean_key_norm); }};
    for (const auto& [statistic, ranks] : stats.orders) {
        tensors.push_back({statistic + kOrderSuffix, Dtype::u8, {stats.layers, stats.kv_heads, stats.pairs}});
        data.emplace_back([&ranks = ranks] { return bytes_of(ranks); });
    }
    if (stats.inputs != nullptr && stats.inputs->extent().moments) {
        const LayerInputs& inputs = *stats.inputs;
        const auto& [layers, hidden, tokens, seq_len, moments] = inputs.extent();
        metadata[kSampleSeqLenKey] = std::to_string(seq_len);
        for (std::int64_t layer = 0; layer < layers; ++layer) {
            tensors.push_back({moment_name(layer), Dtype::f64, {hidden * (hidden + 1) / 2}});
            data.emplace_back([&inputs, layer, count = element_count(tensors.back().shape)] {
                std::vector<double> upper(count);
                inputs.read_moment(layer, upper);
                return bytes_of(upper);
            });
            tensors.push_back({sample_name(layer), Dtype::f32, {tokens, hidden}});
            data.emplace_back([&inputs, layer, count = element_count(tensors.back().shape)] {
                std::vector<float> rows(count);
                inputs.read_sample(layer, rows);
                return bytes_of(rows);
            });
        }
    }
    std::vector<std::byte> bytes;
    const auto next = [&](std::size_t i) {
        observer.step("save statistics", static_cast<std::int64_t>(i), static_cast<std::int64_t>(data.size()));
        bytes = data[i]();
        return std::span<const std::byte>(bytes);
    };
    write_safetensors(path, tensors, next, metadata);
    observer.progress("save statistics", static_cast<std::int64_t>(data.size()),
                      static_cast<std::int64_t>(data.size()));
}

CalibrationStats load_stats(const std::filesystem::path& path) {
    const auto opened = std::make_shared<SafetensorsFile>(path);
    const SafetensorsFile& file = *opened;
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
    if (query[0] > kMostLayers) {
        throw Error(ErrorCode::format, path.string() + ": has statistics of " + std::to_string(query[0]) +
                                           " layers, more than any model that can be read");
    }
    for (const TensorView& tensor : file.tensors()) {
        if (!tensor.name.ends_with(kOrderSuffix)) continue;
        stats.orders[tensor.name.substr(0, tensor.name.rfind(kOrderSuffix))] = read_ranks(file, tensor, key);
    }
    stats.inputs = inputs_of_file(opened, query[0]);
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
    if (const std::string shard = text(kShardKey); !shard.empty()) {
        try {
            stats.part = {parse_shard(shard), text(kRunKey)};
        } catch (const Error&) {
            throw Error(ErrorCode::format, path.string() + ": metadata 'shard' is not a share such as 2/5");
        }
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
    if (stats.inputs != nullptr && stats.inputs->extent().hidden != config.hidden_size) {
        throw Error(ErrorCode::usage, name + ": statistics of another model: hidden_size is " +
                                          std::to_string(stats.inputs->extent().hidden) + ", the checkpoint's is " +
                                          std::to_string(config.hidden_size));
    }
}

}  // namespace mha2mla

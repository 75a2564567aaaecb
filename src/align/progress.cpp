#include "progress.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "../latent/build_layer.hpp"
#include "../support/hash.hpp"
#include "mha2mla/checkpoint.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/safetensors_writer.hpp"

namespace mha2mla {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "mha2mla alignment 1";
constexpr std::array<const char*, 6> kWeightNames = {"q", "k_rope", "down", "up_k", "up_v", "o"};

std::string open_name(std::size_t layer, const char* what) { return "open." + std::to_string(layer) + "." + what; }

Json split_json(const Split& split) { return {split.rope_dim, split.kv_rank, split.error}; }
Split split_from_json(const Json& json) { return {json.at(0), json.at(1), json.at(2)}; }

/// Tensors and their data, in the order in which they are written and hashed.
struct Contents {
    std::vector<TensorSpec> tensors;
    std::vector<std::span<const std::byte>> data;

    void add(std::string name, const Matrix& matrix) {
        tensors.push_back({std::move(name), Dtype::f32, {matrix.rows(), matrix.cols()}});
        data.push_back(std::as_bytes(std::span(matrix.data(), static_cast<std::size_t>(matrix.size()))));
    }
};

std::string hash_contents(std::string_view numbers, const std::vector<std::span<const std::byte>>& data) {
    Hasher hasher;
    hasher.add(numbers);
    for (const auto bytes : data) hasher.add(bytes);
    return hasher.hex();
}

/// Reads what save_progress() wrote, with every size checked: Error{format} says that it does not fit.
class Reader {
public:
    explicit Reader(const SafetensorsFile& file) : file_(file) {}

    std::span<const std::byte> read(const std::string& name, Dtype dtype, const Shape& shape) {
        const TensorView* tensor = file_.find(name);
        if (tensor == nullptr || tensor->dtype != dtype || tensor->shape != shape) {
            throw Error(ErrorCode::format, file_.path().string() + ": '" + name + "' does not fit the model");
        }
        data_.push_back(tensor->data);
        return tensor->data;
    }
    void read(const std::string& name, std::int64_t rows, std::int64_t columns, Matrix& to) {
        const auto bytes = read(name, Dtype::f32, {rows, columns});
        to.resize(rows, columns);
        std::copy(bytes.begin(), bytes.end(), reinterpret_cast<std::byte*>(to.data()));
    }
    std::string metadata(const char* key) const {
        const auto it = file_.metadata().find(key);
        return it == file_.metadata().end() ? std::string() : it->second;
    }
    [[nodiscard]] const std::vector<std::span<const std::byte>>& data() const { return data_; }
    [[nodiscard]] std::int64_t rows(const std::string& name) const {
        const TensorView* tensor = file_.find(name);
        return tensor == nullptr ? 0 : tensor->rows();
    }

private:
    const SafetensorsFile& file_;
    std::vector<std::span<const std::byte>> data_;
};

void read_open_layer(Reader& reader, const Model& model, std::size_t index, AlignProgress& progress) {
    const ModelConfig& config = model.config;
    const std::int64_t at = progress.layer + static_cast<std::int64_t>(index);
    const std::int64_t rank = config.num_key_value_heads * progress.chosen.kv_rank;
    auto& open = progress.open.emplace_back();
    open.latent = layer_of_original(model, at, kept_pairs(progress.ranks, at, progress.chosen.rope_dim));
    LatentWeights& weights = open.latent.weights;
    weights.down.resize(rank, config.hidden_size);
    weights.up_k.resize(config.num_key_value_heads * (config.head_dim - progress.chosen.rope_dim), rank);
    weights.up_v.resize(config.num_key_value_heads * config.head_dim, rank);
    for (std::size_t i = 0; i < kWeightNames.size(); ++i) {
        Matrix& matrix = *matrices(weights)[i];
        reader.read(open_name(index, kWeightNames[i]), matrix.rows(), matrix.cols(), matrix);
    }
    const std::string behind = open_name(index, "behind_attention");
    reader.read(behind, std::min<std::int64_t>(reader.rows(behind), progress.original.rows()), config.hidden_size,
                open.behind_attention);
}

void read_progress(const SafetensorsFile& file, const Model& model, std::int64_t seq_len, AlignProgress& progress) {
    const ModelConfig& config = model.config;
    Reader reader(file);
    const std::string numbers = reader.metadata("progress");
    const Json json = Json::parse(numbers);
    progress.layer = json.at("layer");
    progress.steps_done = json.at("steps");
    progress.chosen = split_from_json(json.at("chosen"));
    for (const Json& split : json.at("tried")) progress.tried.push_back(split_from_json(split));
    const std::int64_t open = json.at("open");
    const auto& [rope_dim, kv_rank, error] = progress.chosen;
    const std::int64_t tokens = reader.rows("original");
    const bool fits = progress.layer >= 0 && open >= 0 && progress.layer <= config.num_hidden_layers - open &&
                      rope_dim > 0 && rope_dim < config.head_dim && rope_dim % 2 == 0 && kv_rank > 0 &&
                      kv_rank <= 2 * config.head_dim && tokens > 0 && tokens % seq_len == 0;
    if (reader.metadata("format") != kFormat || !fits) {
        throw Error(ErrorCode::format, file.path().string() + ": does not fit the model");
    }
    PairRanks& ranks = progress.ranks;
    ranks = {config.num_hidden_layers, config.num_key_value_heads, config.head_dim, {}};
    const auto values = reader.read("ranks", Dtype::u8, {ranks.layers, ranks.kv_heads, ranks.head_dim});
    for (const std::byte value : values) ranks.values.push_back(std::to_integer<std::uint8_t>(value));
    reader.read("original", tokens, config.hidden_size, progress.original);
    reader.read("converted", tokens, config.hidden_size, progress.converted);
    for (std::int64_t i = 0; i < open; ++i) read_open_layer(reader, model, static_cast<std::size_t>(i), progress);
    if (hash_contents(numbers, reader.data()) != reader.metadata("hash")) {
        throw Error(ErrorCode::format, file.path().string() + ": damaged");
    }
}

}  // namespace

void save_progress(const std::filesystem::path& path, const AlignProgress& progress) {
    Json json;
    json["layer"] = progress.layer;
    json["open"] = progress.open.size();
    json["steps"] = progress.steps_done;
    json["chosen"] = split_json(progress.chosen);
    json["tried"] = Json::array();
    for (const Split& split : progress.tried) json["tried"].push_back(split_json(split));
    Contents contents;
    const PairRanks& ranks = progress.ranks;
    contents.tensors.push_back({"ranks", Dtype::u8, {ranks.layers, ranks.kv_heads, ranks.head_dim}});
    contents.data.push_back(std::as_bytes(std::span(ranks.values)));
    contents.add("original", progress.original);
    contents.add("converted", progress.converted);
    for (std::size_t i = 0; i < progress.open.size(); ++i) {
        const LatentWeights& weights = progress.open[i].latent.weights;
        for (std::size_t k = 0; k < kWeightNames.size(); ++k) {
            contents.add(open_name(i, kWeightNames[k]), *matrices(weights)[k]);
        }
        contents.add(open_name(i, "behind_attention"), progress.open[i].behind_attention);
    }
    const std::string numbers = json.dump();
    write_safetensors(path, contents.tensors, [&](std::size_t i) { return contents.data[i]; },
                      {{"format", kFormat}, {"progress", numbers}, {"hash", hash_contents(numbers, contents.data)}});
}

bool load_progress(const std::filesystem::path& path, const Model& model, std::int64_t seq_len,
                   AlignProgress& progress) {
    try {
        read_progress(SafetensorsFile(path), model, seq_len, progress);
        return true;
    } catch (const Error&) {
    } catch (const nlohmann::json::exception&) {
    }
    progress = {};
    return false;
}

}  // namespace mha2mla

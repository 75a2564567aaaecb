#include "progress.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "../latent/build_layer.hpp"
#include "../support/hash.hpp"
#include "../support/json_file.hpp"
#include "mha2mla/checkpoint.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/safetensors_writer.hpp"

namespace mha2mla {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "mha2mla alignment 3";
constexpr std::array<const char*, 6> kWeightNames = {"q", "k_rope", "down", "up_k", "up_v", "o"};
constexpr std::array<const char*, 4> kBiasNames = {"q_bias", "k_rope_bias", "up_k_bias", "up_v_bias"};

std::string open_name(std::size_t layer, const char* what) { return "open." + std::to_string(layer) + "." + what; }

Json split_json(const Split& split) { return {split.rope_dim, split.kv_rank, split.error, split.fold}; }
Split split_from_json(const Json& json) {
    return {whole_number(json.at(0)), whole_number(json.at(1)), json.at(2), json.at(3)};
}

/// Tensors and their data, in the order in which they are written and hashed.
struct Contents {
    std::vector<TensorSpec> tensors;
    std::vector<std::span<const std::byte>> data;

    void add(std::string name, const Matrix& matrix) {
        tensors.push_back({std::move(name), Dtype::f32, {matrix.rows(), matrix.cols()}});
        data.push_back(std::as_bytes(std::span(matrix.data(), static_cast<std::size_t>(matrix.size()))));
    }
    void add(std::string name, const Vector& vector) {
        tensors.push_back({std::move(name), Dtype::f32, {vector.size()}});
        data.push_back(std::as_bytes(std::span(vector.data(), static_cast<std::size_t>(vector.size()))));
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
    void read(const std::string& name, std::int64_t size, Vector& to) {
        const auto bytes = read(name, Dtype::f32, {size});
        to.resize(size);
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

void read_open_layer(Reader& reader, const Model& model, std::int64_t seq_len, const LatentLayout& layout,
                     std::size_t index, AlignProgress& progress) {
    const ModelConfig& config = model.config;
    const std::int64_t at = progress.layer + static_cast<std::int64_t>(index);
    const auto& [rope_dim, kv_rank, error, fold] = progress.chosen;
    // A layout may add a channel to what was aligned.
    const std::int64_t channels = layout.shared_rope_key ? reader.rows(open_name(index, "down")) : kv_rank;
    if (channels < 1 || channels > kv_rank) {
        throw Error(ErrorCode::format, "the latent of an open layer does not fit the split");
    }
    const LatentShape shape = config.latent_shape(rope_dim, channels, Factorization::whitened, layout);
    const std::int64_t rank = shape.widths().key;
    auto& open = progress.open.emplace_back();
    open.latent = layout.shared_rope_key
                      ? empty_shared_key_layer(model, at, shape, progress.frequencies_of(at), seq_len)
                      : empty_layer(model, at, shape, kept_pairs(progress.ranks, at, rope_dim), seq_len);
    LatentWeights& weights = open.latent.weights;
    const std::array<std::pair<std::int64_t, std::int64_t>, 6> shapes = {{{shape.latent_query_rows(), shape.hidden},
                                                                          {shape.rope_rows(), shape.hidden},
                                                                          {rank, shape.hidden},
                                                                          {shape.up_key_rows(), rank},
                                                                          {shape.up_value_rows(), rank},
                                                                          {shape.hidden, shape.query_rows()}}};
    for (std::size_t i = 0; i < kWeightNames.size(); ++i) {
        reader.read(open_name(index, kWeightNames[i]), shapes[i].first, shapes[i].second, *matrices(weights)[i]);
    }
    const std::array<std::int64_t, 4> sizes = {shapes[0].first, shapes[1].first, shapes[3].first, shapes[4].first};
    for (std::size_t i = 0; i < kBiasNames.size(); ++i) {
        const std::string name = open_name(index, kBiasNames[i]);
        if (reader.rows(name) > 0) reader.read(name, sizes[i], *biases(weights)[i]);
    }
    const std::string behind = open_name(index, "behind_attention");
    reader.read(behind, std::min<std::int64_t>(reader.rows(behind), progress.original.rows()), config.hidden_size,
                open.behind_attention);
}

void read_progress(const SafetensorsFile& file, const Model& model, std::int64_t seq_len, const LatentLayout& layout,
                   AlignProgress& progress) {
    const ModelConfig& config = model.config;
    Reader reader(file);
    const std::string numbers = reader.metadata("progress");
    const Json json = parse_json<Json>(numbers);  // if none, what follows throws
    progress.layer = whole_number(json.at("layer"));
    progress.steps_done = whole_number(json.at("steps"));
    progress.chosen = split_from_json(json.at("chosen"));
    for (const Json& split : json.at("tried")) progress.tried.push_back(split_from_json(split));
    const std::int64_t open = whole_number(json.at("open"));
    const auto& [rope_dim, kv_rank, error, fold] = progress.chosen;
    const std::int64_t tokens = reader.rows("original");
    const std::int64_t keys =
        config.num_key_value_heads * config.head_dim / (layout.shared_rope_key ? 1 : config.num_key_value_heads);
    const bool fits = progress.layer >= 0 && open >= 0 && progress.layer <= config.num_hidden_layers - open &&
                      rope_dim > 0 && rope_dim <= keys && rope_dim % 2 == 0 && kv_rank > 0 && kv_rank <= 2 * keys &&
                      tokens > 0 && tokens % seq_len == 0;
    progress.frequencies = json.at("frequencies").get<std::vector<std::vector<double>>>();
    const auto lists = std::ssize(progress.frequencies);
    const bool listed =
        layout.shared_rope_key
            ? (lists <= 1 || lists == progress.layer + open) && (lists > 0 || progress.layer + open == 0) &&
                  std::all_of(progress.frequencies.begin(), progress.frequencies.end(),
                              [&](const auto& list) { return 2 * std::ssize(list) == progress.chosen.rope_dim; })
            : lists == 0;
    if (reader.metadata("format") != kFormat || !fits || !listed) {
        throw Error(ErrorCode::format, file.path().string() + ": does not fit the model");
    }
    PairRanks& ranks = progress.ranks;
    ranks = {layout.shared_rope_key ? 0 : config.num_hidden_layers, config.num_key_value_heads, config.head_dim, {}};
    const auto values = reader.read("ranks", Dtype::u8, {ranks.layers, ranks.kv_heads, ranks.head_dim});
    for (const std::byte value : values) ranks.values.push_back(std::to_integer<std::uint8_t>(value));
    reader.read("original", tokens, config.hidden_size, progress.original);
    reader.read("converted", tokens, config.hidden_size, progress.converted);
    for (std::int64_t i = 0; i < open; ++i) {
        read_open_layer(reader, model, seq_len, layout, static_cast<std::size_t>(i), progress);
    }
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
    json["frequencies"] = progress.frequencies;
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
        for (std::size_t k = 0; k < kBiasNames.size(); ++k) {
            const Vector& bias = *biases(weights)[k];
            if (bias.size() > 0) contents.add(open_name(i, kBiasNames[k]), bias);
        }
        contents.add(open_name(i, "behind_attention"), progress.open[i].behind_attention);
    }
    const std::string numbers = json.dump();
    write_safetensors(path, contents.tensors, [&](std::size_t i) { return contents.data[i]; },
                      {{"format", kFormat}, {"progress", numbers}, {"hash", hash_contents(numbers, contents.data)}});
}

bool load_progress(const std::filesystem::path& path, const Model& model, std::int64_t seq_len,
                   const LatentLayout& layout, AlignProgress& progress) {
    try {
        read_progress(SafetensorsFile(path), model, seq_len, layout, progress);
        return true;
    } catch (const Error&) {
    } catch (const nlohmann::json::exception&) {
    }
    progress = {};
    return false;
}

}  // namespace mha2mla

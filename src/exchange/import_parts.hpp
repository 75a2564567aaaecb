#pragma once
/// Parts of an import.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/gguf.hpp"
#include "mha2mla/observer.hpp"

namespace mha2mla {

/// The sizes that tensors are checked against.
struct ImportedShape {
    std::int64_t vocab_size, hidden, intermediate, layers, heads, kv_heads, head_dim;
    bool tied = false;
};

/// A norm of a layer: the name behind the layer's prefix, without ".weight".
struct ImportedNorm {
    std::string_view from, to;
    bool of_head = false;  // over the head_dim numbers of a head instead of the hidden ones
};

/// An architecture of llama.cpp that a family of transformers equals.
struct ImportedArchitecture {
    std::string_view name;        // general.architecture
    std::string_view model_type;  // in config.json
    std::string_view class_name;
    bool pairs_side_by_side;  // rows 2k and 2k+1 of a head's queries and keys rotate together, instead of k and k + d/2
    bool query_bias;          // queries, keys and values have biases that config.json need not announce
    std::span<const ImportedNorm> norms;
    float norm_offset;  // that the file's weights of norms have and the checkpoint's have not
    /// What config.json says beside the keys of all architectures; null: nothing.
    void (*add_config)(const GgufFile& file, const ImportedShape& shape, nlohmann::ordered_json& config);
};

/// A tensor of the checkpoint and the one of the file that it comes from.
struct ImportedTensor {
    std::string name;
    const GgufTensor* from;
    std::int64_t interleaved_head = 0;  // rows of a head whose rotary pairs lie side by side; 0: rows stay in order
    float offset = 0;                   // what is taken off every value

    /// The row of the file that row `row` of the checkpoint is.
    [[nodiscard]] std::int64_t source_row(std::int64_t row) const;
};

/// @throws Error{unsupported} naming an architecture that is not known, and those that are.
[[nodiscard]] const ImportedArchitecture& architecture_of(const GgufFile& file);
/// @throws Error{format}, Error{unsupported} naming the key.
[[nodiscard]] ImportedShape shape_of(const GgufFile& file, const ImportedArchitecture& architecture);
/// The content of config.json. @throws Error{unsupported} for a scaling of the rotary embedding that is not known.
[[nodiscard]] nlohmann::ordered_json imported_config(const GgufFile& file, const ImportedArchitecture& architecture,
                                                     const ImportedShape& shape);
/// Every tensor of the file under its new name. @throws Error{unsupported} naming a tensor without one, Error{format}
/// for a tensor that is missing or has another shape than the keys say.
[[nodiscard]] std::vector<ImportedTensor> imported_tensors(const GgufFile& file,
                                                           const ImportedArchitecture& architecture,
                                                           const ImportedShape& shape);

/// Files of a tokenizer; empty texts are not written.
struct ImportedTokenizer {
    std::string what = "none";
    std::string tokenizer, tokenizer_config, chat_template;
};
[[nodiscard]] ImportedTokenizer imported_tokenizer(const GgufFile& file, Observer& observer);

/// Merges in order of rank from the scores of a vocabulary in the manner of SentencePiece: every way to put a token
/// together of two others, highest scores first.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> merges_of_scores(
    const std::vector<std::string_view>& tokens, const std::vector<float>& scores,
    const std::vector<std::int64_t>& kinds);

}  // namespace mha2mla

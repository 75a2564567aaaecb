#pragma once
/// What a file is to contain, before any weight is read.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/gguf_writer.hpp"
#include "mha2mla/model.hpp"
#include "mha2mla/observer.hpp"

namespace mha2mla {

/// Which type a tensor gets.
enum class Precision : std::uint8_t {
    f32,     ///< vectors, whatever was asked for: llama.cpp adds and multiplies them in F32
    matrix,  ///< what was asked for
    head,    ///< the same, but not below 8 bits: errors of logits are not averaged by any later layer
    tiny,    ///< a latent times 2^-30, which 16-bit floats do not hold: F32, or BF16 if that was asked for
};

/// A tensor of the file and where its numbers come from.
struct ExportTensor {
    std::string name;
    std::vector<std::int64_t> shape;  // rows last
    Precision precision = Precision::matrix;
    std::vector<const TensorView*> sources;
    /// Rows are read by whole multiples of this; 1 in most.
    std::int64_t step = 1;
    /// Rows [first, first + count) of all leading dimensions together.
    std::function<void(std::int64_t first, std::int64_t count, std::span<float> to)> read;

    [[nodiscard]] std::int64_t row_length() const { return shape.back(); }
};

struct ExportContent {
    GgufMetadata metadata;
    std::vector<ExportTensor> tensors;
    std::int64_t cached_numbers = 0;  // per token
};

/// Rows as they are in the checkpoint, as finite numbers, multiplied by `factor`.
[[nodiscard]] ExportTensor same_rows(std::string name, const TensorView& tensor, Precision precision, float factor = 1);
/// The rows of two matrices, one below the other.
[[nodiscard]] ExportTensor stacked_rows(std::string name, const TensorView& upper, const TensorView& lower,
                                        Precision precision);
/// Numbers that are known already.
[[nodiscard]] ExportTensor known_values(std::string name, std::vector<std::int64_t> shape, std::vector<float> values);

/// "blk.<layer>.<name>"
[[nodiscard]] std::string block_name(std::int64_t layer, std::string_view name);

/// Sizes and tensors that every architecture has: embeddings, norms, MLP; and the name and type of the file.
void add_common(const Model& model, std::string_view architecture, BlockType type, ExportContent& content);

/// Architecture deepseek2. @throws Error{unsupported} naming what it has no place for.
void add_mla_attention(const Model& model, ExportContent& content);
/// Architecture llama. @throws Error{unsupported} for a latent whose norm is more than a constant.
void add_mqa_attention(const Model& model, ExportContent& content);

/// The keys of tokenizer.json and chat templates. @return what it is, for people.
/// @throws Error{unsupported} for a tokenizer that llama.cpp has no equal of, naming file and key.
std::string add_vocabulary(const Model& model, GgufMetadata& metadata, Observer& observer);

}  // namespace mha2mla

#pragma once
#include <memory>

#include "../support/spill_file.hpp"
#include "mha2mla/matrix.hpp"

namespace mha2mla {

/// The hidden states of all tokens between two layers, in memory or on disk, which are processed one block of tokens at
/// a time. The bits are the same in both cases.
class HiddenStates {
public:
    /// Stores them in memory.
    HiddenStates(std::int64_t tokens, std::int64_t hidden_size);
    /// Stores them on disk, except for one block. @throws Error{io}
    HiddenStates(std::int64_t tokens, std::int64_t hidden_size, std::int64_t block_tokens,
                 const std::filesystem::path& spill_directory);

    [[nodiscard]] std::int64_t tokens() const { return tokens_; }
    /// The rows of a block, before their first values are written, [count, hidden]. Valid until the next block.
    [[nodiscard]] Eigen::Map<Matrix> fresh(std::int64_t first, std::int64_t count);
    /// The rows of a block as stored by put(). Valid until the next block.
    [[nodiscard]] Eigen::Map<Matrix> get(std::int64_t first, std::int64_t count);
    /// Stores the rows that fresh() or get() returned.
    void put(std::int64_t first, std::int64_t count);
    /// All rows, [tokens, hidden]; only if they are in memory.
    [[nodiscard]] Matrix take() { return std::move(rows_); }

private:
    [[nodiscard]] std::uint64_t bytes(std::int64_t count) const {
        return static_cast<std::uint64_t>(count * rows_.cols()) * sizeof(float);
    }
    std::int64_t tokens_;
    Matrix rows_;  // [tokens, hidden], or [block_tokens, hidden] if the rest is on disk
    std::unique_ptr<SpillFile> disk_;
};

}  // namespace mha2mla

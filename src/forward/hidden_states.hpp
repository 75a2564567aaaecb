#pragma once
#include <memory>

#include "../support/spill_file.hpp"
#include "mha2mla/matrix.hpp"

namespace mha2mla {

/// The hidden states of all tokens between two layers, in memory or on disk. One block of tokens is worked on at a
/// time, and the bits are the same either way.
class HiddenStates {
public:
    /// In memory.
    HiddenStates(std::int64_t tokens, std::int64_t hidden_size);
    /// On disk, but for one block. @throws Error{io}
    HiddenStates(std::int64_t tokens, std::int64_t hidden_size, std::int64_t block_tokens,
                 const std::filesystem::path& spill_directory);

    [[nodiscard]] std::int64_t tokens() const { return tokens_; }
    /// The block's rows to be written for the first time, [count, hidden]. Valid until the next block.
    [[nodiscard]] Eigen::Map<Matrix> fresh(std::int64_t first, std::int64_t count);
    /// The block's rows as put() left them. Valid until the next block.
    [[nodiscard]] Eigen::Map<Matrix> get(std::int64_t first, std::int64_t count);
    /// Keeps what was written into the rows that fresh() or get() gave.
    void put(std::int64_t first, std::int64_t count);
    /// All rows, [tokens, hidden]; only of those in memory.
    [[nodiscard]] Matrix take() { return std::move(rows_); }

private:
    [[nodiscard]] std::uint64_t bytes(std::int64_t count) const {
        return static_cast<std::uint64_t>(count * rows_.cols()) * sizeof(float);
    }
    std::int64_t tokens_;
    Matrix rows_;  // [tokens, hidden], or [block_tokens, hidden] where the rest is on disk
    std::unique_ptr<SpillFile> disk_;
};

}  // namespace mha2mla

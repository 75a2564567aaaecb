#include "hidden_states.hpp"

#include <algorithm>
#include <span>

namespace mha2mla {

HiddenStates::HiddenStates(std::int64_t tokens, std::int64_t hidden_size)
    : tokens_(tokens), rows_(tokens, hidden_size) {}

HiddenStates::HiddenStates(std::int64_t tokens, std::int64_t hidden_size, std::int64_t block_tokens,
                           const std::filesystem::path& spill_directory)
    : tokens_(tokens), rows_(block_tokens, hidden_size) {
    disk_ = std::make_unique<SpillFile>(spill_directory, bytes(tokens));
}

Eigen::Map<Matrix> HiddenStates::fresh(std::int64_t first, std::int64_t count) {
    return {disk_ ? rows_.data() : rows_.data() + first * rows_.cols(), count, rows_.cols()};
}

Eigen::Map<Matrix> HiddenStates::get(std::int64_t first, std::int64_t count) {
    auto block = fresh(first, count);
    if (disk_) {
        disk_->read(bytes(first),
                    std::as_writable_bytes(std::span(block.data(), static_cast<std::size_t>(block.size()))));
        const std::int64_t next = first + count;
        disk_->will_need(bytes(next), bytes(std::min(count, tokens_ - next)));
    }
    return block;
}

void HiddenStates::put(std::int64_t first, std::int64_t count) {
    if (!disk_) return;
    disk_->write(bytes(first), std::as_bytes(std::span(rows_.data(), static_cast<std::size_t>(count * rows_.cols()))));
}

}  // namespace mha2mla

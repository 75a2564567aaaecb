#pragma once
/// Shares of work that several machines do side by side.

#include <cstdint>
#include <string>
#include <string_view>

namespace mha2mla {

/// One of `count` equal shares, counted from 0.
struct Shard {
    std::int64_t index = 0, count = 1;

    bool operator==(const Shard&) const = default;
    /// Of things that are dealt out one by one: whether it has the one at `position`.
    [[nodiscard]] bool has(std::size_t position) const { return static_cast<std::int64_t>(position) % count == index; }
    /// Of `total` things in their order: its own, which follow each other. Sizes differ by one at most.
    struct Range {
        std::int64_t first = 0, last = 0;  // last is the first of the next shard
        [[nodiscard]] std::int64_t size() const { return last - first; }
    };
    [[nodiscard]] Range range(std::int64_t total) const;
    /// "2/5"
    [[nodiscard]] std::string text() const;
};

/// "2/5" is the second of five shares. @throws Error{usage}
[[nodiscard]] Shard parse_shard(std::string_view text);

}  // namespace mha2mla

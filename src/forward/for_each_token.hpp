#pragma once
#include <algorithm>

#include "../support/parallel.hpp"

namespace mha2mla {

/// Tokens of one item where threads share work on single tokens.
inline constexpr std::int64_t kTokenBlock = 64;

/// Calls body(token) for every token, kTokenBlock at a time on each thread.
template <typename Body>
void for_each_token(std::int64_t tokens, const Body& body) {
    parallel_for((tokens + kTokenBlock - 1) / kTokenBlock, [&](std::int64_t block, std::vector<float>&) {
        const std::int64_t end = std::min(tokens, (block + 1) * kTokenBlock);
        for (std::int64_t token = block * kTokenBlock; token < end; ++token) body(token);
    });
}

}  // namespace mha2mla

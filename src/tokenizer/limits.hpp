#pragma once
/// Bounds on what a tokenizer.json may ask for, far above any real one, so that a broken file fails with a message.

#include <cstddef>
#include <cstdint>

namespace mha2mla {

inline constexpr std::int64_t kMaxTokenId = (std::int64_t{1} << 24) - 1;
inline constexpr std::size_t kMaxFileBytes = std::size_t{512} << 20;
inline constexpr std::size_t kMaxTextBytes = std::size_t{1} << 30;
/// Matching added tokens costs up to this many steps for each byte of a text.
inline constexpr std::size_t kMaxAddedTokenBytes = 4096;

}  // namespace mha2mla

#pragma once
/// Limits on the values in a tokenizer.json, and on what it may make of a text. They are far above those of real files,
/// so that a damaged file fails with a message.

#include <cstddef>
#include <cstdint>

namespace mha2mla {

inline constexpr std::int64_t kMaxTokenId = (std::int64_t{1} << 24) - 1;
/// Tables are indexed by id: an id may be this much above the number of bytes of its file, which has far fewer tokens.
inline constexpr std::int64_t kIdsBeyondFile = 1 << 16;
inline constexpr std::size_t kMaxFileBytes = std::size_t{512} << 20;
inline constexpr std::size_t kMaxTextBytes = std::size_t{1} << 30;
/// Matching added tokens and the pieces of Unigram and WordPiece may take this many steps per byte of a text.
inline constexpr std::size_t kMaxTokenBytes = 4096;

}  // namespace mha2mla

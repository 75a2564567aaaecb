#pragma once
/// SentencePiece's way with spaces, which both a pre-tokenizer and a decoder are named after.

#include "json_node.hpp"

namespace mha2mla {

struct MetaspaceOptions {
    enum class Prepend { never, first, always };
    char32_t replacement = U'\u2581';  // stands for a space
    Prepend prepend = Prepend::always;
    bool split = true;
};

/// Reads both the older spelling (add_prefix_space) and the newer one (prepend_scheme, split).
/// @throws Error{format} if they contradict each other.
[[nodiscard]] MetaspaceOptions parse_metaspace_options(const JsonNode& node);

}  // namespace mha2mla

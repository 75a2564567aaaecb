#pragma once
/// SentencePiece's replacement of spaces, used by the pre-tokenizer and the decoder of the same name.

#include "json_node.hpp"

namespace mha2mla {

struct MetaspaceOptions {
    enum class Prepend { never, first, always };
    char32_t replacement = U'\u2581';  // replaces a space
    Prepend prepend = Prepend::always;
    bool split = true;
};

/// Reads both the older spelling (add_prefix_space) and the newer one (prepend_scheme, split).
/// @throws Error{format} if they contradict each other.
[[nodiscard]] MetaspaceOptions parse_metaspace_options(const JsonNode& node);

}  // namespace mha2mla

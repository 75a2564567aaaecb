#pragma once
/// The step `Replace`, which is both a normalizer and a decoder.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "regex.hpp"

namespace mha2mla {

class Replacement {
public:
    /// Reads `pattern` and `content`. @throws Error{unsupported} for references to groups in the content, which the
    /// versions of the Rust library read differently.
    explicit Replacement(const JsonNode& node);

    /// Replaces every match in each text. An incomplete character at the end of a text is not changed.
    /// @throws Error{unsupported} if that takes too much of `effort`.
    void apply(std::span<std::string> texts, Effort& effort) const;

private:
    Regex regex_;
    std::string content_;
};

}  // namespace mha2mla

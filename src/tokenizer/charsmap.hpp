#pragma once
/// The normalizer `Precompiled`: SentencePiece's table of characters and what takes their place.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "effort.hpp"
#include "json_node.hpp"

namespace mha2mla {

class Charsmap {
public:
    /// Reads `precompiled_charsmap`: in base64, the size of a double array (Darts), the array, and texts that end with
    /// a NUL. @throws Error{format} if it is none of that.
    explicit Charsmap(const JsonNode& node);

    /// Replaces what the table has, in grapheme clusters of less than six bytes or else in single characters.
    /// @throws Error{unsupported} if that takes too much of `effort`.
    void apply(std::string& text, Effort& effort) const;

private:
    struct Table {
        std::vector<std::uint32_t> units;
        std::string texts;
    };
    /// Appends what takes the place of `part`. @return false if the table has no beginning of it.
    bool append_replacement(std::string_view part, std::string& out) const;
    void append_cluster(std::string_view cluster, std::string& out, const Effort& effort) const;

    std::shared_ptr<const Table> table_;
};

}  // namespace mha2mla

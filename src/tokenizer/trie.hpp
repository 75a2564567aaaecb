#pragma once
/// The names of a vocabulary by their first bytes, for models that look for the tokens at a place of a text.

#include <cstdint>
#include <string_view>
#include <vector>

#include "vocabulary.hpp"

namespace mha2mla {

class Trie {
public:
    static constexpr std::uint32_t kRoot = 0;
    static constexpr std::uint32_t kNone = 0xFFFFFFFF;

    /// Takes the names of `vocabulary` but the empty one.
    explicit Trie(const Vocabulary& vocabulary);

    /// The node of the bytes of `node` and one more, or kNone if no name begins with these.
    [[nodiscard]] std::uint32_t child(std::uint32_t node, char byte) const;
    /// The same for several more.
    [[nodiscard]] std::uint32_t descendant(std::uint32_t node, std::string_view bytes) const;
    /// The token whose name ends at a node, or -1.
    [[nodiscard]] TokenId id(std::uint32_t node) const { return nodes_[node].id; }

private:
    struct Node {
        TokenId id = -1;
        std::uint32_t first_child = 0;  // its children stand together, in the order of their bytes
        std::uint16_t children = 0;
        unsigned char byte = 0;
    };
    std::vector<Node> nodes_;
};

}  // namespace mha2mla

#include "trie.hpp"

#include <algorithm>
#include <utility>

namespace mha2mla {

Trie::Trie(const Vocabulary& vocabulary) : nodes_(1) {
    std::vector<std::pair<std::string_view, TokenId>> names;
    vocabulary.for_each([&](std::string_view name, TokenId id) {
        if (!name.empty()) names.emplace_back(name, id);
    });
    std::sort(names.begin(), names.end());
    // Level by level; the names that begin with the bytes of a node are neighbours.
    struct Level {
        std::size_t begin, end, depth;
    };
    std::vector<Level> levels = {{0, names.size(), 0}};  // one per node
    for (std::size_t node = 0; node < levels.size(); ++node) {
        auto [begin, end, depth] = levels[node];
        if (begin < end && names[begin].first.size() == depth && depth > 0) nodes_[node].id = names[begin++].second;
        nodes_[node].first_child = static_cast<std::uint32_t>(nodes_.size());
        while (begin < end) {
            const char byte = names[begin].first[depth];
            std::size_t last = begin;
            while (last < end && names[last].first[depth] == byte) ++last;
            nodes_.push_back({-1, 0, 0, static_cast<unsigned char>(byte)});
            levels.push_back({begin, last, depth + 1});
            ++nodes_[node].children;
            begin = last;
        }
    }
}

std::uint32_t Trie::child(std::uint32_t node, char byte) const {
    const auto wanted = static_cast<unsigned char>(byte);
    const auto begin = nodes_.begin() + nodes_[node].first_child;
    const auto end = begin + nodes_[node].children;
    const auto found =
        std::lower_bound(begin, end, wanted, [](const Node& one, unsigned char other) { return one.byte < other; });
    return found == end || found->byte != wanted ? kNone : static_cast<std::uint32_t>(found - nodes_.begin());
}

std::uint32_t Trie::descendant(std::uint32_t node, std::string_view bytes) const {
    for (const char byte : bytes) {
        if (node == kNone) break;
        node = child(node, byte);
    }
    return node;
}

}  // namespace mha2mla

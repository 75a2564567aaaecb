#pragma once
/// Token names and ids.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/tokenizer.hpp"

namespace mha2mla {

/// Allows look-ups by std::string_view in a container with std::string keys.
struct StringHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};

/// A one-to-one map between names and ids. All names are stored in one string and found through one hash table, because
/// reading a file takes three look-ups per merge.
class Vocabulary {
public:
    /// Adds a token. `id` must not be negative. @return false if the name or the id is already used.
    [[nodiscard]] bool add(std::string_view name, TokenId id);

    [[nodiscard]] std::optional<TokenId> id(std::string_view name) const;
    /// The result is valid until the next add().
    [[nodiscard]] std::optional<std::string_view> name(TokenId id) const;
    /// The highest id + 1.
    [[nodiscard]] std::size_t size() const { return by_id_.size(); }

    /// Calls `visit(name, id)` for every token, in the order in which they were added.
    template <typename Visit>
    void for_each(Visit visit) const {
        for (const Entry& entry : entries_) visit(view(entry), entry.id);
    }

private:
    static constexpr std::uint32_t kNone = 0xFFFFFFFF;
    struct Entry {
        std::uint32_t begin, size;  // in names_
        TokenId id;
    };
    struct Slot {
        std::uint32_t hash = 0;
        std::uint32_t entry = kNone;
    };

    [[nodiscard]] std::string_view view(const Entry& e) const {
        return std::string_view(names_).substr(e.begin, e.size);
    }
    /// The slot of a name, or the free slot where it would be inserted.
    [[nodiscard]] std::size_t place(std::string_view name, std::uint32_t hash) const;
    void grow(std::size_t slots);

    std::string names_;
    std::vector<Entry> entries_;
    std::vector<Slot> slots_;           // a power of two, at most half full
    std::vector<std::uint32_t> by_id_;  // -> entries_
};

}  // namespace mha2mla

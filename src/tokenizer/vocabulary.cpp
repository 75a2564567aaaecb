#include "vocabulary.hpp"

#include <bit>

namespace mha2mla {
namespace {

std::uint32_t hash_of(std::string_view name) { return static_cast<std::uint32_t>(StringHash()(name)); }

}  // namespace

bool Vocabulary::add(std::string_view name, TokenId id) {
    if (this->name(id) || this->id(name)) return false;
    if (2 * (entries_.size() + 1) > slots_.size()) grow(std::bit_ceil(4 * (entries_.size() + 1)));
    const auto index = static_cast<std::uint32_t>(entries_.size());
    entries_.push_back({static_cast<std::uint32_t>(names_.size()), static_cast<std::uint32_t>(name.size()), id});
    names_ += name;
    slots_[place(name, hash_of(name))] = {hash_of(name), index};
    const auto row = static_cast<std::size_t>(id);
    if (row >= by_id_.size()) by_id_.resize(row + 1, kNone);
    by_id_[row] = index;
    return true;
}

std::optional<TokenId> Vocabulary::id(std::string_view name) const {
    if (slots_.empty()) return std::nullopt;
    const std::uint32_t entry = slots_[place(name, hash_of(name))].entry;
    return entry == kNone ? std::nullopt : std::optional(entries_[entry].id);
}

std::optional<std::string_view> Vocabulary::name(TokenId id) const {
    const auto row = static_cast<std::size_t>(id);
    if (id < 0 || row >= by_id_.size() || by_id_[row] == kNone) return std::nullopt;
    return view(entries_[by_id_[row]]);
}

std::size_t Vocabulary::place(std::string_view name, std::uint32_t hash) const {
    std::size_t at = hash & (slots_.size() - 1);
    while (slots_[at].entry != kNone && (slots_[at].hash != hash || view(entries_[slots_[at].entry]) != name)) {
        at = (at + 1) & (slots_.size() - 1);
    }
    return at;
}

void Vocabulary::grow(std::size_t slots) {
    slots_.assign(slots, Slot{});
    for (std::uint32_t i = 0; i < entries_.size(); ++i) {
        const std::string_view name = view(entries_[i]);
        slots_[place(name, hash_of(name))] = {hash_of(name), i};
    }
}

}  // namespace mha2mla

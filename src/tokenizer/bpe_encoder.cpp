#include "bpe_encoder.hpp"

#include <algorithm>
#include <functional>

#include "utf8.hpp"

namespace mha2mla {
namespace {

constexpr std::size_t kLongestRemembered = 64;     // in symbols; longer parts rarely occur twice
constexpr std::size_t kMostRemembered = 1u << 17;  // parts

}  // namespace

void BpeEncoder::encode(std::string_view word, std::vector<TokenId>& out) {
    if (model_->ignore_merges) {
        if (const auto id = model_->vocabulary.id(word)) {
            out.push_back(*id);
            return;
        }
    }
    input_.clear();
    model_->has_affixes() ? read_symbols_with_affixes(word) : read_symbols(word);
    if (model_->has_affixes()) return encode_part(input_, out);

    const std::span<const TokenId> symbols = input_;
    for (std::size_t begin = 0; begin < symbols.size();) {
        std::size_t end = begin + 1;
        while (end < symbols.size() && model_->seams.find(symbols[end - 1], symbols[end]) != PairMap::kNone) ++end;
        encode_part(symbols.subspan(begin, end - begin), out);
        begin = end;
    }
}

void BpeEncoder::read_symbols(std::string_view word) {
    for (std::size_t at = 0; at < word.size();) {
        const utf8::CodePoint c = utf8::decode(word, at);
        const TokenId id = model_->characters.find(c.value);
        id >= 0 ? add_known(id) : add_missing(word.substr(at, c.length));
        at += c.length;
    }
    flush_unknown();
}

void BpeEncoder::read_symbols_with_affixes(std::string_view word) {
    std::string name;
    for (std::size_t at = 0; at < word.size();) {
        const utf8::CodePoint c = utf8::decode(word, at);
        name = at == 0 ? "" : model_->prefix;
        name += word.substr(at, c.length);
        at += c.length;
        if (at == word.size()) name += model_->suffix;
        const auto id = model_->vocabulary.id(name);
        id ? add_known(*id) : add_missing(name);
    }
    flush_unknown();
}

void BpeEncoder::add_known(TokenId id) {
    flush_unknown();
    input_.push_back(id);
}

void BpeEncoder::add_missing(std::string_view character) {
    const auto byte_id = [this](char c) { return model_->byte_ids[static_cast<unsigned char>(c)]; };
    if (model_->byte_fallback &&
        std::all_of(character.begin(), character.end(), [&](char c) { return byte_id(c) >= 0; })) {
        // A pending unknown token is not written yet: in the Rust library the bytes come before it.
        for (const char c : character) input_.push_back(byte_id(c));
        return;
    }
    if (!model_->unknown_name) return;
    if (!model_->unknown) {
        throw Error(ErrorCode::format, "the text has " + in_quotes(character) +
                                           ", which is not in the vocabulary, and " +
                                           "neither is the tokenizer's unk_token " + in_quotes(*model_->unknown_name));
    }
    if (!model_->fuse_unknown) flush_unknown();
    unknown_pending_ = true;
}

void BpeEncoder::flush_unknown() {
    if (unknown_pending_) input_.push_back(*model_->unknown);
    unknown_pending_ = false;
}

void BpeEncoder::encode_part(std::span<const TokenId> symbols, std::vector<TokenId>& out) {
    if (symbols.size() < 2 || symbols.size() > kLongestRemembered) return merge(symbols, out);
    const std::string_view key(reinterpret_cast<const char*>(symbols.data()), symbols.size_bytes());
    auto found = seen_.find(key);
    if (found == seen_.end()) {
        if (seen_.size() >= kMostRemembered) {
            seen_.clear();
            results_.clear();
        }
        const std::size_t begin = results_.size();
        merge(symbols, results_);
        found = seen_.emplace(key, Range{begin, results_.size() - begin}).first;
    }
    const auto begin = results_.begin() + static_cast<std::ptrdiff_t>(found->second.begin);
    out.insert(out.end(), begin, begin + static_cast<std::ptrdiff_t>(found->second.size));
}

void BpeEncoder::push_merge(std::int32_t left, std::int32_t right) {
    const auto id = [this](std::int32_t at) { return symbols_[static_cast<std::size_t>(at)].id; };
    const std::uint32_t rank = model_->ranks.find(id(left), id(right));
    if (rank == PairMap::kNone) return;
    queue_.push_back((std::uint64_t{rank} << 32) | static_cast<std::uint32_t>(left));
}

/// Repeats the merge of lowest rank, the leftmost of equal ones, until none is left. The queue holds every pair that
/// can be merged, and also outdated pairs, which are recognised when they reach the front.
void BpeEncoder::merge(std::span<const TokenId> symbols, std::vector<TokenId>& out) {
    const auto count = static_cast<std::int32_t>(symbols.size());
    symbols_.clear();
    for (std::int32_t i = 0; i < count; ++i) {
        symbols_.push_back({symbols[static_cast<std::size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1});
    }
    queue_.clear();
    for (std::int32_t i = 0; i + 1 < count; ++i) push_merge(i, i + 1);
    std::make_heap(queue_.begin(), queue_.end(), std::greater<>());

    const auto push = [this](std::int32_t left, std::int32_t right) {
        const std::size_t before = queue_.size();
        push_merge(left, right);
        if (queue_.size() > before) std::push_heap(queue_.begin(), queue_.end(), std::greater<>());
    };
    while (!queue_.empty()) {
        std::pop_heap(queue_.begin(), queue_.end(), std::greater<>());
        const std::uint64_t top = queue_.back();
        queue_.pop_back();
        const Merge& merge = model_->merges[top >> 32];
        const auto at = static_cast<std::int32_t>(top & 0xFFFFFFFF);
        Symbol& left = symbols_[static_cast<std::size_t>(at)];
        if (left.id != merge.left || left.next < 0) continue;
        Symbol& right = symbols_[static_cast<std::size_t>(left.next)];
        if (right.id != merge.right) continue;

        left.id = merge.result;
        left.next = right.next;
        right.id = -1;
        if (left.next >= 0) symbols_[static_cast<std::size_t>(left.next)].previous = at;
        if (left.previous >= 0) push(left.previous, at);
        if (left.next >= 0) push(at, left.next);
    }
    for (const Symbol& symbol : symbols_) {
        if (symbol.id >= 0) out.push_back(symbol.id);
    }
}

}  // namespace mha2mla

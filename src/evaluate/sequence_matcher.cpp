#include "sequence_matcher.hpp"

#include <cstddef>
#include <unordered_map>
#include <vector>

#include "text_work.hpp"

namespace mha2mla {
namespace {

/// Parts of both texts, from a begin to an end in each.
struct Parts {
    std::size_t a_begin, a_end, b_begin, b_end;
};
struct Block {
    std::size_t a, b, size;
};

class Matcher {
public:
    Matcher(std::u32string_view a, std::u32string_view b) : a_(a), b_(b), lengths_(b.size() + 1), next_(b.size() + 1) {
        for (std::size_t j = 0; j < b.size(); ++j) places_[b[j]].push_back(j);
        constexpr std::size_t kLong = 200;
        if (b.size() < kLong) return;
        const std::size_t most = b.size() / 100 + 1;
        std::erase_if(places_, [&](const auto& entry) { return entry.second.size() > most; });
    }

    /// The number of characters that match.
    [[nodiscard]] std::size_t matches() {
        std::size_t sum = 0;
        std::vector<Parts> open{{0, a_.size(), 0, b_.size()}};
        while (!open.empty()) {
            const Parts parts = open.back();
            open.pop_back();
            const Block block = longest_block(parts);
            if (block.size == 0) continue;
            sum += block.size;
            open.push_back({parts.a_begin, block.a, parts.b_begin, block.b});
            open.push_back({block.a + block.size, parts.a_end, block.b + block.size, parts.b_end});
        }
        return sum;
    }

private:
    /// The longest block; of several, the one that begins first in `a`, and then in `b`.
    Block longest_block(const Parts& parts) {
        Block best{parts.a_begin, parts.b_begin, 0};
        std::vector<std::size_t> set, next_set;  // places that are not 0 in lengths_ and next_
        for (std::size_t i = parts.a_begin; i < parts.a_end; ++i) {
            // lengths_[j + 1] is the length of the block that ends with the character before a_[i] and with b_[j].
            if (const auto found = places_.find(a_[i]); found != places_.end()) {
                for (const std::size_t j : found->second) {
                    if (j < parts.b_begin) continue;
                    if (j >= parts.b_end) break;
                    const std::size_t length = lengths_[j] + 1;
                    next_[j + 1] = length;
                    next_set.push_back(j + 1);
                    if (length > best.size) best = {i + 1 - length, j + 1 - length, length};
                }
            }
            for (const std::size_t place : set) lengths_[place] = 0;
            set.clear();
            lengths_.swap(next_);
            set.swap(next_set);
        }
        for (const std::size_t place : set) lengths_[place] = 0;
        while (best.a > parts.a_begin && best.b > parts.b_begin && a_[best.a - 1] == b_[best.b - 1]) {
            best = {best.a - 1, best.b - 1, best.size + 1};
        }
        while (best.a + best.size < parts.a_end && best.b + best.size < parts.b_end &&
               a_[best.a + best.size] == b_[best.b + best.size]) {
            ++best.size;
        }
        return best;
    }

    std::u32string_view a_, b_;
    std::unordered_map<char32_t, std::vector<std::size_t>> places_;  // in b, of the characters that begin blocks
    std::vector<std::size_t> lengths_, next_;
};

}  // namespace

double sequence_ratio(std::u32string_view a, std::u32string_view b) {
    const std::size_t total = a.size() + b.size();
    if (total == 0) return 1;
    check_work(a.size(), b.size(), "characters");
    return 2.0 * static_cast<double>(Matcher(a, b).matches()) / static_cast<double>(total);
}

}  // namespace mha2mla

#include "mha2mla/shard.hpp"

#include <algorithm>
#include <charconv>

#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kMostShards = 1'000'000;

/// Rounded down, without the product, which could overflow.
std::int64_t border(std::int64_t total, std::int64_t index, std::int64_t count) {
    return total / count * index + total % count * index / count;
}

}  // namespace

Shard::Range Shard::range(std::int64_t total) const {
    return {border(total, index, count), border(total, index + 1, count)};
}

std::string Shard::text() const { return std::to_string(index + 1) + "/" + std::to_string(count); }

Shard parse_shard(std::string_view text) {
    Shard shard;
    const auto slash = std::min(text.find('/'), text.size());
    const auto read = [](std::string_view digits, std::int64_t& number) {
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
        return error == std::errc() && end == digits.data() + digits.size();
    };
    const bool numbers =
        slash < text.size() && read(text.substr(0, slash), shard.index) && read(text.substr(slash + 1), shard.count);
    if (!numbers || shard.count < 1 || shard.count > kMostShards || shard.index < 1 || shard.index > shard.count) {
        throw Error(ErrorCode::usage, "'" + std::string(text) + "' is not a share such as 2/5, from 1/5 to 5/5");
    }
    shard.index -= 1;
    return shard;
}

}  // namespace mha2mla

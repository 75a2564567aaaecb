#pragma once
/// Files of token ids, for models without a tokenizer.json and for data that is tokenised already.

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

#include "mha2mla/table.hpp"
#include "mha2mla/token_id.hpp"

namespace mha2mla {

enum class TokenFormat : std::uint8_t {
    automatic,  ///< by the extension (.u16, .u32, .npy, .jsonl); otherwise by vocabulary size, as nanotron's nanoset
                ///< does
    u16,        ///< raw little-endian uint16
    u32,        ///< raw little-endian uint32
    npy,        ///< NumPy array of integers of any shape, in C order
    jsonl,      ///< JSON Lines; the `input_ids` of all lines, concatenated
};
struct TokenFormatRow {
    TokenFormat format;
    std::string_view name;
};
inline constexpr std::array<TokenFormatRow, 5> kTokenFormats = {{
    {TokenFormat::automatic, "auto"},
    {TokenFormat::u16, "u16"},
    {TokenFormat::u32, "u32"},
    {TokenFormat::npy, "npy"},
    {TokenFormat::jsonl, "jsonl"},
}};
static_assert(in_order(kTokenFormats, &TokenFormatRow::format));

/// Reads a file of token ids.
/// @param vocab_size the model's; an id outside it is an error.
/// @param max_tokens the largest number of tokens to read.
/// @throws Error{io}, Error{format} naming file and position.
[[nodiscard]] std::vector<TokenId> read_token_file(const std::filesystem::path& path, TokenFormat format,
                                                   std::int64_t vocab_size,
                                                   std::optional<std::int64_t> max_tokens = std::nullopt);

}  // namespace mha2mla

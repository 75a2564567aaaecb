#pragma once
/// Where the tokens of a text come from: a text and a tokenizer, or a file of token ids.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "mha2mla/model.hpp"
#include "mha2mla/token_file.hpp"
#include "mha2mla/token_id.hpp"

namespace mha2mla {

struct TextSource {
    std::filesystem::path text = {}, tokens = {};  // one of them
    std::filesystem::path tokenizer = {};          // of `text`; empty: the checkpoint's tokenizer.json
    TokenFormat format = TokenFormat::automatic;   // of `tokens`
    [[nodiscard]] bool given() const { return !text.empty() || !tokens.empty(); }
    /// For messages and metadata.
    [[nodiscard]] std::string name() const { return (text.empty() ? tokens : text).string(); }
};

/// The tokens of the whole text, without special tokens.
/// @param max_tokens the largest number of tokens that the caller can use; absent: all.
/// @throws Error{usage} if no source is given, Error{io}, Error{format} and Error{unsupported} naming the file.
[[nodiscard]] std::vector<TokenId> load_tokens(const TextSource& source, const Model& model,
                                               std::optional<std::int64_t> max_tokens = std::nullopt);

}  // namespace mha2mla

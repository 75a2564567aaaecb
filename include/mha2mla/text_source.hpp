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
    std::string field = {};                        // of `text`, which then is JSON Lines: the key of the texts
    [[nodiscard]] bool given() const { return !text.empty() || !tokens.empty(); }
    /// For messages and metadata.
    [[nodiscard]] std::string name() const { return (text.empty() ? tokens : text).string(); }
};

/// The key under which each line of a text has what is read of it: `field`, or "text" if the file is JSON Lines by its
/// name (.jsonl, .ndjson, also packed) or by its first line. Empty for a plain text.
/// @throws Error{io}, Error{format} and Error{unsupported} naming the file.
[[nodiscard]] std::string text_field(const TextSource& source);

/// The tokens of the text, without special tokens: of all of it, or of as much as holds `max_tokens`. It may be packed
/// by gzip or zstd. Texts of JSON Lines follow each other without a separator.
/// @param max_tokens the largest number of tokens that the caller can use; absent: all.
/// @throws Error{usage} if no source is given, Error{io}, Error{format} and Error{unsupported} naming the file.
[[nodiscard]] std::vector<TokenId> load_tokens(const TextSource& source, const Model& model,
                                               std::optional<std::int64_t> max_tokens = std::nullopt);
/// The same, with the tokens of each text of JSON Lines in a list of their own; one list otherwise.
[[nodiscard]] std::vector<std::vector<TokenId>> load_documents(const TextSource& source, const Model& model);

}  // namespace mha2mla

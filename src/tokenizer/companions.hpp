#pragma once
/// The files beside a tokenizer.json that say more about the tokens.

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "tokenizer_file.hpp"

namespace mha2mla {

/// Adds to `file` what transformers takes from the directory of `tokenizer_json`:
/// - the added tokens of tokenizer_config.json (`added_tokens_decoder`) or, if it lists none, of added_tokens.json that
///   tokenizer.json does not have. One whose id another token has is left out.
/// - a template that begins a text with BOS, if tokenizer_config.json has `add_bos_token` true and the post-processor
/// of
///   tokenizer.json begins it with no special token.
/// @throws Error{io} if such a file cannot be read, Error{format} if it is not valid or names a BOS that is no token.
void add_companions(TokenizerFile& file, const std::filesystem::path& tokenizer_json);

/// Whether a post-processor puts special tokens before a text, and behind it.
struct SpecialTokens {
    bool before = false, behind = false;
};
[[nodiscard]] SpecialTokens special_tokens_around(const nlohmann::json& post_processor);

}  // namespace mha2mla

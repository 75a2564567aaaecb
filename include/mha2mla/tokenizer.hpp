#pragma once
/// Conversion between text and token ids as defined by a checkpoint's tokenizer.json.
///
/// Reads the models BPE (Llama-2 style, where the whole text is one word and unknown characters fall back to bytes, and
/// byte-level as in GPT-2, Llama-3, Qwen), Unigram, WordPiece and WordLevel of the Hugging Face tokenizers format, with
/// their normalizers, pre-tokenizers, added tokens, post-processors and decoders. The ids equal those of the Rust
/// library. A feature that this reader does not know is refused by name, never skipped; only `truncation` and `padding`
/// are ignored, because they shape batches and do not change the tokens of a text.

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/token_id.hpp"

namespace mha2mla {

/// An immutable tokenizer; copies share its tables. Every const member may be called from several threads at once.
class Tokenizer {
public:
    /// Reads a tokenizer.json and what the files beside it add: tokens of tokenizer_config.json
    /// (`added_tokens_decoder`) or added_tokens.json, and BOS (`add_bos_token`) where the post-processor begins no text
    /// with a special token.
    /// @throws Error{io} if the file cannot be read, Error{format} if it is not a valid tokenizer.json,
    ///         Error{unsupported} if it uses a feature other than the above; each names the file and the key.
    [[nodiscard]] static Tokenizer load(const std::filesystem::path& path);

    /// Reads the JSON text of a tokenizer.json. Error messages use `name` as the file name.
    [[nodiscard]] static Tokenizer parse(std::string_view json_text, std::string_view name);

    /// The ids of a UTF-8 text. `add_special_tokens` applies the post-processor's template (BOS and the like).
    /// Added tokens written out in the text ("<|im_start|>") become their ids in any case, as in the Rust library.
    /// @throws Error{format} if `text` is not valid UTF-8 (the message has the byte offset),
    ///         Error{unsupported} if it is longer than 1 GiB, if a step would make more than 16 times its bytes and 1
    ///         MiB of it, or if a regular expression exceeds its limits.
    [[nodiscard]] std::vector<TokenId> encode(std::string_view text, bool add_special_tokens) const;

    /// The text of a sequence of ids. Ids without a token add nothing, because the rows that pad an embedding matrix to
    /// a round size have no text. Bytes that are not UTF-8 become U+FFFD, except for an incomplete character at the
    /// end: its bytes are returned unchanged, so that a streaming caller can wait for the rest.
    /// @throws Error{unsupported} as encode() does.
    [[nodiscard]] std::string decode(std::span<const TokenId> ids, bool skip_special_tokens) const;

    /// The highest id + 1, including added tokens. An embedding matrix may have more rows.
    [[nodiscard]] std::size_t vocab_size() const;

    /// The id of the token with this name in the file ("<s>", "Ġthe"), if there is one.
    [[nodiscard]] std::optional<TokenId> token_to_id(std::string_view token) const;

    /// The name of the token with this id in the file, if there is one.
    [[nodiscard]] std::optional<std::string> id_to_token(TokenId id) const;

private:
    struct Impl;
    explicit Tokenizer(std::shared_ptr<const Impl> impl);
    std::shared_ptr<const Impl> impl_;
};

}  // namespace mha2mla

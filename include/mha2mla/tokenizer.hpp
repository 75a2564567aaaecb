#pragma once
/// Text to token ids and back, as a checkpoint's tokenizer.json says.
///
/// Reads the BPE models of the Hugging Face tokenizers format, Llama-2 style (the whole text is one word, unknown
/// characters fall back to bytes) and byte-level (GPT-2, Llama-3, Qwen), with their normalizers, pre-tokenizers,
/// added tokens, template post-processors and decoders. The ids are those of the Rust library. What a file asks for
/// and this reader does not know is refused by name, never skipped; only `truncation` and `padding` are ignored,
/// because they say how to shape a batch and not what a text's tokens are.

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
    /// Reads a tokenizer.json.
    /// @throws Error{io} if the file cannot be read, Error{format} if it is not a valid tokenizer.json,
    ///         Error{unsupported} if it asks for something else than the above; each names the file and the key.
    [[nodiscard]] static Tokenizer load(const std::filesystem::path& file);

    /// The same from JSON text. `name` stands for the file in error messages.
    [[nodiscard]] static Tokenizer parse(std::string_view json_text, std::string_view name);

    /// The ids of a UTF-8 text. `add_special_tokens` applies the post-processor's template (BOS and the like).
    /// Added tokens written out in the text ("<|im_start|>") become their ids in any case, as in the Rust library.
    /// @throws Error{format} if `text` is not valid UTF-8 (says the byte offset),
    ///         Error{unsupported} if it is longer than 1 GiB or a regular expression gives up on it.
    [[nodiscard]] std::vector<TokenId> encode(std::string_view text, bool add_special_tokens) const;

    /// The text of some ids. Ids that name no token add nothing, because the rows that pad an embedding matrix to a
    /// round size have no text. Bytes that are not UTF-8 become U+FFFD, except for a character that the last id leaves
    /// unfinished: its bytes come as they are, so that a caller who streams can wait for the rest.
    [[nodiscard]] std::string decode(std::span<const TokenId> ids, bool skip_special_tokens) const;

    /// Highest id + 1, added tokens included. An embedding matrix may have more rows.
    [[nodiscard]] std::size_t vocab_size() const;

    /// The id of a token by its name in the file ("<s>", "Ġthe"), or nothing.
    [[nodiscard]] std::optional<TokenId> token_to_id(std::string_view token) const;

    /// The name in the file of an id, or nothing.
    [[nodiscard]] std::optional<std::string> id_to_token(TokenId id) const;

private:
    struct Impl;
    explicit Tokenizer(std::shared_ptr<const Impl> impl);
    std::shared_ptr<const Impl> impl_;
};

}  // namespace mha2mla

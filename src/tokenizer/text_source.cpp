#include "mha2mla/text_source.hpp"

#include "mha2mla/error.hpp"
#include "mha2mla/mapped_file.hpp"
#include "mha2mla/tokenizer.hpp"

namespace mha2mla {

std::vector<TokenId> load_tokens(const TextSource& source, const Model& model, std::optional<std::int64_t> max_tokens) {
    if (!source.given()) throw Error(ErrorCode::usage, "there is no text", Remedy::give_text);
    if (!source.tokens.empty()) {
        return read_token_file(source.tokens, source.format, model.config.vocab_size, max_tokens);
    }
    const auto& directory = model.checkpoint.directory();
    const auto tokenizer_file = source.tokenizer.empty() ? directory / "tokenizer.json" : source.tokenizer;
    std::error_code ignored;
    if (!std::filesystem::exists(tokenizer_file, ignored)) {
        throw Error(ErrorCode::io, tokenizer_file.string() + ": no such file", Remedy::tokenizer);
    }
    const MappedFile file(source.text);
    const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    std::vector<TokenId> ids;
    try {
        ids = Tokenizer::load(tokenizer_file).encode(text, false);
    } catch (const Error& error) {
        // The tokenizer does not know which file the text came from.
        if (error.message().find(tokenizer_file.string()) != std::string_view::npos) throw;
        throw error.with_prefix(source.text.string() + ": ");
    }
    if (max_tokens && ids.size() > static_cast<std::size_t>(*max_tokens)) {
        ids.resize(static_cast<std::size_t>(*max_tokens));
    }
    return ids;
}

}  // namespace mha2mla

#include "mha2mla/tokenizer.hpp"

#include <algorithm>
#include <fstream>

#include "added_tokens.hpp"
#include "companions.hpp"
#include "decoder.hpp"
#include "json_node.hpp"
#include "limits.hpp"
#include "normalizer.hpp"
#include "post_processor.hpp"
#include "pre_tokenizer.hpp"
#include "tokenizer_file.hpp"
#include "utf8.hpp"
#include "word_model.hpp"

namespace mha2mla {

/// The parts of a tokenizer.json, in the order of processing. An empty function means null in the file.
struct Tokenizer::Impl {
    Impl(const JsonNode& root, TokenizerFile& file)
        : model(parse_word_model(root.at("model"), file)),
          normalizer(part(root, "normalizer", parse_normalizer)),
          pre_tokenizer(part(root, "pre_tokenizer", parse_pre_tokenizer)),
          post_processor(part(root, "post_processor", parse_post_processor)),
          decoder(part(root, "decoder", parse_decoder)),
          added(root, file.max_id, *model.vocabulary, normalizer) {}

    template <typename Part>
    static Part part(const JsonNode& root, std::string_view key, Part (*parse)(const JsonNode&)) {
        const auto node = root.find(key);
        return node ? parse(*node) : Part();
    }

    /// Appends the ids of the text between two added tokens that are matched in the original text.
    void encode_raw(std::string_view text, bool begins_input, const WordEncoder& encode_word, Effort& effort,
                    std::vector<TokenId>& ids) const {
        std::string normalized(text);
        if (normalizer) normalizer(normalized, effort);
        effort.take_text(normalized.size(), "normalizer");
        for (const Segment& segment : added.split_normalized(normalized)) {
            if (segment.id) {
                ids.push_back(*segment.id);
                continue;
            }
            const std::size_t size = segment.end - segment.begin;
            Words words{normalized.substr(segment.begin, size), {{0, size}}, begins_input && segment.begin == 0};
            if (pre_tokenizer) pre_tokenizer(words, effort);
            effort.take_text(words.text.size(), "pre_tokenizer");
            for (const auto& range : words.ranges) encode_word(words.view(range), ids);
        }
    }

    [[nodiscard]] std::optional<std::string_view> name(TokenId id) const {
        const auto found = added.names().name(id);
        return found ? found : model.vocabulary->name(id);
    }

    WordModel model;
    Normalizer normalizer;
    PreTokenizer pre_tokenizer;
    PostProcessor post_processor;
    Decoder decoder;
    AddedTokens added;
};

namespace {

std::string read_file(const std::filesystem::path& file) {
    const auto fail = [&](const std::string& what) -> std::string {
        throw Error(ErrorCode::io, file.string() + ": " + what);
    };
    std::error_code error;
    const auto size = std::filesystem::file_size(file, error);
    if (error)
        return fail("cannot read the tokenizer (" + error.message() + "); is the path that of a tokenizer.json?" +
                    other_tokenizer(file));
    if (size > kMaxFileBytes) return fail("is larger than 512 MiB; is it a tokenizer.json?");
    std::string text(static_cast<std::size_t>(size), '\0');
    std::ifstream in(file, std::ios::binary);
    if (!in.read(text.data(), static_cast<std::streamsize>(text.size()))) return fail("cannot read the whole file");
    return text;
}

}  // namespace

Tokenizer::Tokenizer(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

Tokenizer Tokenizer::load(const std::filesystem::path& path) {
    TokenizerFile file(read_file(path), path.string());
    add_companions(file, path);
    return Tokenizer(std::make_shared<const Impl>(JsonNode(file.rest, path.string()), file));
}

Tokenizer Tokenizer::parse(std::string_view json_text, std::string_view name) {
    TokenizerFile file(json_text, name);
    return Tokenizer(std::make_shared<const Impl>(JsonNode(file.rest, name), file));
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
    if (text.size() > kMaxTextBytes) {
        throw Error(ErrorCode::unsupported, "the text is longer than 1 GiB; split it into several");
    }
    if (const auto bad = utf8::find_invalid(text)) {
        throw Error(ErrorCode::format, "the text is not valid UTF-8 at byte offset " + std::to_string(*bad) +
                                           "; convert it to UTF-8 first");
    }
    std::vector<TokenId> ids;
    Effort effort(text.size());
    const WordEncoder encode_word = impl_->model.encoder();
    for (const Segment& segment : impl_->added.split_raw(text)) {
        if (segment.id) {
            ids.push_back(*segment.id);
        } else {
            const std::string_view piece = text.substr(segment.begin, segment.end - segment.begin);
            impl_->encode_raw(piece, segment.begin == 0, encode_word, effort, ids);
        }
    }
    if (add_special_tokens && impl_->post_processor) impl_->post_processor(ids);
    return ids;
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special_tokens) const {
    std::vector<std::string> tokens;
    tokens.reserve(ids.size());
    for (const TokenId id : ids) {
        const auto name = impl_->name(id);
        if (!name || (skip_special_tokens && impl_->added.is_special(*name))) continue;
        tokens.emplace_back(*name);
    }
    std::size_t bytes = 0;
    for (const auto& token : tokens) bytes += token.size();
    Effort effort(bytes);
    if (impl_->decoder) impl_->decoder(tokens, effort);
    std::string text;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        // Without a decoder, the Rust library joins the tokens with spaces.
        if (i > 0 && !impl_->decoder) text += ' ';
        text += tokens[i];
    }
    return text;
}

std::size_t Tokenizer::vocab_size() const {
    return std::max(impl_->model.vocabulary->size(), impl_->added.names().size());
}

std::optional<TokenId> Tokenizer::token_to_id(std::string_view token) const {
    const auto added = impl_->added.names().id(token);
    return added ? added : impl_->model.vocabulary->id(token);
}

std::optional<std::string> Tokenizer::id_to_token(TokenId id) const {
    const auto name = impl_->name(id);
    return name ? std::optional(std::string(*name)) : std::nullopt;
}

}  // namespace mha2mla

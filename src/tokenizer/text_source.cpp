#include "mha2mla/text_source.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "../support/json_file.hpp"
#include "limits.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/tokenizer.hpp"
#include "text_reader.hpp"
#include "tokenizer_file.hpp"
#include "utf8.hpp"

namespace mha2mla {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::json;

constexpr const char* kUsualField = "text";
constexpr std::size_t kLongestFirstLine = std::size_t{16} << 20U;  // by which a file is known as JSON Lines
constexpr std::size_t kMostBytesOfToken = 16;                      // on average, at first
/// Tokens behind those that are wanted. Where a text is cut changes the tokens there, and none so far before it: a
/// tokenizer merges characters within a word, or a few words.
constexpr std::size_t kMargin = 1024;

/// The next line, without its end; nothing after the last one.
std::optional<std::string_view> next_line(TextReader& reader) {
    for (std::size_t asked = 1;; asked *= 2) {
        const std::string_view rest = reader.peek(asked);
        if (rest.empty()) return std::nullopt;
        const std::size_t end = rest.find('\n');
        if (end != std::string_view::npos) {
            reader.take(end + 1);
            return rest.substr(0, end);
        }
        if (rest.size() < asked || reader.peek(rest.size() + 1).size() == rest.size()) {
            const std::string_view last = reader.peek(rest.size());
            reader.take(last.size());
            return last;
        }
        asked = rest.size();
    }
}

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

/// Whether the first line is an object that has a text, whatever the file is called: standard input has no name.
bool begins_with_object(const fs::path& path) {
    TextReader reader(path);
    const std::string_view start = reader.peek(kLongestFirstLine).substr(0, kLongestFirstLine);
    if (!start.starts_with('{')) return false;
    const auto json = parse_json(start.substr(0, start.find('\n')));
    return json.is_object() && json.contains(kUsualField) && json[kUsualField].is_string();
}

[[noreturn]] void refuse_line(const std::string& where, const Json& json, const std::string& field) {
    if (!json.is_object()) throw Error(ErrorCode::format, where + " is no JSON object");
    std::string others;
    for (const auto& [key, value] : json.items()) {
        if (value.is_string()) others += (others.empty() ? "" : ", ") + ("'" + key + "'");
    }
    throw Error(ErrorCode::format,
                where + " has no string under '" + field + "'" +
                    (others.empty() ? " nor under another key" : "; it has strings under " + others),
                others.empty() ? Remedy::none : Remedy::name_field);
}

/// Calls `use` for the text of each line until it returns false.
void for_each_text(const fs::path& path, const std::string& field, const std::function<bool(const std::string&)>& use) {
    TextReader reader(path);
    std::int64_t number = 0;
    while (const auto line = next_line(reader)) {
        ++number;
        if (is_blank(*line)) continue;
        const Json json = parse_json(*line);
        const auto text = json.is_object() ? json.find(field) : json.end();
        if (!json.is_object() || text == json.end() || !text->is_string()) {
            refuse_line(path.string() + ": line " + std::to_string(number), json, field);
        }
        if (!use(text->get_ref<const std::string&>())) return;
    }
}

/// The beginning of the text, of about this size: it ends between two words where that is possible.
std::string_view cut(std::string_view text, std::size_t bytes) {
    const std::size_t space = text.find_last_of(" \n", bytes);
    if (space != std::string_view::npos && space > bytes / 2) return text.substr(0, space);
    while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xC0U) == 0x80) --bytes;
    return text.substr(0, bytes);
}

/// The first tokens of a text, or all of them if it has less, from as little of it as they need.
/// @param beginning gives the text's beginning, of so many bytes or more, or the whole text.
std::vector<TokenId> first_tokens(const Tokenizer& tokenizer,
                                  const std::function<std::string_view(std::size_t)>& beginning, std::size_t wanted) {
    std::size_t bytes =
        wanted < kMaxTextBytes / kMostBytesOfToken ? (wanted + kMargin) * kMostBytesOfToken : kMaxTextBytes;
    for (;; bytes *= 2) {
        bytes = std::min(bytes, kMaxTextBytes);
        const std::string_view text = beginning(bytes + 1);
        const bool whole = text.size() <= bytes || bytes == kMaxTextBytes;
        std::vector<TokenId> ids = tokenizer.encode(whole ? text : cut(text, bytes), false);
        if (!whole && ids.size() < wanted + kMargin) continue;
        if (ids.size() > wanted) ids.resize(wanted);
        return ids;
    }
}

}  // namespace

std::string text_field(const TextSource& source) {
    if (source.text.empty() || !source.field.empty()) return source.field;
    fs::path name = source.text.filename();
    for (const char* packed : {".gz", ".zst", ".zstd"}) {
        if (name.extension() == packed) name = name.stem();
    }
    const bool named = name.extension() == ".jsonl" || name.extension() == ".ndjson";
    return named || begins_with_object(source.text) ? kUsualField : "";
}

namespace {

using UseTokens = std::function<void(std::vector<TokenId>)>;

/// Calls `use` for the tokens of each text until there are as many as wanted.
void tokenise(const Tokenizer& tokenizer, const TextSource& source, std::size_t wanted, const UseTokens& use) {
    const std::string field = text_field(source);
    if (field.empty()) {
        TextReader reader(source.text);
        return use(first_tokens(
            tokenizer, [&](std::size_t bytes) { return reader.peek(bytes); }, wanted));
    }
    for_each_text(source.text, field, [&](const std::string& text) {
        auto ids = first_tokens(
            tokenizer, [&](std::size_t) -> std::string_view { return text; }, wanted);
        wanted -= ids.size();
        use(std::move(ids));
        return wanted > 0;
    });
}

void for_each_document(const TextSource& source, const Model& model, std::optional<std::int64_t> max_tokens,
                       const UseTokens& use) {
    if (!source.given()) throw Error(ErrorCode::usage, "there is no text", Remedy::give_text);
    if (!source.tokens.empty()) {
        return use(read_token_file(source.tokens, source.format, model.config.vocab_size, max_tokens));
    }
    const auto& directory = model.checkpoint.directory();
    const auto tokenizer_file = source.tokenizer.empty() ? directory / "tokenizer.json" : source.tokenizer;
    std::error_code ignored;
    if (!fs::exists(tokenizer_file, ignored)) {
        throw Error(ErrorCode::io, tokenizer_file.string() + ": no such file" + other_tokenizer(tokenizer_file),
                    Remedy::tokenizer);
    }
    try {
        const std::size_t wanted = max_tokens ? static_cast<std::size_t>(std::max<std::int64_t>(*max_tokens, 0))
                                              : std::numeric_limits<std::size_t>::max();
        tokenise(Tokenizer::load(tokenizer_file), source, wanted, use);
    } catch (const Error& error) {
        // The tokenizer does not know which file the text came from.
        const std::string_view message = error.message();
        for (const auto& named : {tokenizer_file, source.text}) {
            if (message.find(named.string()) != std::string_view::npos) throw;
        }
        throw error.with_prefix(source.text.string() + ": ");
    }
}

}  // namespace

std::vector<TokenId> load_tokens(const TextSource& source, const Model& model, std::optional<std::int64_t> max_tokens) {
    std::vector<TokenId> ids;
    for_each_document(source, model, max_tokens, [&](const std::vector<TokenId>& document) {
        ids.insert(ids.end(), document.begin(), document.end());
    });
    return ids;
}

std::vector<std::vector<TokenId>> load_documents(const TextSource& source, const Model& model) {
    std::vector<std::vector<TokenId>> documents;
    for_each_document(source, model, std::nullopt,
                      [&](std::vector<TokenId> document) { documents.push_back(std::move(document)); });
    return documents;
}

}  // namespace mha2mla

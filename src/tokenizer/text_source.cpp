#include "mha2mla/text_source.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "mha2mla/error.hpp"
#include "mha2mla/mapped_file.hpp"
#include "mha2mla/tokenizer.hpp"
#include "tokenizer_file.hpp"

namespace mha2mla {
namespace {

/// What is not UTF-8 text, by how it begins, and what to do with it.
struct OtherFormat {
    std::string_view start, next_step;
};
constexpr std::array<OtherFormat, 6> kOtherFormats = {{
    {"\x1f\x8b", "is compressed by gzip: unpack it with gunzip, or pipe it in with zcat"},
    {"\x28\xb5\x2f\xfd", "is compressed by zstd: unpack it with unzstd, or pipe it in with zstdcat"},
    {"PAR1", "is Parquet: write the column of the text as JSON Lines, with pandas or duckdb"},
    {"PK\x03\x04", "is a zip archive: unpack it first"},
    {"\xff\xfe", "is UTF-16: convert it with iconv -f UTF-16 -t UTF-8"},
    {"\xfe\xff", "is UTF-16: convert it with iconv -f UTF-16 -t UTF-8"},
}};
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";  // of UTF-8, not a part of the text

/// The texts of a file: one, or where its name ends in .jsonl that under "text" of each line.
std::vector<std::string> texts_of(const std::filesystem::path& path) {
    const MappedFile file(path);
    std::string_view whole(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    for (const OtherFormat& other : kOtherFormats) {
        if (!whole.starts_with(other.start)) continue;
        throw Error(ErrorCode::unsupported, path.string() + " " + std::string(other.next_step));
    }
    if (whole.starts_with(kByteOrderMark)) whole.remove_prefix(kByteOrderMark.size());
    if (path.extension() != ".jsonl") return {std::string(whole)};
    std::vector<std::string> texts;
    std::int64_t number = 0;
    for (std::size_t first = 0; first < whole.size(); ++number) {
        const std::size_t end = std::min(whole.find('\n', first), whole.size());
        const std::string_view line = whole.substr(first, end - first);
        first = end + 1;
        if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
        const auto json = nlohmann::json::parse(line, nullptr, false);
        const auto text = json.is_object() ? json.find("text") : json.end();
        if (!json.is_object() || text == json.end() || !text->is_string()) {
            throw Error(ErrorCode::format, path.string() + ": line " + std::to_string(number + 1) +
                                               " is no JSON object with a string under 'text'");
        }
        texts.push_back(text->get<std::string>());
    }
    return texts;
}

}  // namespace

std::vector<TokenId> load_tokens(const TextSource& source, const Model& model, std::optional<std::int64_t> max_tokens) {
    if (!source.given()) throw Error(ErrorCode::usage, "there is no text", Remedy::give_text);
    if (!source.tokens.empty()) {
        return read_token_file(source.tokens, source.format, model.config.vocab_size, max_tokens);
    }
    const auto& directory = model.checkpoint.directory();
    const auto tokenizer_file = source.tokenizer.empty() ? directory / "tokenizer.json" : source.tokenizer;
    std::error_code ignored;
    if (!std::filesystem::exists(tokenizer_file, ignored)) {
        throw Error(ErrorCode::io, tokenizer_file.string() + ": no such file" + other_tokenizer(tokenizer_file),
                    Remedy::tokenizer);
    }
    std::vector<TokenId> ids;
    try {
        const Tokenizer tokenizer = Tokenizer::load(tokenizer_file);
        for (const std::string& text : texts_of(source.text)) {
            const std::vector<TokenId> more = tokenizer.encode(text, false);
            ids.insert(ids.end(), more.begin(), more.end());
        }
    } catch (const Error& error) {
        // The tokenizer does not know which file the text came from.
        const std::string_view message = error.message();
        for (const auto& named : {tokenizer_file, source.text}) {
            if (message.find(named.string()) != std::string_view::npos) throw;
        }
        throw error.with_prefix(source.text.string() + ": ");
    }
    if (max_tokens && ids.size() > static_cast<std::size_t>(*max_tokens)) {
        ids.resize(static_cast<std::size_t>(*max_tokens));
    }
    return ids;
}

}  // namespace mha2mla

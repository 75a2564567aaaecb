#include "decoder.hpp"

#include <optional>

#include "byte_fallback.hpp"
#include "byte_level.hpp"
#include "metaspace.hpp"
#include "replacement.hpp"
#include "utf8.hpp"

namespace mha2mla {
namespace {

std::string joined(const std::vector<std::string>& tokens) {
    std::string out;
    for (const auto& token : tokens) out += token;
    return out;
}

Decoder parse_byte_level(const JsonNode&) {
    return [](std::vector<std::string>& tokens, Effort&) {
        std::string bytes;
        for (const auto& token : tokens) byte_level::append_decoded(bytes, token);
        tokens = {utf8::replace_invalid(bytes)};
    };
}

/// The text of consecutive byte tokens; if they are not UTF-8, one U+FFFD per byte.
std::string text_of_bytes(const std::string& bytes, bool is_last) {
    const auto bad = utf8::find_invalid(bytes);
    if (!bad || (is_last && utf8::is_unfinished(std::string_view(bytes).substr(*bad)))) return bytes;
    std::string out;
    for (std::size_t i = 0; i < bytes.size(); ++i) out += "\xEF\xBF\xBD";
    return out;
}

Decoder parse_byte_fallback(const JsonNode&) {
    return [](std::vector<std::string>& tokens, Effort&) {
        std::vector<std::string> out;
        std::string bytes;
        for (auto& token : tokens) {
            if (const auto byte = byte_fallback::parse(token)) {
                bytes += static_cast<char>(*byte);
                continue;
            }
            if (!bytes.empty()) out.push_back(text_of_bytes(bytes, false));
            bytes.clear();
            out.push_back(std::move(token));
        }
        if (!bytes.empty()) out.push_back(text_of_bytes(bytes, true));
        tokens = std::move(out);
    };
}

Decoder parse_fuse(const JsonNode&) {
    return [](std::vector<std::string>& tokens, Effort&) { tokens = {joined(tokens)}; };
}

Decoder parse_strip(const JsonNode& node) {
    std::string content;
    utf8::append(content, node.at("content").character());
    const auto start = node.at("start").integer(0, 1 << 20);
    const auto stop = node.at("stop").integer(0, 1 << 20);
    return [content, start, stop](std::vector<std::string>& tokens, Effort&) {
        for (auto& token : tokens) {
            std::string_view rest = token;
            for (auto i = start; i > 0 && rest.starts_with(content); --i) rest.remove_prefix(content.size());
            for (auto i = stop; i > 0 && rest.ends_with(content); --i) rest.remove_suffix(content.size());
            if (rest.size() != token.size()) token = std::string(rest);
        }
    };
}

Decoder parse_replace(const JsonNode& node) {
    return [replacement = Replacement(node)](std::vector<std::string>& tokens, Effort& effort) {
        replacement.apply(tokens, effort);
    };
}

Decoder parse_metaspace(const JsonNode& node) {
    const MetaspaceOptions options = parse_metaspace_options(node);
    std::string mark;
    utf8::append(mark, options.replacement);
    return [mark, prepended = options.prepend != MetaspaceOptions::Prepend::never](std::vector<std::string>& tokens,
                                                                                   Effort&) {
        // The Rust library removes every mark of the first token, not only the prepended one.
        std::string_view space = prepended ? "" : " ";
        for (auto& token : tokens) {
            std::string out;
            std::size_t done = 0;
            for (std::size_t at = token.find(mark); at != std::string::npos; at = token.find(mark, done)) {
                out.append(token, done, at - done).append(space);
                done = at + mark.size();
            }
            token = std::move(out.append(token, done));
            space = " ";
        }
    };
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
    std::string out;
    std::size_t done = 0;
    for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, done)) {
        out.append(text, done, at - done).append(to);
        done = at + from.size();
    }
    text = std::move(out.append(text, done));
}

/// What `cleanup` replaces, in this order.
constexpr std::pair<std::string_view, std::string_view> kCleanups[] = {
    {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},    {" n't", "n't"},
    {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
};

Decoder parse_word_piece_decoder(const JsonNode& node) {
    return [prefix = node.at("prefix").string(), cleanup = node.at("cleanup").boolean()](
               std::vector<std::string>& tokens, Effort& effort) {
        std::size_t size = 0;
        for (std::size_t i = 0; i < tokens.size(); ++i) {
            std::string& token = tokens[i];
            if (i > 0 && token.starts_with(prefix)) {
                token.erase(0, prefix.size());
            } else if (i > 0) {
                token.insert(0, " ");
            }
            for (const auto& [from, to] : kCleanups) {
                if (cleanup) replace_all(token, from, to);
            }
            effort.check_size(size += token.size(), "decoder");
        }
    };
}

/// The suffix of the last character of a word becomes a space, except at the end.
Decoder parse_bpe_decoder(const JsonNode& node) {
    return [suffix = node.at("suffix").string()](std::vector<std::string>& tokens, Effort&) {
        if (suffix.empty()) return;
        for (std::size_t i = 0; i < tokens.size(); ++i)
            replace_all(tokens[i], suffix, i + 1 < tokens.size() ? " " : "");
    };
}

Decoder parse_sequence(const JsonNode& node) {
    std::vector<Decoder> steps;
    for (const JsonNode& step : node.at("decoders").elements()) steps.push_back(parse_decoder(step));
    return [steps = std::move(steps)](std::vector<std::string>& tokens, Effort& effort) {
        for (const auto& step : steps) step(tokens, effort);
    };
}

constexpr StepKind<Decoder> kKinds[] = {
    {"Sequence", parse_sequence},
    {"ByteLevel", parse_byte_level},
    {"ByteFallback", parse_byte_fallback},
    {"Fuse", parse_fuse},
    {"Strip", parse_strip},
    {"Replace", parse_replace},
    {"Metaspace", parse_metaspace},
    {"WordPiece", parse_word_piece_decoder},
    {"BPEDecoder", parse_bpe_decoder},
};

}  // namespace

Decoder parse_decoder(const JsonNode& node) { return parse_step(node, kKinds); }

}  // namespace mha2mla

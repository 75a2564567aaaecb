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
    return [](std::vector<std::string>& tokens) {
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
    return [](std::vector<std::string>& tokens) {
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
    return [](std::vector<std::string>& tokens) { tokens = {joined(tokens)}; };
}

Decoder parse_strip(const JsonNode& node) {
    std::string content;
    utf8::append(content, node.at("content").character());
    const auto start = node.at("start").integer(0, 1 << 20);
    const auto stop = node.at("stop").integer(0, 1 << 20);
    return [content, start, stop](std::vector<std::string>& tokens) {
        for (auto& token : tokens) {
            std::string_view rest = token;
            for (auto i = start; i > 0 && rest.starts_with(content); --i) rest.remove_prefix(content.size());
            for (auto i = stop; i > 0 && rest.ends_with(content); --i) rest.remove_suffix(content.size());
            if (rest.size() != token.size()) token = std::string(rest);
        }
    };
}

Decoder parse_replace(const JsonNode& node) {
    return [replacement = Replacement(node)](std::vector<std::string>& tokens) { replacement.apply(tokens); };
}

Decoder parse_metaspace(const JsonNode& node) {
    const MetaspaceOptions options = parse_metaspace_options(node);
    std::string mark;
    utf8::append(mark, options.replacement);
    return [mark, prepended = options.prepend != MetaspaceOptions::Prepend::never](std::vector<std::string>& tokens) {
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

Decoder parse_sequence(const JsonNode& node) {
    std::vector<Decoder> steps;
    for (const JsonNode& step : node.at("decoders").elements()) steps.push_back(parse_decoder(step));
    return [steps = std::move(steps)](std::vector<std::string>& tokens) {
        for (const auto& step : steps) step(tokens);
    };
}

constexpr StepKind<Decoder> kKinds[] = {
    {"Sequence", parse_sequence},   {"ByteLevel", parse_byte_level}, {"ByteFallback", parse_byte_fallback},
    {"Fuse", parse_fuse},           {"Strip", parse_strip},          {"Replace", parse_replace},
    {"Metaspace", parse_metaspace},
};

}  // namespace

Decoder parse_decoder(const JsonNode& node) { return parse_step(node, kKinds); }

}  // namespace mha2mla

#include "pre_tokenizer.hpp"

#include "byte_level.hpp"
#include "metaspace.hpp"
#include "regex.hpp"
#include "split.hpp"
#include "utf8.hpp"

namespace mha2mla {
namespace {

// GPT-2's pattern of words.
constexpr std::string_view kGpt2Words = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// Replaces each word with the text that `rewrite` appends for it.
template <typename Rewrite>
void rewrite_words(Words& words, Rewrite rewrite) {
    if (words.ranges.empty() || words.ranges.front().begin != 0) words.begins_input = false;
    std::string text;
    text.reserve(words.text.size() + words.text.size() / 2);
    for (Words::Range& word : words.ranges) {
        const std::size_t begin = text.size();
        rewrite(text, words.view(word), word.begin == 0 && words.begins_input);
        word = {begin, text.size()};
    }
    words.text = std::move(text);
}

PreTokenizer parse_split(const JsonNode& node) {
    return [regex = Regex::parse(node.at("pattern")), behavior = parse_split_behavior(node.at("behavior")),
            invert = node.boolean_or("invert", false)](Words& words) { split_words(words, regex, behavior, invert); };
}

PreTokenizer parse_byte_level(const JsonNode& node) {
    const bool prefix_space = node.boolean_or("add_prefix_space", true);
    std::optional<Regex> regex;
    if (node.boolean_or("use_regex", true)) regex.emplace(kGpt2Words, node);
    return [prefix_space, regex](Words& words) {
        if (prefix_space) {
            rewrite_words(words, [](std::string& out, std::string_view word, bool) {
                if (!word.starts_with(' ')) out += ' ';
                out += word;
            });
        }
        if (regex) split_words(words, *regex, SplitBehavior::isolated, false);
        rewrite_words(words,
                      [](std::string& out, std::string_view word, bool) { byte_level::append_encoded(out, word); });
    };
}

PreTokenizer parse_digits(const JsonNode& node) {
    const auto behavior =
        node.boolean_or("individual_digits", false) ? SplitBehavior::isolated : SplitBehavior::contiguous;
    return [regex = Regex(R"(\p{N})", node), behavior](Words& words) { split_words(words, regex, behavior, false); };
}

PreTokenizer parse_metaspace(const JsonNode& node) {
    const MetaspaceOptions options = parse_metaspace_options(node);
    std::string mark;
    utf8::append(mark, options.replacement);
    return [options, mark](Words& words) {
        rewrite_words(words, [&](std::string& out, std::string_view word, bool begins_input) {
            const bool prepend = options.prepend == MetaspaceOptions::Prepend::always ||
                                 (options.prepend == MetaspaceOptions::Prepend::first && begins_input);
            if (prepend && !word.starts_with(mark) && !word.starts_with(' ')) out += mark;
            for (const char c : word) c == ' ' ? out.append(mark) : out.append(1, c);
        });
        if (!options.split) return;
        std::vector<Words::Range> out;
        for (const Words::Range& word : words.ranges) {
            // A word begins at each mark.
            std::size_t begin = word.begin;
            for (std::size_t at = words.text.find(mark, begin + 1); at < word.end; at = words.text.find(mark, at + 1)) {
                out.push_back({begin, at});
                begin = at;
            }
            if (begin < word.end) out.push_back({begin, word.end});
        }
        words.ranges = std::move(out);
    };
}

PreTokenizer parse_sequence(const JsonNode& node) {
    std::vector<PreTokenizer> steps;
    for (const JsonNode& step : node.at("pretokenizers").elements()) steps.push_back(parse_pre_tokenizer(step));
    return [steps = std::move(steps)](Words& words) {
        for (const auto& step : steps) step(words);
    };
}

constexpr StepKind<PreTokenizer> kKinds[] = {
    {"Sequence", parse_sequence}, {"ByteLevel", parse_byte_level}, {"Split", parse_split},
    {"Digits", parse_digits},     {"Metaspace", parse_metaspace},
};

}  // namespace

PreTokenizer parse_pre_tokenizer(const JsonNode& node) { return parse_step(node, kKinds); }

}  // namespace mha2mla

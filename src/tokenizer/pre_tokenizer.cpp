#include "pre_tokenizer.hpp"

#include "byte_level.hpp"
#include "characters.hpp"
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
void rewrite_words(Words& words, Effort& effort, Rewrite rewrite) {
    if (words.ranges.empty() || words.ranges.front().begin != 0) words.begins_input = false;
    std::string text;
    text.reserve(words.text.size() + words.text.size() / 2);
    for (Words::Range& word : words.ranges) {
        const std::size_t begin = text.size();
        rewrite(text, words.view(word), word.begin == 0 && words.begins_input);
        word = {begin, text.size()};
        effort.check_size(text.size(), "pre_tokenizer");
    }
    words.text = std::move(text);
}

PreTokenizer parse_split(const JsonNode& node) {
    return [regex = Regex::parse(node.at("pattern")), behavior = parse_split_behavior(node.at("behavior")),
            invert = node.boolean_or("invert", false)](Words& words, Effort& effort) {
        split_words(words, regex, behavior, invert, effort);
    };
}

PreTokenizer parse_byte_level(const JsonNode& node) {
    const bool prefix_space = node.boolean_or("add_prefix_space", true);
    std::optional<Regex> regex;
    if (node.boolean_or("use_regex", true)) regex.emplace(kGpt2Words, node);
    return [prefix_space, regex](Words& words, Effort& effort) {
        if (prefix_space) {
            rewrite_words(words, effort, [](std::string& out, std::string_view word, bool) {
                if (!word.starts_with(' ')) out += ' ';
                out += word;
            });
        }
        if (regex) split_words(words, *regex, SplitBehavior::isolated, false, effort);
        rewrite_words(words, effort,
                      [](std::string& out, std::string_view word, bool) { byte_level::append_encoded(out, word); });
    };
}

PreTokenizer parse_digits(const JsonNode& node) {
    const auto behavior =
        node.boolean_or("individual_digits", false) ? SplitBehavior::isolated : SplitBehavior::contiguous;
    return [regex = Regex(R"(\p{N})", node), behavior](Words& words, Effort& effort) {
        split_words(words, regex, behavior, false, effort);
    };
}

PreTokenizer parse_punctuation(const JsonNode& node) {
    const auto given = node.find("behavior");
    const auto behavior = given ? parse_split_behavior(*given) : SplitBehavior::isolated;
    return [behavior](Words& words, Effort&) { split_words(words, characters::is_punctuation, behavior); };
}

/// Runs of \w and runs of what is neither that nor white space.
PreTokenizer parse_whitespace(const JsonNode&) {
    return [](Words& words, Effort&) {
        std::vector<Words::Range> out;
        for (const Words::Range& word : words.ranges) {
            const std::string_view text = words.view(word);
            char previous = ' ';
            for (std::size_t at = 0; at < text.size();) {
                const utf8::CodePoint c = utf8::decode(text, at);
                const char kind = utf8::is_white_space(c.value) ? ' ' : utf8::is_word(c.value) ? 'w' : '.';
                const std::size_t begin = word.begin + at;
                at += c.length;
                if (kind != ' ' && kind != previous) out.push_back({begin, begin});
                if (kind != ' ') out.back().end = word.begin + at;
                previous = kind;
            }
        }
        words.ranges = std::move(out);
    };
}

PreTokenizer parse_whitespace_split(const JsonNode&) {
    return [](Words& words, Effort&) { split_words(words, utf8::is_white_space, SplitBehavior::removed); };
}

PreTokenizer parse_bert(const JsonNode&) {
    return [](Words& words, Effort&) {
        split_words(words, utf8::is_white_space, SplitBehavior::removed);
        split_words(words, characters::is_punctuation, SplitBehavior::isolated);
    };
}

PreTokenizer parse_metaspace(const JsonNode& node) {
    const MetaspaceOptions options = parse_metaspace_options(node);
    std::string mark;
    utf8::append(mark, options.replacement);
    return [options, mark](Words& words, Effort& effort) {
        rewrite_words(words, effort, [&](std::string& out, std::string_view word, bool begins_input) {
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
    return [steps = std::move(steps)](Words& words, Effort& effort) {
        for (const auto& step : steps) step(words, effort);
    };
}

constexpr StepKind<PreTokenizer> kKinds[] = {
    {"Sequence", parse_sequence},     {"ByteLevel", parse_byte_level},
    {"Split", parse_split},           {"Digits", parse_digits},
    {"Metaspace", parse_metaspace},   {"Punctuation", parse_punctuation},
    {"Whitespace", parse_whitespace}, {"WhitespaceSplit", parse_whitespace_split},
    {"BertPreTokenizer", parse_bert},
};

}  // namespace

PreTokenizer parse_pre_tokenizer(const JsonNode& node) { return parse_step(node, kKinds); }

}  // namespace mha2mla

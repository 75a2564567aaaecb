#include "pre_tokenizers.hpp"

#include <array>
#include <string>
#include <vector>

namespace mha2mla {
namespace {

using Json = nlohmann::json;

/// How words are found before merges apply. Those that ignore merges also begin a text with BOS.
struct PreTokenizerRow {
    std::string_view name;
    std::string_view regex;  // of a Split; empty: that of GPT-2, which ByteLevel has itself
    bool digits;             // each digit apart, before that
    bool ignore_merges;
};

constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// Of names for the same words, the first is written and all are read.
constexpr std::array<PreTokenizerRow, 11> kRows = {{
    {"gpt-2", "", false, false},
    {"smollm", "", true, false},
    {"starcoder", "", true, false},
    {"refact", "", true, false},
    {"llama-bpe", kLlama3, false, true},
    {"llama3", kLlama3, false, true},
    {"smaug-bpe", kLlama3, false, false},
    {"qwen2", kQwen2, false, false},
    {"deepseek-r1-qwen", kQwen2, false, false},
    {"tekken", kTekken, false, true},
    {"gpt-4o", kGpt4o, false, false},
}};

bool is_type(const Json& step, std::string_view type) { return step.is_object() && step.value("type", "") == type; }

/// The steps of a Sequence, or the one step.
std::vector<Json> steps_of(const Json& pre_tokenizer) {
    if (!is_type(pre_tokenizer, "Sequence")) return {pre_tokenizer};
    const Json steps = pre_tokenizer.value("pretokenizers", Json::array());
    return {steps.begin(), steps.end()};
}

}  // namespace

std::optional<std::string_view> pre_tokenizer_name(const Json& pre_tokenizer, bool ignore_merges) {
    std::vector<Json> steps = steps_of(pre_tokenizer);
    if (steps.empty() || !is_type(steps.back(), "ByteLevel")) return std::nullopt;
    const Json last = steps.back();
    steps.pop_back();
    if (last.value("add_prefix_space", true)) return std::nullopt;
    bool digits = false;
    if (!steps.empty() && is_type(steps.front(), "Digits") && steps.front().value("individual_digits", false)) {
        digits = true;
        steps.erase(steps.begin());
    }
    std::string regex;
    if (!last.value("use_regex", true)) {
        if (steps.size() != 1 || !is_type(steps.front(), "Split") || steps.front().value("invert", false) ||
            steps.front().value("behavior", "") != "Isolated") {
            return std::nullopt;
        }
        const Json pattern = steps.front().value("pattern", Json::object());
        regex = pattern.value("Regex", "");
        if (regex.empty()) return std::nullopt;
    } else if (!steps.empty()) {
        return std::nullopt;
    }
    for (const PreTokenizerRow& row : kRows) {
        if (row.regex == regex && row.digits == digits && row.ignore_merges == ignore_merges) return row.name;
    }
    return std::nullopt;
}

std::optional<NamedPreTokenizer> named_pre_tokenizer(std::string_view name) {
    for (const PreTokenizerRow& row : kRows) {
        if (row.name != name) continue;
        const bool own = row.regex.empty();
        Json steps = Json::array();
        if (row.digits) steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
        if (!own) {
            steps.push_back(
                {{"type", "Split"}, {"pattern", {{"Regex", row.regex}}}, {"behavior", "Isolated"}, {"invert", false}});
        }
        steps.push_back(
            {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", own}});
        const bool one = steps.size() == 1;
        return NamedPreTokenizer{one ? steps.front() : Json{{"type", "Sequence"}, {"pretokenizers", steps}},
                                 row.ignore_merges, row.ignore_merges};
    }
    return std::nullopt;
}

}  // namespace mha2mla

#include "longbench_prompt.hpp"

#include <algorithm>
#include <span>

#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kPapersTokens = 2048;  // of prompt and new tokens, in the evaluation of MHA2MLA
constexpr std::int64_t kCharactersPerToken = 8;

/// Replaces each {name} in one pass, so that what is put in is left as it is.
std::string fill_in(std::string_view form, std::span<const std::pair<std::string_view, std::string_view>> values) {
    std::string text;
    while (!form.empty()) {
        std::size_t skipped = std::max<std::size_t>(1, std::min(form.find('{', 1), form.size()));
        if (form.front() == '{') {
            for (const auto& [name, value] : values) {
                if (!form.substr(1).starts_with(name)) continue;
                text += value;
                form.remove_prefix(name.size() + 1);
                skipped = 0;
                break;
            }
        }
        text += form.substr(0, skipped);
        form.remove_prefix(skipped);
    }
    return text;
}

std::string prompt_of(const LongbenchTask& task, const LongbenchItem& item) {
    const std::pair<std::string_view, std::string_view> values[] = {{"context}", item.context}, {"input}", item.input}};
    return fill_in(task.prompt, values);
}

/// decode(), with a character that is cut off at the end replaced, as Python does.
std::string decode(const Tokenizer& tokenizer, std::span<const TokenId> ids, bool skip_special_tokens) {
    std::string text = tokenizer.decode(ids, skip_special_tokens);
    const std::size_t whole = whole_characters(text);
    if (whole < text.size()) text.replace(whole, std::string::npos, "\xEF\xBF\xBD");
    return text;
}

/// The first and the last characters of a text that is longer than `most` characters.
bool cut_middle(std::string& text, std::size_t most) {
    const auto starts_character = [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; };
    const auto count = static_cast<std::size_t>(std::count_if(text.begin(), text.end(), starts_character));
    if (count <= most) return false;
    std::size_t seen = 0;
    const std::size_t half = most / 2;
    std::string kept;
    for (const char c : text) {
        seen += starts_character(c) ? 1 : 0;  // the number of this character, from 1
        if (seen <= half || seen > count - half) kept += c;
    }
    text = std::move(kept);
    return true;
}

/// Most tokens of a prompt.
std::int64_t longest_prompt(const LongbenchTask& task, const ModelConfig& config, const LongbenchOptions& options) {
    if (options.protocol == LongbenchProtocol::mha2mla) {
        return options.max_tokens.value_or(kPapersTokens) - task.max_new_tokens;
    }
    return options.max_tokens.value_or(config.max_position_embeddings - task.max_new_tokens);
}

}  // namespace

void check_lengths(const LongbenchTask& task, const ModelConfig& config, const LongbenchOptions& options,
                   Observer& observer) {
    const std::int64_t longest = longest_prompt(task, config, options);
    const std::int64_t positions = config.max_position_embeddings;
    const std::string lengths = std::string(task.name) + ": prompts of up to " + std::to_string(longest) +
                                " tokens and " + std::to_string(task.max_new_tokens) + " new ones";
    constexpr std::int64_t kLeast = 2;
    if (longest < kLeast) {
        const std::string room =
            options.max_tokens ? std::to_string(*options.max_tokens) + " tokens"
                               : "the model's " + std::to_string(positions) + " positions (max_position_embeddings)";
        throw Error(ErrorCode::usage, std::string(task.name) + " generates " + std::to_string(task.max_new_tokens) +
                                          " tokens, and " + room +
                                          " leave no room for a prompt; leave the task out, or allow longer prompts");
    }
    if (longest + task.max_new_tokens <= positions) return;
    observer.warn(lengths + " are more than the model's " + std::to_string(positions) + " positions");
}

PromptMaker::PromptMaker(const Model& model, const Tokenizer& tokenizer, const LongbenchOptions& options)
    : model_(model), tokenizer_(tokenizer), options_(options), stop_(stop_tokens(model)), stop_at_newline_(stop_) {
    const auto newline = tokenizer.encode("\n", false);
    if (!newline.empty()) stop_at_newline_.push_back(newline.back());
}

LongbenchPrompt PromptMaker::make(const LongbenchTask& task, const LongbenchItem& item) const {
    return options_.protocol == LongbenchProtocol::mha2mla ? make_as_mha2mla(task, item)
                                                           : make_as_longbench(task, item);
}

/// The middle is cut out of the tokens, whose text is tokenised again.
LongbenchPrompt PromptMaker::make_as_longbench(const LongbenchTask& task, const LongbenchItem& item) const {
    std::string text = prompt_of(task, item);
    LongbenchPrompt prompt{tokenizer_.encode(text, true), false};
    const auto longest = static_cast<std::size_t>(longest_prompt(task, model_.config, options_));
    prompt.truncated = prompt.ids.size() > longest;
    const bool in_chat = task.chat && !options_.chat.empty();
    if (!prompt.truncated && !in_chat) return prompt;
    if (prompt.truncated) {
        const std::span<const TokenId> ids(prompt.ids);
        text = decode(tokenizer_, ids.first(longest / 2), true) + decode(tokenizer_, ids.last(longest / 2), true);
    }
    if (in_chat) {
        const std::pair<std::string_view, std::string_view> value[] = {{"prompt}", text}};
        text = fill_in(options_.chat, value);
    }
    prompt.ids = tokenizer_.encode(text, true);
    return prompt;
}

/// The middle is cut out of the context's characters, and then of the tokens.
LongbenchPrompt PromptMaker::make_as_mha2mla(const LongbenchTask& task, LongbenchItem item) const {
    const auto longest = static_cast<std::size_t>(longest_prompt(task, model_.config, options_));
    const auto characters = kCharactersPerToken * (static_cast<std::int64_t>(longest) + task.max_new_tokens);
    const bool is_cut = cut_middle(item.context, static_cast<std::size_t>(characters));
    LongbenchPrompt prompt{tokenizer_.encode(prompt_of(task, item), true), false};
    prompt.truncated = prompt.ids.size() > longest;
    if (is_cut && !prompt.truncated) {
        throw Error(ErrorCode::unsupported, "the context was cut to " + std::to_string(characters) +
                                                " characters, which are only " + std::to_string(prompt.ids.size()) +
                                                " tokens with its prompt; MHA2MLA's evaluation ends here too, use "
                                                "LongBench's protocol");
    }
    if (!prompt.truncated) return prompt;
    const auto tail = static_cast<std::ptrdiff_t>(longest / 2);
    const auto head = static_cast<std::ptrdiff_t>(longest) - tail;
    prompt.ids.erase(prompt.ids.begin() + head, prompt.ids.end() - tail);
    return prompt;
}

std::string PromptMaker::predict(const LongbenchTask& task, const LongbenchPrompt& prompt, Observer& observer) const {
    const bool as_longbench = options_.protocol == LongbenchProtocol::longbench;
    GenerateOptions generation;
    generation.cache = options_.cache;
    generation.max_new_tokens = task.max_new_tokens;
    generation.stop = stop_;
    if (as_longbench && task.newline_ends) {
        generation.stop = stop_at_newline_;
        generation.min_new_tokens = 1;
    }
    const auto result = generate(model_, {&prompt.ids, 1}, generation, observer);
    const Generation& sequence = result.sequences.front();
    const auto fresh = std::span(sequence.ids).subspan(static_cast<std::size_t>(sequence.prompt_tokens));
    return decode(tokenizer_, fresh, as_longbench);
}

}  // namespace mha2mla

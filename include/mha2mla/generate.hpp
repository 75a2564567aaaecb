#pragma once
/// Continuing prompts.

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/observer.hpp"
#include "mha2mla/session.hpp"
#include "mha2mla/tokenizer.hpp"

namespace mha2mla {

struct SamplingOptions {
    double temperature = 0;  // 0: greedy, the token with the largest logit
    std::int64_t top_k = 0;  // only the k likeliest; 0: all
    double top_p = 1;        // only the likeliest whose probabilities reach this sum
    std::uint64_t seed = 0;
};

/// Draws tokens. The same seed gives the same tokens on every machine, as far as the logits are the same.
class Sampler {
public:
    /// @throws Error{usage} for values out of range.
    explicit Sampler(const SamplingOptions& options);
    /// Among equal logits greedy takes the smallest id, as PyTorch's argmax. @param logits [vocab]
    /// @throws Error{numeric} if a logit is NaN.
    [[nodiscard]] TokenId next(std::span<const float> logits);

private:
    [[nodiscard]] double uniform();  // in [0, 1)
    SamplingOptions options_;
    std::uint64_t state_;
};

/// Ids that end a text: `eos_token_id` of generation_config.json, or else of config.json. May be empty.
/// @throws Error{format} if it is neither a number nor a list of numbers.
[[nodiscard]] std::vector<TokenId> stop_tokens(const Model& model);

struct GenerateOptions {
    KvCacheOptions cache;
    SamplingOptions sampling;  // prompt i of a batch is drawn with seed + i
    std::int64_t max_new_tokens = 128;
    std::vector<TokenId> stop;
};

struct Generation {
    std::vector<TokenId> ids;  // prompt and continuation, the stop token included
    std::int64_t prompt_tokens = 0;
    bool stopped = false;  // at a stop token
};

struct GenerateResult {
    std::vector<Generation> sequences;
    KvCacheSize cache;
    double prefill_seconds = 0, decode_seconds = 0;      // the first new token of each prompt is the prefill's
    std::int64_t prefill_tokens = 0, decode_tokens = 0;  // of the prompts; new ones after the first
};

/// Continues prompts side by side: all their tokens first, then one token of each unfinished sequence at a time.
/// @param on_token is called with every new token: index of the prompt, and id.
/// @throws Error{usage} for an empty prompt, or if the cache does not fit the memory; Error{format} for an id outside
///         the vocabulary; Error{interrupted}.
[[nodiscard]] GenerateResult generate(const Model& model, std::span<const std::vector<TokenId>> prompts,
                                      const GenerateOptions& options, Observer& observer,
                                      const std::function<void(std::size_t, TokenId)>& on_token = {});

/// Text out of tokens as they come, in whole UTF-8 characters.
class TextStream {
public:
    /// @param tokenizer must outlive the stream. @param ids what was said before; its text is not repeated.
    TextStream(const Tokenizer& tokenizer, std::span<const TokenId> ids);
    /// What the token adds, without a character that is still unfinished.
    [[nodiscard]] std::string add(TokenId id);
    /// The rest: an unfinished character becomes U+FFFD.
    [[nodiscard]] std::string finish();

private:
    [[nodiscard]] std::string take(std::string_view text);
    const Tokenizer* tokenizer_;
    std::vector<TokenId> ids_;  // from the last word border on, so that a long text is not decoded again and again
    std::size_t said_ = 0;      // bytes of their text that were given out
};

/// Bytes of `text` before a character that its end cuts off.
[[nodiscard]] std::size_t whole_characters(std::string_view text);

}  // namespace mha2mla

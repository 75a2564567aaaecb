#pragma once
/// Text generation: sampling, continuing prompts, and streaming text.

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
    std::int64_t top_k = 0;  // samples from the k most likely tokens only; 0: from all
    double top_p = 1;        // samples from the smallest set of likely tokens whose probabilities reach this sum
    std::uint64_t seed = 0;
};

/// Samples tokens. The same seed and the same logits give the same tokens on every machine.
class Sampler {
public:
    /// @throws Error{usage} for values out of range.
    explicit Sampler(const SamplingOptions& options);
    /// Samples the next token. Greedy decoding breaks ties by the smallest id, as PyTorch's argmax does.
    /// @param logits [vocab]
    /// @throws Error{numeric} if a logit is NaN.
    [[nodiscard]] TokenId next(std::span<const float> logits);

private:
    [[nodiscard]] double uniform();  // in [0, 1)
    SamplingOptions options_;
    std::uint64_t state_;
};

/// The ids that end a text: `eos_token_id` of generation_config.json or, without it, of config.json. May be empty.
/// @throws Error{format} if `eos_token_id` is neither a number nor a list of numbers.
[[nodiscard]] std::vector<TokenId> stop_tokens(const Model& model);

struct GenerateOptions {
    KvCacheOptions cache;
    SamplingOptions sampling;  // prompt i of a batch uses seed + i
    std::int64_t max_new_tokens = 128;
    std::int64_t min_new_tokens = 0;  // stop tokens are not taken before, whatever their logits
    std::vector<TokenId> stop;
};

struct Generation {
    std::vector<TokenId> ids;  // prompt and continuation, the stop token included
    std::int64_t prompt_tokens = 0;
    bool stopped = false;  // whether it ends with a stop token
};

struct GenerateResult {
    std::vector<Generation> sequences;
    KvCacheSize cache;
    double prefill_seconds = 0, decode_seconds = 0;      // prefill includes the first new token of each prompt
    std::int64_t prefill_tokens = 0, decode_tokens = 0;  // prompt tokens; new tokens after the first of each prompt
};

/// Continues a batch of prompts: processes all prompt tokens, then generates one token per unfinished sequence and
/// step.
/// @param on_token called for every new token with the index of its prompt and its id.
/// @throws Error{usage} for an empty prompt, or if the cache does not fit the memory; Error{format} for an id outside
///         the vocabulary; Error{interrupted}.
[[nodiscard]] GenerateResult generate(const Model& model, std::span<const std::vector<TokenId>> prompts,
                                      const GenerateOptions& options, Observer& observer,
                                      const std::function<void(std::size_t, TokenId)>& on_token = {});

/// Decodes a stream of tokens to text, in complete UTF-8 characters.
class TextStream {
public:
    /// @param tokenizer must outlive the stream. @param ids the preceding tokens, whose text is not returned.
    TextStream(const Tokenizer& tokenizer, std::span<const TokenId> ids);
    /// The text that the token adds, without a trailing incomplete character.
    [[nodiscard]] std::string add(TokenId id);
    /// The rest of the text: U+FFFD if the last character is incomplete, otherwise nothing.
    [[nodiscard]] std::string finish();

private:
    [[nodiscard]] std::string new_part(std::string_view text);
    const Tokenizer* tokenizer_;
    std::vector<TokenId> ids_;  // the last tokens only, so that a long text is not decoded repeatedly
    std::size_t returned_ = 0;  // number of bytes of their text that were returned
};

/// The number of bytes of `text` without a trailing incomplete UTF-8 character.
[[nodiscard]] std::size_t whole_characters(std::string_view text);

}  // namespace mha2mla

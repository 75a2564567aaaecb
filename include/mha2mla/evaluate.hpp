#pragma once
/// Negative log-likelihood, perplexity, and the difference between a model and its conversion.

#include <cstdint>
#include <span>
#include <vector>

#include "mha2mla/model.hpp"
#include "mha2mla/observer.hpp"
#include "mha2mla/runtime.hpp"
#include "mha2mla/session.hpp"
#include "mha2mla/windows.hpp"

namespace mha2mla {

struct EvalResult {
    double nll = 0;  // mean over the scored tokens, in nats; the first token of each window is not scored
    std::int64_t tokens = 0, windows = 0, context = 0;
    [[nodiscard]] double perplexity() const;
};
/// Evaluates a model on windows by prefill.
/// @param windows the result of make_windows(). @throws Error{numeric} if the NLL is not finite.
[[nodiscard]] EvalResult evaluate(const Model& model, std::span<const TokenId> windows, std::int64_t context,
                                  Observer& observer);
/// Evaluates a model as it decodes: every token attends to the preceding ones of its window through a KV cache of this
/// format. Tokens are processed in blocks by a Session, with the same quantised and full-precision parts of the cache
/// for each token as in decoding one token at a time. @throws as above and as Session does.
[[nodiscard]] EvalResult evaluate(const Model& model, std::span<const TokenId> windows, std::int64_t context,
                                  const KvCacheOptions& cache, Observer& observer);

struct VerifyResult {
    double nll_original = 0, nll_converted = 0;
    double mean_kl = 0;               // mean over the scored tokens of KL(original ‖ converted), in nats
    double max_logit_difference = 0;  // maximum over the scored tokens and the vocabulary
    std::int64_t tokens = 0, windows = 0, context = 0;
};
/// Compares a model with its conversion on the same windows.
/// @throws Error{usage} if the vocabularies differ.
[[nodiscard]] VerifyResult verify(const Model& original, const Model& converted, std::span<const TokenId> windows,
                                  std::int64_t context, Observer& observer);

}  // namespace mha2mla

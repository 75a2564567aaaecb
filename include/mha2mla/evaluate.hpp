#pragma once
/// Negative log-likelihood, perplexity, and how far a conversion moved the model.

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
    double nll = 0;  // mean over scored tokens, in nats; every token of a window but its first is scored
    std::int64_t tokens = 0, windows = 0, context = 0;
    [[nodiscard]] double perplexity() const;
};
/// @param windows as make_windows returns them. @throws Error{numeric} if the NLL is not finite.
[[nodiscard]] EvalResult evaluate(const Model& model, std::span<const TokenId> windows, std::int64_t context,
                                  Observer& observer);
/// The same as a decoding user gets it: every token sees the others of its window through a KV cache of this format.
/// Blocks of tokens go through a Session, which gives each the quantised past and the full-precision window that it
/// would see one token at a time. @throws as above and as Session does.
[[nodiscard]] EvalResult evaluate(const Model& model, std::span<const TokenId> windows, std::int64_t context,
                                  const KvCacheOptions& cache, Observer& observer);

struct VerifyResult {
    double nll_original = 0, nll_converted = 0;
    double mean_kl = 0;               // mean over scored tokens of KL(original ‖ converted), in nats
    double max_logit_difference = 0;  // over scored tokens and the vocabulary
    std::int64_t tokens = 0, windows = 0, context = 0;
};
/// @throws Error{usage} if the vocabularies differ.
[[nodiscard]] VerifyResult verify(const Model& original, const Model& converted, std::span<const TokenId> windows,
                                  std::int64_t context, Observer& observer);

}  // namespace mha2mla

#pragma once
#include <cstdint>
#include <span>

#include "mha2mla/architecture.hpp"

namespace mha2mla {

/// The first key that query `position` sees: 0 unless the rule has a window.
[[nodiscard]] inline std::int64_t first_visible(const AttentionRule& rule, std::int64_t position) {
    return rule.window > 0 && position >= rule.window ? position - rule.window + 1 : 0;
}

/// x ← cap · tanh(x / cap)
void soft_cap(float cap, std::int64_t count, float* x);
/// d, the derivative by soft_cap()'s result, becomes that by what it read. @param capped the result.
void soft_cap_gradient(float cap, std::int64_t count, const float* capped, float* d);

/// Logits of one query, scaled but not capped, become attention weights that do not sum up to 1 yet:
/// exp(soft-capped logit − maximum) of the keys that the query sees, zeros before.
/// @param logits of the keys up to the query's own position, [position + 1]. @return the sum of the weights.
float attention_weights(const AttentionRule& rule, std::int64_t position, float* logits);

/// Logits of a sequence's queries, scaled but not capped, become their soft-capped softmax over the keys that each
/// query sees, zeros beyond. @param logits [seq_len, seq_len]
/// @param begins the first key that each query may see, such as that of its document, [seq_len]; empty: 0
void causal_softmax(const AttentionRule& rule, std::int64_t seq_len, float* logits,
                    std::span<const std::int64_t> begins = {});

/// d, the derivative by causal_softmax()'s result p, becomes that by the capped logits: p ∘ (d − Σ p·d); where the rule
/// has a soft-cap, soft_cap_gradient() is the rest of the way. @param probabilities, d [seq_len, seq_len]
void causal_softmax_gradient(const AttentionRule& rule, std::int64_t seq_len, const float* probabilities, float* d);

/// Logits become probabilities, for the loss of next tokens. @return the log of what their exponentials sum up to.
double softmax(float* logits, std::int64_t count);

}  // namespace mha2mla

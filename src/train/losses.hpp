#pragma once
#include <span>

#include "../forward/head.hpp"
#include "mha2mla/token_id.hpp"

namespace mha2mla {

/// What a loss of next-token distributions computes them by. Logits of kHeadTokens tokens are held at once.
struct TokenHead {
    const ModelRules& rules;
    HeadView view;
};
inline constexpr std::int64_t kHeadTokens = 256;

/// A teacher's next-token distributions, by its hidden states behind its last layer, [tokens, hidden].
struct Teacher {
    TokenHead head;
    const Matrix& hidden;
};

/// What distributions are compared with, and how much each counts.
struct LossTargets {
    std::span<const TokenId> next;     // the token that follows each; negative: not scored; empty: all are
    double next_share = 1;             // of −log p(next token), if `next` is not empty
    const Teacher* teacher = nullptr;  // null: none
    double teacher_share = 1;          // of KL(teacher ‖ ours)
    std::int64_t scored = 0;           // what sums are divided by; 0: by the number of positions that are scored
};
/// Sums over scored positions, divided as LossTargets says, before their shares.
struct LossSums {
    double next_token = 0, teacher = 0;
};
/// @param output hidden states behind the last layer, [tokens, hidden]
/// @param d_output set to the derivative of the sums times their shares.
/// @param to the head's weights' derivatives are added here.
LossSums head_loss(const TokenHead& head, const Matrix& output, const LossTargets& targets, Matrix& d_output,
                   const HeadGradient& to = {});

/// Σ −log softmax(head(output))[target] / number of targets.
double next_token_loss(const TokenHead& head, const Matrix& output, std::span<const TokenId> targets, Matrix& d_output,
                       const HeadGradient& to = {});

/// Σ KL(softmax(head(wanted)) || softmax(head(output))) / tokens.
double distribution_loss(const TokenHead& head, const Matrix& output, const Matrix& wanted, Matrix& d_output,
                         const HeadGradient& to = {});

}  // namespace mha2mla

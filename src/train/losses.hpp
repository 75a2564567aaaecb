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

/// Σ −log softmax(head(output))[target] / number of targets.
/// @param output hidden states behind the last layer, [tokens, hidden]
/// @param targets the token that follows each; negative: not counted.
/// @param d_output set to the derivative. @param to the head's weights' derivatives are added here.
double next_token_loss(const TokenHead& head, const Matrix& output, std::span<const TokenId> targets, Matrix& d_output,
                       const HeadGradient& to = {});

/// Σ KL(softmax(head(wanted)) || softmax(head(output))) / tokens.
/// @param output, wanted hidden states behind the last layer, [tokens, hidden]. Others as above.
double distribution_loss(const TokenHead& head, const Matrix& output, const Matrix& wanted, Matrix& d_output,
                         const HeadGradient& to = {});

}  // namespace mha2mla

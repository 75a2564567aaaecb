#pragma once
#include "norm.hpp"
#include "project.hpp"

namespace mha2mla {

/// The final norm and lm_head.
struct HeadView {
    NormView norm;
    LinearView lm_head;
};
[[nodiscard]] HeadView head_of(const Model& model);

/// logits ← cap(logit_scale · lm_head(norm(hidden))), cap(x) = softcap · tanh(x / softcap).
/// @param hidden [tokens, hidden]. @param normed what lm_head reads. @param logits [tokens, vocab]
void head(const ModelRules& rules, const HeadView& view, Eigen::Ref<const Matrix> hidden, Matrix& normed,
          Matrix& logits, ProductPrecision precision = ProductPrecision::full);

/// Derivatives by the head's weights; null members: not computed.
struct HeadGradient {
    NormGradient norm;
    LinearGradient lm_head;
};
/// From the derivative by the logits those by what lm_head read, and by its weights. norm_gradient() goes on from
/// there.
/// @param logits what head() returned; not read without a soft-cap. @param d_logits changed on the way. @param d_normed
/// set. [tokens, hidden]
void logits_gradient(const ModelRules& rules, const LinearView& lm_head, const Matrix& normed, const Matrix& logits,
                     Matrix& d_logits, Eigen::Ref<Matrix> d_normed, const LinearGradient& to = {});

}  // namespace mha2mla

#include "head.hpp"

#include "for_each_token.hpp"
#include "softmax.hpp"

namespace mha2mla {

HeadView head_of(const Model& model) { return {model.norm, {model.lm_head}}; }

void head(const ModelRules& rules, const HeadView& view, Eigen::Ref<const Matrix> hidden, Matrix& normed,
          Matrix& logits, ProductPrecision precision) {
    norm(view.norm, hidden, normed);
    project(view.lm_head, normed, logits, precision);
    if (rules.logit_scale == 1 && rules.final_softcap == 0) return;
    for_each_token(logits.rows(), [&](std::int64_t t) {
        logits.row(t) *= rules.logit_scale;
        if (rules.final_softcap > 0) soft_cap(rules.final_softcap, logits.cols(), logits.row(t).data());
    });
}

void logits_gradient(const ModelRules& rules, const LinearView& lm_head, const Matrix& normed, const Matrix& logits,
                     Matrix& d_logits, Eigen::Ref<Matrix> d_normed, const LinearGradient& to) {
    if (rules.logit_scale != 1 || rules.final_softcap > 0) {
        for_each_token(logits.rows(), [&](std::int64_t t) {
            if (rules.final_softcap > 0) {
                soft_cap_gradient(rules.final_softcap, logits.cols(), logits.row(t).data(), d_logits.row(t).data());
            }
            d_logits.row(t) *= rules.logit_scale;
        });
    }
    linear_back(lm_head, d_logits.rows(), d_logits.data(), false, d_normed.data());
    project_gradient(normed, d_logits, to);
}

}  // namespace mha2mla

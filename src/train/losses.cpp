#include "losses.hpp"

#include <algorithm>

#include "../forward/for_each_token.hpp"
#include "../forward/softmax.hpp"

namespace mha2mla {
namespace {

/// Sums a loss over tokens and brings its derivative by the logits back to the hidden states.
/// @param token_loss (token, row of a block, logits of it that become the derivative) -> its loss
/// @param before_block called with the first token and the number of tokens of each block.
template <typename BeforeBlock, typename TokenLoss>
double through_head(const TokenHead& by, const Matrix& output, Matrix& d_output, const HeadGradient& to,
                    const BeforeBlock& before_block, const TokenLoss& token_loss) {
    Matrix normed, logits, d_logits;
    Matrix d_normed(output.rows(), output.cols());
    Vector losses(output.rows());
    for (std::int64_t first = 0; first < output.rows(); first += kHeadTokens) {
        const std::int64_t count = std::min(kHeadTokens, output.rows() - first);
        before_block(first, count);
        head(by.rules, by.view, output.middleRows(first, count), normed, logits);
        d_logits = logits;
        for_each_token(count, [&](std::int64_t t) {
            losses(first + t) = static_cast<float>(token_loss(first + t, t, d_logits.row(t).array()));
        });
        logits_gradient(by.rules, by.view.lm_head, normed, logits, d_logits, d_normed.middleRows(first, count),
                        to.lm_head);
    }
    d_output.setZero(output.rows(), output.cols());
    norm_gradient(by.view.norm, output, d_normed, d_output, to.norm);
    return losses.cast<double>().sum();
}

using Row = Eigen::Array<float, 1, Eigen::Dynamic>;

}  // namespace

double next_token_loss(const TokenHead& head, const Matrix& output, std::span<const TokenId> targets, Matrix& d_output,
                       const HeadGradient& to) {
    const auto counted = std::count_if(targets.begin(), targets.end(), [](TokenId id) { return id >= 0; });
    const auto share = static_cast<float>(1.0 / static_cast<double>(counted));
    const double sum = through_head(
        head, output, d_output, to, [](std::int64_t, std::int64_t) {},
        [&](std::int64_t token, std::int64_t, auto d) {
            const auto target = static_cast<Eigen::Index>(targets[static_cast<std::size_t>(token)]);
            if (target < 0) {
                d.setZero();
                return 0.0;
            }
            const auto logit = static_cast<double>(d(target));
            const double loss = softmax(&d(0), d.size()) - logit;
            d(target) -= 1.0F;
            d *= share;
            return loss;
        });
    return sum / static_cast<double>(counted);
}

double distribution_loss(const TokenHead& by, const Matrix& output, const Matrix& wanted, Matrix& d_output,
                         const HeadGradient& to) {
    const auto share = static_cast<float>(1.0 / static_cast<double>(output.rows()));
    Matrix wanted_normed, wanted_logits;
    const double sum = through_head(
        by, output, d_output, to,
        [&](std::int64_t first, std::int64_t count) {
            head(by.rules, by.view, wanted.middleRows(first, count), wanted_normed, wanted_logits);
        },
        [&](std::int64_t, std::int64_t row, auto ours) {
            auto theirs = wanted_logits.row(row).array();
            const Row apart = theirs - ours;
            const double sums = softmax(&ours(0), ours.size()) - softmax(&theirs(0), theirs.size());
            const double loss = (theirs * apart).template cast<double>().sum() + sums;
            ours = (ours - theirs) * share;
            return loss;
        });
    return sum / static_cast<double>(output.rows());
}

}  // namespace mha2mla

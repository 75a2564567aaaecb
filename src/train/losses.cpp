#include "losses.hpp"

#include <algorithm>

#include "../forward/for_each_token.hpp"
#include "../forward/softmax.hpp"

namespace mha2mla {
namespace {

std::int64_t scored_of(std::span<const TokenId> next, std::int64_t tokens) {
    if (next.empty()) return tokens;
    return std::count_if(next.begin(), next.end(), [](TokenId id) { return id >= 0; });
}

using Row = Eigen::Array<float, 1, Eigen::Dynamic>;

/// The losses of one position, and their derivative by its logits times `share`.
/// @param next negative where it is not known.
/// @param ours logits that become the derivative.
/// @param theirs the teacher's logits, which become probabilities; empty without one.
LossSums position_loss(const LossTargets& targets, float share, std::int64_t next, Eigen::Ref<Row> ours,
                       Eigen::Ref<Row> theirs) {
    LossSums sums;
    float next_share = 0, teacher_share = 0;
    const Row apart = theirs.size() > 0 ? Row(theirs - ours) : Row();
    const double logit = next >= 0 ? static_cast<double>(ours(next)) : 0;
    const double our_log = softmax(ours.data(), ours.size());
    if (next >= 0) {
        sums.next_token = our_log - logit;
        next_share = static_cast<float>(targets.next_share);
    }
    if (theirs.size() > 0) {
        const double their_log = softmax(theirs.data(), theirs.size());
        sums.teacher = (theirs * apart).cast<double>().sum() + our_log - their_log;
        teacher_share = static_cast<float>(targets.teacher_share);
    }
    ours *= next_share + teacher_share;
    if (next >= 0) ours(next) -= next_share;
    if (theirs.size() > 0) ours -= teacher_share * theirs;
    ours *= share;
    return sums;
}

}  // namespace

LossSums head_loss(const TokenHead& by, const Matrix& output, const LossTargets& targets, Matrix& d_output,
                   const HeadGradient& to) {
    const std::int64_t tokens = output.rows();
    const double scored = static_cast<double>(targets.scored > 0 ? targets.scored : scored_of(targets.next, tokens));
    Matrix normed, logits, d_logits, their_normed, their_logits;
    Matrix d_normed(tokens, output.cols());
    Vector next_losses = Vector::Zero(tokens), teacher_losses = Vector::Zero(tokens);
    for (std::int64_t first = 0; first < tokens; first += kHeadTokens) {
        const std::int64_t count = std::min(kHeadTokens, tokens - first);
        head(by.rules, by.view, output.middleRows(first, count), normed, logits, ProductPrecision::split);
        their_logits.resize(count, 0);
        if (targets.teacher != nullptr) {
            const auto& [theirs, hidden] = *targets.teacher;
            head(theirs.rules, theirs.view, hidden.middleRows(first, count), their_normed, their_logits,
                 ProductPrecision::split);
        }
        if (by.rules.final_softcap > 0) {
            d_logits = logits;
        } else {
            d_logits.swap(logits);  // its gradient does not need them
        }
        for_each_token(count, [&](std::int64_t t) {
            auto row = d_logits.row(t).array();
            const auto at = static_cast<std::size_t>(first + t);
            const std::int64_t next = targets.next.empty() ? -1 : targets.next[at];
            if (next < 0 && !targets.next.empty()) {
                row.setZero();
                return;
            }
            const LossSums sums =
                position_loss(targets, static_cast<float>(1 / scored), next, row, their_logits.row(t).array());
            next_losses(first + t) = static_cast<float>(sums.next_token);
            teacher_losses(first + t) = static_cast<float>(sums.teacher);
        });
        logits_gradient(by.rules, by.view.lm_head, normed, logits, d_logits, d_normed.middleRows(first, count),
                        to.lm_head);
    }
    d_output.setZero(tokens, output.cols());
    norm_gradient(by.view.norm, output, d_normed, d_output, to.norm);
    return {next_losses.cast<double>().sum() / scored, teacher_losses.cast<double>().sum() / scored};
}

double next_token_loss(const TokenHead& head, const Matrix& output, std::span<const TokenId> targets, Matrix& d_output,
                       const HeadGradient& to) {
    LossTargets wanted;
    wanted.next = targets;
    return head_loss(head, output, wanted, d_output, to).next_token;
}

double distribution_loss(const TokenHead& head, const Matrix& output, const Matrix& wanted, Matrix& d_output,
                         const HeadGradient& to) {
    const Teacher teacher{head, wanted};
    LossTargets targets;
    targets.teacher = &teacher;
    return head_loss(head, output, targets, d_output, to).teacher;
}

}  // namespace mha2mla

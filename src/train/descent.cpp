#include "descent.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <random>

#include "../forward/for_each_token.hpp"
#include "adam.hpp"
#include "block.hpp"
#include "losses.hpp"

namespace mha2mla {
namespace {

constexpr double kWarmUp = 20;  // steps
constexpr std::int64_t kStepsAReport = 16;

/// The share of the rate.
double rate_at(std::int64_t step, std::int64_t steps) {
    const double turn = static_cast<double>(step) / static_cast<double>(steps);
    const double fade = 0.5 * (1 + std::cos(std::numbers::pi * turn)) * 0.99 + 0.01;
    return fade * std::min(1.0, static_cast<double>(step + 1) / kWarmUp);
}

/// Sequences in a random order, all of them before any comes again.
class Batches {
public:
    Batches(std::int64_t tokens, std::int64_t seq_len, std::int64_t step_tokens)
        : seq_len_(seq_len), order_(static_cast<std::size_t>(tokens / seq_len)), taken_(order_.size()) {
        std::iota(order_.begin(), order_.end(), 0);
        batch_.resize(
            std::min(order_.size(), static_cast<std::size_t>(std::max<std::int64_t>(1, step_tokens / seq_len))));
    }
    void next() {
        for (auto& sequence : batch_) {
            if (taken_ == order_.size()) {
                for (std::size_t j = order_.size(); j > 1; --j) std::swap(order_[j - 1], order_[random_() % j]);
                taken_ = 0;
            }
            sequence = order_[taken_++];
        }
    }
    /// The batch's rows of a matrix or vector.
    template <typename Rows>
    void gather(const Rows& from, Rows& to) const {
        to.resize(std::ssize(batch_) * seq_len_, from.cols());
        for_each_token(to.rows(), [&](std::int64_t t) {
            to.row(t) = from.row(batch_[static_cast<std::size_t>(t / seq_len_)] * seq_len_ + t % seq_len_);
        });
    }

private:
    std::int64_t seq_len_;
    std::vector<std::int64_t> order_, batch_;
    std::size_t taken_;
    std::mt19937 random_{1};
};

/// Every which token is compared by its next-token distribution: logits over a large vocabulary would take most of a
/// step's time.
std::int64_t distribution_stride(std::int64_t vocab_size) {
    constexpr std::int64_t kWide = 24576, kMost = 8;
    return std::clamp<std::int64_t>(vocab_size / kWide, 1, kMost);
}

/// distribution_loss() on every stride-th row from `first` on. @param d_output 0 elsewhere.
void sampled_distribution_loss(const TokenHead& head, const Matrix& output, const Matrix& wanted, std::int64_t first,
                               std::int64_t stride, Matrix& d_output) {
    if (stride == 1) return (void)distribution_loss(head, output, wanted, d_output);
    const auto rows = Eigen::seq(first % stride, output.rows() - 1, stride);
    Matrix d_rows;
    (void)distribution_loss(head, output(rows, Eigen::all), wanted(rows, Eigen::all), d_rows);
    d_output.setZero(output.rows(), output.cols());
    d_output(rows, Eigen::all) = d_rows;
}

}  // namespace

void Descent::on_own_output(LatentLayer& layer, const AttentionTarget& target) const {
    Batches batches(target.input.rows(), seq_len, step_tokens);
    LatentGradient gradient;
    Adam adam(parameters(layer, gradient));
    LatentActivations activations;
    Matrix input, wanted, d_output;
    Vector weight;
    for (std::int64_t step = 0; step < steps; ++step) {
        if (step % kStepsAReport == 0) progress(step);
        batches.next();
        batches.gather(target.input, input);
        batches.gather(target.output, wanted);
        batches.gather(target.weight, weight);
        run_latent(layer, seq_len, input, activations);
        (void)squared_loss(activations.output, wanted, weight, &d_output);
        differentiate_latent(layer, seq_len, input, activations, d_output, gradient);
        adam.step(rate * rate_at(step, steps));
    }
}

void Descent::on_window(const Model& model, std::int64_t first, std::span<LatentLayer* const> layers,
                        const Matrix& before, const Matrix& behind) const {
    const bool at_the_end = first + std::ssize(layers) == model.config.num_hidden_layers;
    Batches batches(before.rows(), seq_len, step_tokens);
    std::vector<Adam> adams;
    std::vector<LatentGradient> gradients(layers.size());
    std::vector<LatentBlock> blocks;
    for (std::size_t i = 0; i < layers.size(); ++i) {
        adams.emplace_back(parameters(*layers[i], gradients[i]));
        blocks.push_back({model, first + static_cast<std::int64_t>(i), *layers[i], seq_len});
    }
    std::vector<BlockActivations> at(layers.size());
    const TokenHead head{model.config.rules, head_of(model)};
    Matrix wanted, d_hidden;
    for (std::int64_t step = 0; step < steps; ++step) {
        if (step % kStepsAReport == 0) progress(step);
        batches.next();
        batches.gather(before, at.front().input);
        batches.gather(behind, wanted);
        for (std::size_t i = 0; i < layers.size(); ++i) {
            if (i > 0) at[i].input = at[i - 1].output;
            run_block(blocks[i], at[i]);
        }
        if (at_the_end) {
            sampled_distribution_loss(head, at.back().output, wanted, step,
                                      distribution_stride(model.config.vocab_size), d_hidden);
        } else {
            (void)squared_loss(at.back().output, wanted, token_weights(wanted), &d_hidden);
        }
        for (std::size_t i = layers.size(); i-- > 0;) {
            differentiate_block(blocks[i], at[i], d_hidden, gradients[i]);
            adams[i].step(rate * rate_at(step, steps));
        }
    }
}

}  // namespace mha2mla

#pragma once
#include <functional>
#include <span>

#include "../latent/attention_target.hpp"

namespace mha2mla {

/// Gradient descent by Adam on batches of whole sequences, which come in a random order that is always the same.
struct Descent {
    using Progress = std::function<void(std::int64_t step)>;

    std::int64_t seq_len, steps, step_tokens;
    double rate;        // of the first step, in the root mean square of a weight matrix
    Progress progress;  // called every few steps; may throw

    /// One layer, on the error of its attention's output.
    void on_own_output(LatentLayer& layer, const AttentionTarget& target) const;

    /// Neighbouring layers together, through the MLPs between them. The loss is the squared error of the hidden states
    /// behind the last of them or, behind the last of the model, the Kullback-Leibler divergence of the converted
    /// model's next-token distributions from the original's.
    /// @param first of the layers.
    /// @param before hidden states of the converted model before them, [tokens, hidden]
    /// @param behind those of the original behind them.
    void on_window(const Model& model, std::int64_t first, std::span<LatentLayer* const> layers, const Matrix& before,
                   const Matrix& behind) const;
};

}  // namespace mha2mla

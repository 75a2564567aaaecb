#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "parameter.hpp"

namespace mha2mla {

/// √Σg² over the gradients of all parameters.
[[nodiscard]] double gradient_norm(std::span<const Parameter> parameters);
/// What gradients are multiplied by so that their norm is at most `most`, as torch computes it.
[[nodiscard]] double clip_factor(double norm, double most);

struct AdamWOptions {
    double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
    double weight_decay = 0;    // of parameters with Parameter::decays
    bool bf16_moments = false;  // both moments in BF16, which halves their memory
};

/// AdamW (Loshchilov and Hutter, 2019, algorithm 2) as torch computes it:
///   p ← p·(1 − rate·decay);  m ← β₁m + (1 − β₁)g;  v ← β₂v + (1 − β₂)g²;
///   p ← p − rate/(1 − β₁ᵗ) · m / (√v/√(1 − β₂ᵗ) + eps)
class AdamW {
public:
    /// @param parameters whose numbers must stay where they are.
    AdamW(std::vector<Parameter> parameters, const AdamWOptions& options);
    /// Moves every parameter along its gradient. Results do not depend on the threads.
    /// @param rate the learning rate of this step. @param scale of the gradients, see clip_factor().
    void step(double rate, double scale);

    [[nodiscard]] std::span<const Parameter> parameters() const { return parameters_; }
    [[nodiscard]] std::int64_t steps() const { return steps_; }
    void set_steps(std::int64_t steps) { steps_ = steps; }
    /// The bytes of both moments of a parameter, for a checkpoint: all first ones, then all second ones.
    [[nodiscard]] std::span<std::byte> moments(std::size_t parameter) { return moments_[parameter]; }
    [[nodiscard]] bool bf16_moments() const { return options_.bf16_moments; }

private:
    AdamWOptions options_;
    std::vector<Parameter> parameters_;
    std::vector<std::vector<std::byte>> moments_;
    std::int64_t steps_ = 0;
};

}  // namespace mha2mla

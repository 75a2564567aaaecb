#include <cmath>
#include <numbers>

#include "mha2mla/finetune.hpp"

namespace mha2mla {

double RateSchedule::factor(std::int64_t step) const {
    const auto s = static_cast<double>(step);
    if (step < warmup) return s / static_cast<double>(warmup);
    if (step == 0 && decay == RateDecay::one_minus_sqrt) return 0;  // as the reference's rule, even without a warm-up
    if (decay == RateDecay::constant || step <= decay_start) return 1;
    if (step >= decay_start + decay_steps) return floor;
    const double done = (s - static_cast<double>(decay_start)) / static_cast<double>(decay_steps);
    double left = 1 - done;
    if (decay == RateDecay::one_minus_sqrt) left = 1 - std::sqrt(done);
    if (decay == RateDecay::cosine) left = 0.5 * (1 + std::cos(std::numbers::pi * done));
    return floor + (1 - floor) * left;
}

}  // namespace mha2mla

#include "latent_norm.hpp"

#include <algorithm>

namespace mha2mla {

bool has_tiny_latent(const NormView& norm) {
    const std::vector<float> weights = to_finite_floats(*norm.weight);
    return std::all_of(weights.begin(), weights.end(), [](float weight) { return weight == kTinyLatentWeight; });
}

}  // namespace mha2mla

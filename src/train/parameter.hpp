#pragma once
#include <span>
#include <string>
#include <vector>

#include "../latent/latent_layer.hpp"

namespace mha2mla {

/// A weight that is trained: its numbers and the derivative of the loss by each of them, both owned by others.
struct Parameter {
    std::string name;
    std::span<float> value, gradient;
    bool decays = false;  // by AdamW's weight decay: matrices do, norms and biases do not
};

/// The weights of a layer and, if `gradient.biases`, its biases. Gives `gradient` its shape, so that
/// differentiate_latent() leaves it in place.
[[nodiscard]] std::vector<Parameter> parameters(LatentLayer& layer, LatentGradient& gradient);

}  // namespace mha2mla

#pragma once
#include <vector>

#include "../latent/latent_layer.hpp"

namespace mha2mla {

/// Adam (Kingma and Ba, 2015, algorithm 1) on all weights of a layer. A step is measured in the root mean square that
/// each matrix has at the start, so that one rate serves all models.
class Adam {
public:
    explicit Adam(LatentWeights& weights);
    /// @param rate of this step.
    void step(LatentWeights& gradient, double rate);

private:
    struct Moments {
        Matrix* weight;
        float scale;
        Matrix first, second;
    };
    std::vector<Moments> moments_;
    std::int64_t steps_ = 0;
};

}  // namespace mha2mla

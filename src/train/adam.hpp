#pragma once
#include <vector>

#include "../latent/latent_layer.hpp"

namespace mha2mla {

/// Adam (Kingma and Ba, 2015, algorithm 1) on all weights of a layer. The step of a matrix is relative to its
/// initial root mean square, so that one rate is suitable for all models.
class Adam {
public:
    explicit Adam(LatentWeights& weights);
    /// @param rate the learning rate of this step.
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

#pragma once
#include "parameter.hpp"

namespace mha2mla {

/// Adam (Kingma and Ba, 2015, algorithm 1). The step of a parameter is relative to its initial
/// root mean square, so that one rate is suitable for all models.
class Adam {
public:
    /// @param parameters whose numbers must stay where they are.
    explicit Adam(std::vector<Parameter> parameters);
    /// Moves every parameter along its gradient. @param rate the learning rate of this step.
    void step(double rate);

private:
    struct Moments {
        Parameter of;
        float scale;
        Vector first, second;
    };
    std::vector<Moments> moments_;
    std::int64_t steps_ = 0;
};

}  // namespace mha2mla

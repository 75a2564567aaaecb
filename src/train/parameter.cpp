#include "parameter.hpp"

namespace mha2mla {
namespace {

template <typename Values>
Parameter parameter(const char* name, Values& value, Values& gradient) {
    gradient.setZero(value.rows(), value.cols());
    const auto size = static_cast<std::size_t>(value.size());
    return {name, {value.data(), size}, {gradient.data(), size}};
}

}  // namespace

std::vector<Parameter> parameters(LatentLayer& layer, LatentGradient& gradient) {
    LatentWeights& w = layer.weights;
    LatentWeights& d = gradient.weights;
    std::vector<Parameter> all = {parameter("q", w.q, d.q),          parameter("k_rope", w.k_rope, d.k_rope),
                                  parameter("down", w.down, d.down), parameter("up_k", w.up_k, d.up_k),
                                  parameter("up_v", w.up_v, d.up_v), parameter("o", w.o, d.o)};
    if (!gradient.biases) return all;
    all.push_back(parameter("q_bias", layer.q_bias, gradient.q_bias));
    all.push_back(parameter("k_rope_bias", layer.k_rope_bias, gradient.k_rope_bias));
    all.push_back(parameter("up_k_bias", layer.up_k_bias, gradient.up_k_bias));
    all.push_back(parameter("up_v_bias", layer.up_v_bias, gradient.up_v_bias));
    return all;
}

}  // namespace mha2mla

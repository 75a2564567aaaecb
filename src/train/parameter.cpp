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
    all.push_back(parameter("q_bias", w.q_bias, d.q_bias));
    all.push_back(parameter("k_rope_bias", w.k_rope_bias, d.k_rope_bias));
    all.push_back(parameter("up_k_bias", w.up_k_bias, d.up_k_bias));
    all.push_back(parameter("up_v_bias", w.up_v_bias, d.up_v_bias));
    return all;
}

}  // namespace mha2mla

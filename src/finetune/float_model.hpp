#pragma once
#include <map>
#include <string>
#include <vector>

#include "../train/parameter.hpp"
#include "mha2mla/model.hpp"

namespace mha2mla {

/// A model whose weights lie in memory as float32 and can be changed, with gradients of those that are trained.
class FloatModel {
public:
    explicit FloatModel(const Model& source);

    [[nodiscard]] const Model& model() const { return model_; }
    /// The numbers that a tensor of model(), or a part of one, lies in.
    [[nodiscard]] std::span<float> values(const TensorView& tensor);
    /// From now on a tensor has a gradient.
    void train(const TensorView& tensor, bool decays);
    /// Where the derivatives by a tensor, or a part of one, are added; null if it is null or not trained.
    [[nodiscard]] float* gradient(const TensorView* tensor);
    /// Those that are trained, by the names of their tensors.
    [[nodiscard]] std::vector<Parameter> parameters();

private:
    struct Tensor {
        std::vector<float> values, gradient;
        bool decays = false;
    };
    std::map<std::string, Tensor, std::less<>> tensors_;
    Model model_;
};

}  // namespace mha2mla

#include "float_model.hpp"

#include "../model/find_tensors.hpp"

namespace mha2mla {
namespace {

/// The names of all tensors that a model reads; parts of a tensor have its name.
std::vector<const TensorView*> read_tensors(const Model& model) {
    std::vector<const TensorView*> tensors = {model.embed_tokens, model.lm_head, model.norm.weight, model.norm.bias};
    for (const LayerView& layer : model.layers) {
        for (const TensorView* tensor : tensors_of(layer)) tensors.push_back(tensor);
        for (const TensorView* tensor : expert_tensors_of(layer)) tensors.push_back(tensor);
    }
    return tensors;
}

Model with_tensors(const Model& source, std::vector<TensorView> tensors) {
    auto checkpoint = Checkpoint::open(source.checkpoint.directory());
    checkpoint.replace(std::move(tensors));
    std::vector<std::string> problems;  // there were none in `source`
    return find_tensors(source.config, std::move(checkpoint), problems);
}

}  // namespace

FloatModel::FloatModel(const Model& source)
    : model_(with_tensors(source, [&] {
          std::vector<TensorView> views;
          for (const TensorView* part : read_tensors(source)) {
              if (part == nullptr || tensors_.contains(part->name)) continue;
              const TensorView& tensor = *source.checkpoint.find(part->name);
              std::vector<float>& values = tensors_[tensor.name].values;
              values = to_finite_floats(tensor);
              TensorView view = tensor;
              view.dtype = Dtype::f32;
              view.data = std::as_bytes(std::span<const float>(values));
              views.push_back(std::move(view));
          }
          return views;
      }())) {}

std::span<float> FloatModel::values(const TensorView& tensor) {
    std::vector<float>& all = tensors_.find(tensor.name)->second.values;
    const auto first = static_cast<std::size_t>(tensor.data.data() - std::as_bytes(std::span(all)).data());
    return std::span(all).subspan(first / sizeof(float), tensor.data.size() / sizeof(float));
}

void FloatModel::train(const TensorView& tensor, bool decays) {
    Tensor& own = tensors_.find(tensor.name)->second;
    own.gradient.resize(own.values.size());
    own.decays = decays;
}

float* FloatModel::gradient(const TensorView* tensor) {
    if (tensor == nullptr) return nullptr;
    Tensor& own = tensors_.find(tensor->name)->second;
    if (own.gradient.empty()) return nullptr;
    return own.gradient.data() + (values(*tensor).data() - own.values.data());
}

std::vector<Parameter> FloatModel::parameters() {
    std::vector<Parameter> parameters;
    for (auto& [name, tensor] : tensors_) {
        if (!tensor.gradient.empty()) parameters.push_back({name, tensor.values, tensor.gradient, tensor.decays});
    }
    return parameters;
}

}  // namespace mha2mla

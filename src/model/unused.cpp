#include "unused.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string_view>

namespace mha2mla {
namespace {

namespace fs = std::filesystem;

/// What older versions of transformers stored although it follows from config.json.
constexpr std::array<std::string_view, 5> kDerived = {
    "rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached", "self_attn.bias", "self_attn.masked_bias"};
constexpr std::array<std::string_view, 2> kAdapterFiles = {"adapter_model.safetensors", "adapter_model.bin"};

/// The layer that a tensor's name says it belongs to.
std::optional<std::int64_t> layer_of(std::string_view name) {
    constexpr std::string_view kStart = "model.layers.";
    if (!name.starts_with(kStart)) return std::nullopt;
    name.remove_prefix(kStart.size());
    std::int64_t layer = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
    if (error != std::errc() || end == name.data() + name.size() || *end != '.') return std::nullopt;
    return layer;
}

bool changes_nothing(const Model& model, const std::string& name) {
    const ModelConfig& config = model.config;
    if (config.tie_word_embeddings && name == "lm_head.weight") return true;  // the embeddings again
    const auto layer = layer_of(name);
    const std::int64_t layers = config.num_hidden_layers;
    if (layer && *layer >= layers && *layer - layers < config.num_nextn_predict_layers) return true;
    return std::any_of(kDerived.begin(), kDerived.end(),
                       [&](std::string_view derived) { return name.ends_with(derived); });
}

}  // namespace

std::vector<std::string> find_unused(const Model& model, const std::set<const TensorView*>& used) {
    std::vector<std::string> names;
    for (const auto& file : model.checkpoint.files()) {
        for (const auto& tensor : file.tensors()) {
            if (!used.contains(&tensor) && !changes_nothing(model, tensor.name)) names.push_back(tensor.name);
        }
    }
    for (const std::string_view file : kAdapterFiles) {
        std::error_code ignored;
        if (fs::exists(model.checkpoint.directory() / file, ignored)) names.emplace_back(file);
    }
    std::sort(names.begin(), names.end());
    return names;
}

std::string why_unused(const Model& model, const std::string& name) {
    const TensorView* tensor = model.checkpoint.find(name);
    if (tensor == nullptr) {
        return model.checkpoint.directory().string() + ": the adapter " + name +
               " is not part of the weights; merge it into them first";
    }
    std::string text =
        tensor->file + ": tensor '" + name + "' has no place in model_type '" + model.config.model_type + "'";
    const auto layer = layer_of(name);
    if (layer && *layer >= model.config.num_hidden_layers) {
        return text + " with num_hidden_layers " + std::to_string(model.config.num_hidden_layers);
    }
    if (name.find("lora_") != std::string::npos) return text + "; merge the adapter into the weights first";
    return text + "; is config.json from another model?";
}

std::string describe_unused(const Model& model) {
    // What belongs to a layer tells more than what may belong to any.
    const auto first = std::find_if(model.unused.begin(), model.unused.end(),
                                    [](const std::string& name) { return layer_of(name).has_value(); });
    const std::size_t others = model.unused.size() - 1;
    std::string text = why_unused(model, first == model.unused.end() ? model.unused.front() : *first);
    if (others > 0)
        text += " (" + std::to_string(others) + (others == 1 ? " other has" : " others have") + " none either)";
    return text;
}

}  // namespace mha2mla

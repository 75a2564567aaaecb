#include "layouts.hpp"

#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

constexpr std::array<LatentLayout, 2> kLayouts = {{
    {"mha2mla", "a rotated key for each KV head; the output has the code with which transformers loads it", false,
     false, false, "", reference_tensors, reference_rows, read_reference_config, reference_config_text,
     reference_loader_files, reference_has_classes},
    {"deepseek", "one rotated key and one latent for all heads, a DeepseekV3ForCausalLM that engines load", true, true,
     true, "deepseek_v3", deepseek_tensors, deepseek_rows, read_deepseek_config, deepseek_config_text, nullptr,
     nullptr},
}};

}  // namespace

std::span<const LatentLayout> latent_layouts() { return kLayouts; }

const LatentLayout& reference_layout() { return kLayouts[0]; }
const LatentLayout& deepseek_layout() { return kLayouts[1]; }

const LatentLayout& find_layout(std::string_view name) {
    std::string known;
    for (const LatentLayout& layout : kLayouts) {
        if (layout.name == name) return layout;
        known += (known.empty() ? "" : ", ") + std::string(layout.name);
    }
    throw Error(ErrorCode::usage, "unknown layout '" + std::string(name) + "'; choose one of " + known);
}

std::optional<LatentConfig> read_latent_config(const nlohmann::ordered_json& config, const AttentionShape& attention,
                                               std::int64_t layers, const std::string& file) {
    for (const LatentLayout& layout : kLayouts) {
        if (auto latent = layout.read_config(config, attention, layers, file)) {
            latent->layout = &layout;
            return latent;
        }
    }
    return std::nullopt;
}

}  // namespace mha2mla

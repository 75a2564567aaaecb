#include "layouts.hpp"

namespace mha2mla {
namespace {

constexpr std::array<LatentLayout, 2> kLayouts = {{
    {"mha2mla", "as the MHA2MLA reference implementation loads it", false, "", reference_tensors, reference_rows,
     read_reference_config, reference_config_text},
    {"deepseek", "as engines load DeepSeek-V3", true, "deepseek_v3", deepseek_tensors, deepseek_rows,
     read_deepseek_config, deepseek_config_text},
}};

}  // namespace

std::span<const LatentLayout> latent_layouts() { return kLayouts; }

const LatentLayout& reference_layout() { return kLayouts[0]; }
const LatentLayout& deepseek_layout() { return kLayouts[1]; }

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

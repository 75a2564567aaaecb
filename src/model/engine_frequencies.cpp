#include "../support/json_file.hpp"
#include "families.hpp"
#include "mha2mla/model.hpp"

namespace mha2mla {

std::vector<double> engine_frequencies(const Model& model, std::int64_t dims) {
    const std::filesystem::path file = model.checkpoint.directory() / "config.json";
    auto json = read_json_file<nlohmann::ordered_json>(file);
    // All of a rotated key rotates.
    json.erase("partial_rotary_factor");
    if (const auto rope = json.find("rope_parameters"); rope != json.end() && rope->is_object()) {
        rope->erase("partial_rotary_factor");
    }
    ModelConfig config = model.config;
    config.head_dim = dims;
    apply_family(ConfigKeys(json, file.string()), config);
    return config.rules.layers.front().rotary.frequencies;
}

}  // namespace mha2mla

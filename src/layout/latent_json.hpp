#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "mha2mla/model.hpp"

namespace mha2mla {

/// The object `mha2mla` of a converted checkpoint's config.json. @throws Error{format} naming the key.
[[nodiscard]] LatentConfig latent_from_json(const nlohmann::ordered_json& object, const ModelConfig& config,
                                            const std::string& file);

/// The same, to write. `rank_file` is the name of the rank file in the output directory, or empty.
[[nodiscard]] nlohmann::ordered_json latent_to_json(const LatentConfig& latent, const std::string& rank_file,
                                                    std::int64_t uniform_start);

}  // namespace mha2mla

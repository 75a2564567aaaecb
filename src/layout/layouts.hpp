#pragma once
#include "mha2mla/layout.hpp"

namespace mha2mla {

// Each is documented where it is defined.
std::vector<LatentTensor> reference_tensors(const LatentShape& shape);
LatentRows reference_rows(const LatentShape& shape);
std::optional<LatentConfig> read_reference_config(const nlohmann::ordered_json& config, const AttentionShape& attention,
                                                  std::int64_t layers, const std::string& file);
std::string reference_config_text(const nlohmann::ordered_json& config, const LatentConfig& latent,
                                  const LayoutNotes& notes);
std::vector<LoaderFile> reference_loader_files();
bool reference_has_classes(const nlohmann::ordered_json& config);

std::vector<LatentTensor> deepseek_tensors(const LatentShape& shape);
LatentRows deepseek_rows(const LatentShape& shape);
std::optional<LatentConfig> read_deepseek_config(const nlohmann::ordered_json& config, const AttentionShape& attention,
                                                 std::int64_t layers, const std::string& file);
std::string deepseek_config_text(const nlohmann::ordered_json& original, const LatentConfig& latent,
                                 const LayoutNotes& notes);

}  // namespace mha2mla

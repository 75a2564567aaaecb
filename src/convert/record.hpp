#pragma once
/// What was done, beside the output: mha2mla.json for machines, README.md for people.

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/checkpoint_writer.hpp"
#include "mha2mla/convert.hpp"

namespace mha2mla {

inline constexpr std::string_view kRecordFile = "mha2mla.json";

/// The content of mha2mla.json, see docs/formats.md. It holds neither times nor names of machines: the same conversion
/// has the same record.
[[nodiscard]] nlohmann::ordered_json conversion_record(const Model& source, const ConvertOptions& options,
                                                       const ConvertReport& report,
                                                       const nlohmann::ordered_json& fingerprint,
                                                       const std::vector<CheckpointWriter::FileRecord>& files);

/// The record in `directory`; nothing if there is none that this version reads.
[[nodiscard]] std::optional<nlohmann::ordered_json> read_record(const std::filesystem::path& directory);

/// README.md of the output, with Hugging Face front matter: the same for people.
[[nodiscard]] std::string model_card(const nlohmann::ordered_json& record);

}  // namespace mha2mla

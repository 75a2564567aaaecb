#pragma once
/// The record of a conversion in its output: mha2mla.json for programs, and README.md for users.

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "../checkpoint/destination.hpp"
#include "mha2mla/checkpoint_writer.hpp"
#include "mha2mla/convert.hpp"

namespace mha2mla {

/// What a record says of the files of its output: name -> bytes and hash, or the hashes of a weight file's tensors.
[[nodiscard]] nlohmann::ordered_json file_entries(const std::vector<CheckpointWriter::FileRecord>& files);
/// Whether a directory holds these files with their sizes. @throws nlohmann::json::exception if edited by hand
[[nodiscard]] bool holds_files(const std::filesystem::path& directory, const nlohmann::ordered_json& entries);

/// The content of mha2mla.json, see docs/formats.md. It has neither times nor machine names, so that the same
/// conversion has the same record.
[[nodiscard]] nlohmann::ordered_json conversion_record(const Model& source, const ConversionPlan& plan,
                                                       const Provenance& provenance, const ConvertReport& report,
                                                       const nlohmann::ordered_json& fingerprint,
                                                       const std::vector<CheckpointWriter::FileRecord>& files);

/// The record in `directory`, or nothing if there is none that this version can read.
[[nodiscard]] std::optional<nlohmann::ordered_json> read_record(const std::filesystem::path& directory);

/// As finished_conversion(), also where its directory is still to be tidied by settle().
[[nodiscard]] std::optional<ConvertReport> whole_conversion(const std::filesystem::path& directory,
                                                            const nlohmann::ordered_json& fingerprint);

/// The README.md of the output: the record for users, with Hugging Face front matter.
[[nodiscard]] std::string model_card(const nlohmann::ordered_json& record);

}  // namespace mha2mla

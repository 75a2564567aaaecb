#pragma once
/// Fingerprints of conversions: two conversions with the same fingerprint have the same output. They allow resuming
/// unfinished conversions and skipping finished ones.

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "mha2mla/convert.hpp"

namespace mha2mla {

/// The hash of a file's content: XXH3 with 128 bits, as xxh128sum prints it. @throws Error{io}
[[nodiscard]] std::string file_hash(const std::filesystem::path& path);

/// The hash of a text.
[[nodiscard]] std::string text_hash(std::string_view text);

/// The name of `source`: that on the Hugging Face Hub if config.json or the path in the Hub's cache contains it,
/// otherwise that of the directory.
[[nodiscard]] std::string base_model(const Model& source);

/// Identifies `source` without reading all of it: for each weight file its size and the hash of its header and of the
/// first and last 4 KiB of every tensor; for every other file that convert() reads or copies the hash of its content.
/// It contains neither directories nor times, so a copy of a checkpoint has the same fingerprint.
[[nodiscard]] nlohmann::ordered_json source_fingerprint(const Model& source);

/// Everything that the bytes of an output depend on: version of the program, source, plan, largest
/// weight file and `Provenance::ranks_from`.
[[nodiscard]] nlohmann::ordered_json conversion_fingerprint(const Model& source, const ConversionPlan& plan,
                                                            const RunLimits& limits, const Provenance& provenance);

/// The first few differences as text, for example "kv-rank was 16 and is 8". Empty if there is none.
[[nodiscard]] std::string differences(const nlohmann::ordered_json& was, const nlohmann::ordered_json& is);

}  // namespace mha2mla

#pragma once
/// What must be the same for two conversions to give the same output: how unfinished work is trusted and finished work
/// is not done again.

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "mha2mla/convert.hpp"

namespace mha2mla {

/// Hash of a whole file's content: XXH3 with 128 bits, as xxh128sum prints it. @throws Error{io}
[[nodiscard]] std::string file_hash(const std::filesystem::path& path);

/// The same of a text.
[[nodiscard]] std::string text_hash(std::string_view text);

/// What `source` is called: the name on the Hugging Face Hub where config.json or the place in the Hub's cache tells
/// it, otherwise that of the directory.
[[nodiscard]] std::string base_model(const Model& source);

/// What `source` is, without reading all of it: for each weight file its size and the hash of its header and of the
/// first and last 4 KiB of every tensor; for every other file that convert() reads or copies the hash of the whole
/// content. Neither names of directories nor times, so that a copy of a checkpoint is the same checkpoint.
[[nodiscard]] nlohmann::ordered_json source_fingerprint(const Model& source);

/// Everything that the bytes of an output depend on: version of the program, source, settings and `options.ranks_from`.
[[nodiscard]] nlohmann::ordered_json conversion_fingerprint(const Model& source, const ConvertOptions& options);

/// The first few differences as people say them: "kv-rank was 16 and is 8". Empty if there is none.
[[nodiscard]] std::string differences(const nlohmann::ordered_json& was, const nlohmann::ordered_json& is);

}  // namespace mha2mla

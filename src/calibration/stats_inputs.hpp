#pragma once
/// The part of a statistics file that grows with the square of the hidden size.

#include <memory>
#include <string>

#include "mha2mla/calibration.hpp"
#include "mha2mla/checkpoint.hpp"

namespace mha2mla {

inline constexpr const char* kAttentionRank = "attention_rank";
inline constexpr const char* kSampleSeqLenKey = "sample_seq_len";
[[nodiscard]] std::string moment_name(std::int64_t layer);
[[nodiscard]] std::string sample_name(std::int64_t layer);

/// Layer inputs that a statistics file holds, read from it when they are asked for; null if it has none.
/// @throws Error{format} if those of some layer are missing or of another shape.
[[nodiscard]] std::shared_ptr<const LayerInputs> inputs_of_file(std::shared_ptr<const SafetensorsFile> file,
                                                                std::int64_t layers);

/// @throws Error{format} unless metadata `key` is a whole number that is not negative.
[[nodiscard]] std::int64_t metadata_number(const SafetensorsFile& file, const char* key);

}  // namespace mha2mla

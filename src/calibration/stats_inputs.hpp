#pragma once
/// The part of a statistics file that grows with the square of the hidden size.

#include <memory>
#include <string>

#include "mha2mla/calibration.hpp"
#include "mha2mla/checkpoint.hpp"

namespace mha2mla {

inline constexpr const char* kOrderSuffix = "_rank";  // behind the name of an order, in the name of its tensor
inline constexpr const char* kSampleSeqLenKey = "sample_seq_len";
[[nodiscard]] std::string moment_name(std::int64_t layer);
[[nodiscard]] std::string sample_name(std::int64_t layer);

/// The layer inputs of a statistics file, which are read on request; null if the file has none.
/// @throws Error{format} if those of a layer are missing or have another shape.
[[nodiscard]] std::shared_ptr<const LayerInputs> inputs_of_file(std::shared_ptr<const SafetensorsFile> file,
                                                                std::int64_t layers);

/// @throws Error{format} unless metadata `key` is a non-negative whole number.
[[nodiscard]] std::int64_t metadata_number(const SafetensorsFile& file, const char* key);

}  // namespace mha2mla

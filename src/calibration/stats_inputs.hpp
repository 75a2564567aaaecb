#pragma once
/// The part of a statistics file that grows with the square of the hidden size.

#include <memory>
#include <string>

#include "mha2mla/calibration.hpp"
#include "mha2mla/checkpoint.hpp"

namespace mha2mla {

inline constexpr const char* kOrderSuffix = "_rank";  // behind the name of an order, in the name of its tensor
inline constexpr const char* kSampleSeqLenKey = "sample_seq_len";
/// Sequences of a run, and tokens of a sequence; their product does not overflow.
inline constexpr std::int64_t kMostCounted = std::int64_t{1} << 31U;
[[nodiscard]] std::string moment_name(std::int64_t layer);
[[nodiscard]] std::string sample_name(std::int64_t layer);

/// The layer inputs of a statistics file, which are read on request; null if the file has none.
/// @throws Error{format} if those of a layer are missing or have another shape.
[[nodiscard]] std::shared_ptr<const LayerInputs> inputs_of_file(std::shared_ptr<const SafetensorsFile> file,
                                                                std::int64_t layers);

/// @throws Error{format} unless metadata `key` is a whole number from 0 to kMostCounted.
[[nodiscard]] std::int64_t metadata_number(const SafetensorsFile& file, const char* key);

}  // namespace mha2mla

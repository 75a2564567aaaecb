#pragma once
#include "mha2mla/calibration.hpp"
#include "options.hpp"

namespace mha2mla::tool {

/// Loads text or tokens and gathers the statistics, as `calibrate` and `convert --calibration-text` both do.
/// @param rope_dim whose selection `--samples auto` watches.
[[nodiscard]] CalibrationStats run_calibration(const Model& model, const TokenOptions& tokens,
                                               const SampleFlags& samples, std::int64_t rope_dim, Context& context);

}  // namespace mha2mla::tool

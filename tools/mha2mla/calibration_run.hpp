#pragma once
#include "mha2mla/calibration.hpp"
#include "options.hpp"

namespace mha2mla::tool {

/// Loads text or tokens and gathers the statistics, as `calibrate` and `convert --calibration-text` both do.
[[nodiscard]] CalibrationStats run_calibration(const Model& model, const TokenOptions& tokens,
                                               const SampleFlags& samples, Context& context);

}  // namespace mha2mla::tool

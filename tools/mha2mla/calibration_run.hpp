#pragma once
#include "mha2mla/calibration.hpp"
#include "options.hpp"

namespace mha2mla::tool {

/// The statistics that a calibration computes besides the norms.
struct Gathered {
    bool attention_order = false, moments = false;
    [[nodiscard]] CalibrationOptions::Inputs inputs() const {
        using Inputs = CalibrationOptions::Inputs;
        return moments ? Inputs::moments : attention_order ? Inputs::samples : Inputs::none;
    }
    [[nodiscard]] bool has(const Gathered& needed) const {
        return (attention_order || !needed.attention_order) && (moments || !needed.moments);
    }
    Gathered& operator|=(const Gathered& other) {
        attention_order |= other.attention_order;
        moments |= other.moments;
        return *this;
    }
};
/// The statistics that are present.
[[nodiscard]] inline Gathered gathered_in(const CalibrationStats& stats) {
    return {!stats.attention_ranks.empty(), stats.inputs != nullptr && stats.inputs->extent().moments};
}

/// Loads text or tokens and computes the statistics, for `calibrate` and `convert --calibration-text`.
/// @param rope_dim the size of the selection that `--samples auto` observes.
[[nodiscard]] CalibrationStats run_calibration(const Model& model, const TokenOptions& tokens,
                                               const SampleFlags& samples, std::int64_t rope_dim,
                                               const Gathered& gather, Context& context);

}  // namespace mha2mla::tool

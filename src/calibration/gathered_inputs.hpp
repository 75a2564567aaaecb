#pragma once
#include <memory>

#include "../support/spill_file.hpp"
#include "mha2mla/calibration.hpp"

namespace mha2mla {

/// Collects layer inputs in a temporary file. The sums of one layer are in memory at a time.
class GatheredInputs final : public LayerInputs {
public:
    /// @throws Error{io} if the temporary file does not fit its disk.
    GatheredInputs(const ModelConfig& config, std::int64_t seq_len, const CalibrationOptions& options);

    /// Adds normed hidden states of whole sequences. Calls must be in order of layers and, within a layer, of tokens.
    void add(std::int64_t layer, const Matrix& input);
    /// Ends a round, in which `tokens` tokens passed through all layers.
    void end_round(std::int64_t tokens);

    void read_moment(std::int64_t layer, std::span<double> upper) const override;
    void read_sample(std::int64_t layer, std::span<float> rows) const override;

private:
    void begin_layer(std::int64_t layer);
    void end_layer();
    void add_to_moment(const Matrix& input);
    void add_to_sample(const Matrix& input);
    [[nodiscard]] std::uint64_t moment_offset(std::int64_t layer) const;
    [[nodiscard]] std::uint64_t sample_offset(std::int64_t layer) const;

    std::int64_t seq_len_;
    SpillFile disk_;
    std::int64_t layer_ = -1;          // layer of the sums
    std::int64_t tokens_ = 0;          // tokens of the previous rounds
    std::int64_t sampled_ = 0;         // tokens in the sample of this layer
    std::int64_t sampled_before_ = 0;  // tokens in the sample of each layer after the previous rounds
    MatrixD sum_;                      // Σ xᵀx in the upper triangle, [hidden, hidden]
    MatrixD block_;                    // a block of x in double
};

/// The bytes that GatheredInputs allocates.
[[nodiscard]] std::uint64_t gathering_bytes(const ModelConfig& config, CalibrationOptions::Inputs inputs);

}  // namespace mha2mla

#pragma once
/// Loops over elements that the baseline instruction set would make slow beside the products around them. Each is
/// compiled for more than one instruction set, and the best that the processor has is used.

#include <cstdint>

namespace mha2mla {

/// x[i] = exp(x[i]), relatively within 2e-7. Below -87.3 the result is 0, above 88.3 it stays exp(88.3); NaN stays NaN.
void exp_in_place(float* x, std::int64_t count);

/// A piece of a softmax whose logits come piece by piece (Milakov and Gimelshein, 2018). `maximum` takes in the row's
/// own, row[i] = exp(row[i] - maximum), and `sum` is brought to the new maximum and takes in the results.
/// @param maximum, sum -infinity and 0 before the first piece.
/// @return exp(maximum before - maximum now): what results of earlier pieces are to be multiplied by.
float softmax_piece(float* row, std::int64_t count, float& maximum, float& sum);

/// log Σ exp(x[i]): exponentials as exp_in_place(), their sum in double.
[[nodiscard]] double log_sum_exp(const float* x, std::int64_t count);

/// gate[i] = silu(gate[i]) * up[i], where silu(x) = x / (1 + exp(-x)).
void silu_multiply(float* gate, const float* up, std::int64_t count);

/// out[i] = x[i] / sqrt(mean(x²) + eps) * weight[i], the mean in double.
void rms_norm_row(const float* x, const float* weight, double eps, std::int64_t count, float* out);

}  // namespace mha2mla

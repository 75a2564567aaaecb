#pragma once
/// Random layers for the tests of the shared rope key, and the definitions that they are held against, in double.

#include <complex>
#include <cstdint>
#include <vector>

#include "latent/shared_key_layer.hpp"
#include "rope/shared_key_slots.hpp"

namespace mha2mla::test {

using Complex = std::complex<double>;

struct SharedKeyShape {
    const char* name;
    std::int64_t heads = 4, kv_heads = 2, head_dim = 8, hidden = 48;
    bool biases = false;
    bool interleaved = false;
    std::int64_t rotated = 8;  // dims of a head
    float gain = 1;
};
/// GQA, MHA, MQA; with biases; interleaved, partly rotated and with a gain.
[[nodiscard]] const std::vector<SharedKeyShape>& shared_key_shapes();

/// A layer, inputs of one sequence, and what is known of them.
struct SharedKeyCase {
    RotaryRule rule;
    OriginalAttention plain;     // as the checkpoint has it
    OriginalAttention original;  // the gain in its queries
    MatrixD inputs;              // [tokens, hidden]
    AttentionInputStats stats;
    QueryKeyMoments moments;
};
[[nodiscard]] SharedKeyCase random_case(const SharedKeyShape& shape);
/// Of its inputs, attention by the original's own softmax.
[[nodiscard]] AttentionInputStats stats_of(const SharedKeyCase& c);

/// rows · weightᵀ + bias
[[nodiscard]] MatrixD projected(const MatrixD& rows, const Matrix& weight, const Vector& bias);
/// Original logits of a head, by the rule itself. [queries, keys]
[[nodiscard]] MatrixD original_logits(const SharedKeyCase& c, std::int64_t head);
/// The layer's output for these logits of each head, values and W_o the original's.
[[nodiscard]] MatrixD original_output(const SharedKeyCase& c, const std::vector<MatrixD>& logits);
/// Logits of a head, and the output, in DeepSeek's form.
[[nodiscard]] MatrixD shared_logits(const SharedKeyLayer& layer, const MatrixD& inputs, std::int64_t head);
[[nodiscard]] MatrixD shared_output(const SharedKeyLayer& layer, const MatrixD& inputs);

struct SharedKeyChoice {
    std::int64_t fold = 1, rope_dim = 4;
    QueryTurn turn = QueryTurn::mean;
    bool engine = false;
};
struct ChosenSharedKey {
    std::vector<SharedKeyBlock> blocks;
    std::vector<SharedKeySlot> slots;
    SharedKeyMap map;
};
[[nodiscard]] ChosenSharedKey choose(const SharedKeyCase& c, const SharedKeyChoice& choice);

[[nodiscard]] SharedKeyFactorizer::Result factorized(const SharedKeyCase& c, const SharedKeyMap& map,
                                                     const SharedKeyFactorizer::Options& options,
                                                     KeyWeighting weighting = KeyWeighting::moment);
[[nodiscard]] std::int64_t full_rank(const SharedKeyCase& c, const SharedKeyMap& map);

}  // namespace mha2mla::test

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

/// What a factorisation gives, and the rotation of its slots: the score of head h is (rotated q_rope_h · rotated k_rope
/// + q_hᵀ · up_k_h · latent) / √head_dim, and the output Σ_h o_h · up_v_h · Σ softmax · latent + o_bias.
struct SharedKeyLayer {
    std::int64_t heads = 0, head_dim = 0;
    std::vector<double> frequencies;                // of each slot, radians per token
    Matrix q, q_rope, k_rope, down, up_k, up_v, o;  // slot j of a head is rows (j, j + slots) of its rope rows
    Vector q_bias, q_rope_bias, k_rope_bias, o_bias;
    [[nodiscard]] std::int64_t rope_dim() const { return k_rope.rows(); }
};

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

struct FactorizedSharedKey {
    SharedKeyLayer layer;
    double total_energy = 0, retained_energy = 0;
};
[[nodiscard]] FactorizedSharedKey factorized(const SharedKeyCase& c, const SharedKeyMap& map, std::int64_t kv_rank,
                                             double balance = 1, KeyWeighting weighting = KeyWeighting::moment);
[[nodiscard]] std::int64_t full_rank(const SharedKeyCase& c, const SharedKeyMap& map);

}  // namespace mha2mla::test

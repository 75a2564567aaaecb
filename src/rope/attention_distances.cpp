#include "attention_distances.hpp"

#include "../forward/layer.hpp"
#include "../forward/softmax.hpp"
#include "../linalg/gemm.hpp"
#include "../support/parallel.hpp"

namespace mha2mla {

MatrixD attention_distances(const Model& model, std::int64_t layer, const RotaryTable& rotary, std::int64_t seq_len,
                            const Matrix& input) {
    const AttentionShape shape = model.config.attention_shape();
    const std::int64_t dim = shape.head_dim;
    const AttentionRule& rule = model.rules(layer).attention;
    Matrix q, k;
    project_queries_and_keys(model.layer(layer).original_attention(), input, q, k);
    rotate_heads(rotary, Turn::forward, seq_len, q.rows(), {q.data(), q.cols(), shape.num_heads, dim});
    rotate_heads(rotary, Turn::forward, seq_len, k.rows(), {k.data(), k.cols(), shape.num_kv_heads, dim});
    MatrixD mass = MatrixD::Zero(shape.num_heads, seq_len);
    parallel_for(shape.num_heads, [&](std::int64_t head, std::vector<float>& scratch) {
        scratch.resize(static_cast<std::size_t>(seq_len * seq_len));
        const Eigen::Map<Matrix> attention(scratch.data(), seq_len, seq_len);
        for (std::int64_t first = 0; first < input.rows(); first += seq_len) {
            multiply_abt(seq_len, seq_len, dim, rule.scale, {q.data() + first * q.cols() + head * dim, q.cols()},
                         {k.data() + first * k.cols() + head / shape.group_size() * dim, k.cols()}, 0.0F,
                         {scratch.data(), seq_len});
            causal_softmax(rule, seq_len, scratch.data());
            for (std::int64_t query = 1; query < seq_len; ++query) {
                for (std::int64_t key = 1; key <= query; ++key) {
                    mass(head, query - key) += static_cast<double>(attention(query, key));
                }
            }
        }
    });
    return mass;
}

}  // namespace mha2mla

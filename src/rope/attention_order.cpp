#include "attention_order.hpp"

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "../linalg/elementwise.hpp"
#include "../linalg/gemm.hpp"
#include "../linalg/parallel.hpp"
#include "../runtime/linear.hpp"

namespace mha2mla {
namespace {

/// q, k or v of a layer. [tokens, out_features]
Matrix projected(const LinearView& view, const Matrix& input) {
    Matrix y(input.rows(), view.out_features());
    linear(view, input.rows(), input.data(), y.data());
    return y;
}

/// L with L·Lᵀ = W_o,headᵀ · W_o,head: then ‖x·L‖ = ‖W_o,head·x‖, in head_dim columns instead of hidden.
Matrix output_metric(const Matrix& o, std::int64_t head, std::int64_t dim) {
    const MatrixD block = o.middleCols(head * dim, dim).cast<double>();
    MatrixD gram = block.transpose() * block;
    gram.diagonal().array() += 1e-9 * gram.diagonal().mean() + std::numeric_limits<double>::min();
    return Eigen::LLT<MatrixD>(gram).matrixL().toDenseMatrix().cast<float>();
}

/// Logits of sampled queries of one head in one sequence, and what each pair's rotation contributes to them.
struct Sample {
    std::vector<std::int64_t> visible;  // keys, by query
    Matrix logits;                      // [queries, seq_len]
    std::vector<Matrix> unrotated;      // by pair: what losing its rotation adds to the logits
    Matrix values;                      // v · L, [seq_len, head_dim]
    Matrix wanted;                      // softmax(original logits) · values

    [[nodiscard]] Matrix attend(const Matrix& of, Matrix& room) const {
        room = of;
        for (std::int64_t row = 0; row < room.rows(); ++row) {
            const std::int64_t keys = visible[static_cast<std::size_t>(row)];
            float maximum = -std::numeric_limits<float>::infinity();
            float sum = 0;
            softmax_piece(room.row(row).data(), keys, maximum, sum);
            room.row(row).head(keys) /= sum;
            room.row(row).tail(room.cols() - keys).setZero();
        }
        Matrix result(room.rows(), values.cols());
        multiply_ab(room.rows(), values.cols(), room.cols(), 1.0F, {room.data(), room.cols()},
                    {values.data(), values.cols()}, 0.0F, {result.data(), result.cols()});
        return result;
    }
};

/// The two components of a pair of one head. [rows, 2]
Matrix pair_columns(const Matrix& head, std::int64_t pair) {
    Matrix columns(head.rows(), 2);
    columns << head.col(pair), head.col(pair + head.cols() / 2);
    return columns;
}

Sample take_sample(const Matrix& q, const Matrix& k, const Matrix& values, const RotaryTable& rotary,
                   std::int64_t queries) {
    const std::int64_t seq_len = k.rows();
    const std::int64_t dim = k.cols();
    const float scale = 1.0F / std::sqrt(static_cast<float>(dim));
    Sample sample;
    Matrix chosen(queries, dim), rotated(queries, dim), rotated_k = k;
    for (std::int64_t i = 0; i < queries; ++i) {
        const std::int64_t position = (i + 1) * seq_len / queries - 1;
        sample.visible.push_back(position + 1);
        chosen.row(i) = q.row(position) * scale;
        rotated.row(i) = chosen.row(i);
        rotary.rotate(rotated.row(i).data(), position, {});
    }
    for (std::int64_t t = 0; t < seq_len; ++t) rotary.rotate(rotated_k.row(t).data(), t, {});
    sample.logits = rotated * rotated_k.transpose();
    for (std::int64_t pair = 0; pair < dim / 2; ++pair) {
        sample.unrotated.emplace_back(pair_columns(chosen, pair) * pair_columns(k, pair).transpose() -
                                      pair_columns(rotated, pair) * pair_columns(rotated_k, pair).transpose());
    }
    sample.values = values;
    Matrix room;
    sample.wanted = sample.attend(sample.logits, room);
    return sample;
}

/// Pairs in the order in which they can best be spared, the most needed first.
std::vector<std::int64_t> eliminate(std::vector<Sample>& samples, std::int64_t pairs) {
    std::vector<std::int64_t> left(static_cast<std::size_t>(pairs)), order;
    std::iota(left.begin(), left.end(), 0);
    Matrix room;
    while (!left.empty()) {
        auto best = left.begin();
        double least = std::numeric_limits<double>::infinity();
        for (auto candidate = left.begin(); candidate != left.end() && left.size() > 1; ++candidate) {
            double effect = 0;
            for (const Sample& sample : samples) {
                const Matrix logits = sample.logits + sample.unrotated[static_cast<std::size_t>(*candidate)];
                effect += (sample.attend(logits, room) - sample.wanted).cast<double>().squaredNorm();
            }
            if (effect < least) {
                least = effect;
                best = candidate;
            }
        }
        for (Sample& sample : samples) sample.logits += sample.unrotated[static_cast<std::size_t>(*best)];
        order.push_back(*best);
        left.erase(best);
    }
    std::reverse(order.begin(), order.end());
    return order;
}

}  // namespace

std::vector<std::vector<std::int64_t>> attention_order(const Model& model, std::int64_t layer,
                                                       const RotaryTable& rotary, std::int64_t seq_len,
                                                       const Matrix& input) {
    const ModelConfig& config = model.config;
    const AttentionView& view = *model.layers[static_cast<std::size_t>(layer)].attention;
    const std::int64_t dim = config.head_dim;
    const std::int64_t group = config.group_size();
    const std::int64_t sequences = input.rows() / seq_len;
    const std::int64_t queries = std::clamp<std::int64_t>(kOrderRows / (sequences * group), 1, seq_len);
    const Matrix q = projected(view.q, input), k = projected(view.k, input), v = projected(view.v, input);
    Matrix o(view.o.out_features(), view.o.in_features());
    to_float(*view.o.weight, 0, {o.data(), static_cast<std::size_t>(o.size())});
    std::vector<std::vector<std::int64_t>> orders(static_cast<std::size_t>(config.num_key_value_heads));
    parallel_for(config.num_key_value_heads, [&](std::int64_t kv_head, std::vector<float>&) {
        std::vector<Sample> samples;
        for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
            const Matrix metric = output_metric(o, head, dim);
            for (std::int64_t sequence = 0; sequence < sequences; ++sequence) {
                const auto rows = [&](const Matrix& x, std::int64_t at) {
                    return x.block(sequence * seq_len, at * dim, seq_len, dim);
                };
                const Matrix values = rows(v, kv_head) * metric;
                samples.push_back(take_sample(rows(q, head), rows(k, kv_head), values, rotary, queries));
            }
        }
        orders[static_cast<std::size_t>(kv_head)] = eliminate(samples, config.num_pairs());
    });
    return orders;
}

}  // namespace mha2mla

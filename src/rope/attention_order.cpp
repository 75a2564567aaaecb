#include "attention_order.hpp"

#include <Eigen/Cholesky>
#include <algorithm>
#include <array>
#include <limits>
#include <optional>

#include "../forward/layer.hpp"
#include "../forward/project.hpp"
#include "../forward/softmax.hpp"
#include "../linalg/gemm.hpp"
#include "../model/head_order.hpp"
#include "../support/parallel.hpp"

namespace mha2mla {
namespace {

/// L with L·Lᵀ = W_o,headᵀ · W_o,head: then ‖x·L‖ = ‖W_o,head·x‖, in head_dim columns instead of hidden.
Matrix output_metric(const Matrix& o, std::int64_t head, std::int64_t dim) {
    const MatrixD block = o.middleCols(head * dim, dim).cast<double>();
    MatrixD gram = block.transpose() * block;
    gram.diagonal().array() += 1e-9 * gram.diagonal().mean() + std::numeric_limits<double>::min();
    return Eigen::LLT<MatrixD>(gram).matrixL().toDenseMatrix().cast<float>();
}

constexpr std::int64_t kBlockRows = 16;  // queries that are attended to at once: their logits stay in the cache

/// Sampled queries of one head in one sequence. Rows are queries, or components of keys.
struct Sample {
    AttentionRule rule;
    std::vector<std::int64_t> visible;  // keys, by query
    Matrix logits;                      // with the rotations that are left, [queries, seq_len]
    Matrix plain_q, rotated_q;          // scaled, [queries, head_dim]
    Matrix plain_k, rotated_k;          // [head_dim, seq_len]
    Matrix values;                      // v · L, [seq_len, head_dim]
    Matrix wanted;                      // softmax(original logits) · values, [queries, head_dim]

    /// Adds to some of a query's logits what losing the rotation of a pair does to them.
    void lose_rotation(std::int64_t query, std::int64_t pair, std::int64_t keys, float* logits_of_query) const {
        const std::int64_t other = pair + plain_q.cols() / 2;
        const auto first = [&](const Matrix& k) { return k.row(pair).head(keys).array(); };
        const auto second = [&](const Matrix& k) { return k.row(other).head(keys).array(); };
        Eigen::Map<Eigen::Array<float, 1, Eigen::Dynamic>>(logits_of_query, keys) +=
            plain_q(query, pair) * first(plain_k) + plain_q(query, other) * second(plain_k) -
            rotated_q(query, pair) * first(rotated_k) - rotated_q(query, other) * second(rotated_k);
    }

    [[nodiscard]] std::int64_t blocks() const { return (logits.rows() + kBlockRows - 1) / kBlockRows; }

    /// softmax(logits without the rotation of `pair`, or as they are) · values of a block of queries.
    /// @return its rows, in `room`.
    Eigen::Map<Matrix> attend(std::int64_t block, std::optional<std::int64_t> pair, std::vector<float>& room) const {
        const std::int64_t first = block * kBlockRows;
        const std::int64_t rows = std::min(kBlockRows, logits.rows() - first);
        const std::int64_t most = visible[static_cast<std::size_t>(first + rows - 1)];  // the last sees most
        room.resize(static_cast<std::size_t>(kBlockRows * (logits.cols() + values.cols())));
        Eigen::Map<Matrix> result(room.data() + kBlockRows * logits.cols(), rows, values.cols());
        std::array<float, kBlockRows> sums = {};
        for (std::int64_t row = 0; row < rows; ++row) {
            const std::int64_t keys = visible[static_cast<std::size_t>(first + row)];
            float* attention = room.data() + row * most;
            std::copy_n(logits.row(first + row).data(), keys, attention);
            if (pair) lose_rotation(first + row, *pair, keys, attention);
            sums[static_cast<std::size_t>(row)] = attention_weights(rule, keys - 1, attention);
            std::fill(attention + keys, attention + most, 0.0F);
        }
        multiply_ab(rows, values.cols(), most, 1.0F, {room.data(), most}, {values.data(), values.cols()}, 0.0F,
                    {result.data(), values.cols()});
        for (std::int64_t row = 0; row < rows; ++row) result.row(row) /= sums[static_cast<std::size_t>(row)];
        return result;
    }
};

Sample take_sample(const AttentionRule& rule, const Matrix& q, const Matrix& k, const Matrix& values,
                   const RotaryTable& rotary, std::int64_t queries) {
    const std::int64_t seq_len = k.rows();
    const std::int64_t dim = k.cols();
    Sample sample;
    sample.rule = rule;
    sample.plain_q.resize(queries, dim);
    sample.rotated_q.resize(queries, dim);
    Matrix rotated_k = k;
    for (std::int64_t i = 0; i < queries; ++i) {
        const std::int64_t position = (i + 1) * seq_len / queries - 1;
        sample.visible.push_back(position + 1);
        sample.plain_q.row(i) = q.row(position) * rule.scale;
        sample.rotated_q.row(i) = sample.plain_q.row(i);
        rotary.rotate(sample.rotated_q.row(i).data(), position, {});
    }
    for (std::int64_t t = 0; t < seq_len; ++t) rotary.rotate(rotated_k.row(t).data(), t, {});
    sample.plain_k = k.transpose();
    sample.rotated_k = rotated_k.transpose();
    sample.logits.resize(queries, seq_len);
    multiply_abt(queries, seq_len, dim, 1.0F, {sample.rotated_q.data(), dim}, {rotated_k.data(), dim}, 0.0F,
                 {sample.logits.data(), seq_len});
    sample.values = values;
    sample.wanted.resize(queries, dim);
    std::vector<float> room;
    for (std::int64_t block = 0; block < sample.blocks(); ++block) {
        const auto rows = sample.attend(block, std::nullopt, room);
        sample.wanted.middleRows(block * kBlockRows, rows.rows()) = rows;
    }
    return sample;
}

/// A pair that may lose its rotation next. `effect` is what that does to the output, or a lower bound of it.
struct Candidate {
    std::int64_t pair;
    double effect;
    bool operator<(const Candidate& other) const {
        return effect < other.effect || (effect == other.effect && pair < other.pair);
    }
};

/// @return the effect, or what has been summed up of it when that is more than `least`.
double effect_of(const std::vector<Sample>& samples, std::int64_t pair, double least, std::vector<float>& room) {
    double effect = 0;
    for (const Sample& sample : samples) {
        for (std::int64_t block = 0; block < sample.blocks(); ++block) {
            const auto rows = sample.attend(block, pair, room);
            effect += (rows - sample.wanted.middleRows(block * kBlockRows, rows.rows())).cast<double>().squaredNorm();
            if (effect > least) return effect;
        }
    }
    return effect;
}

/// Pairs in the order in which they can best be spared, the most needed first.
std::vector<std::int64_t> eliminate(std::vector<Sample>& samples, std::int64_t pairs, std::vector<float>& room) {
    std::vector<Candidate> left;
    for (std::int64_t pair = 0; pair < pairs; ++pair) left.push_back({pair, 0});
    std::vector<std::int64_t> order;
    while (left.size() > 1) {
        // Those that did least in the last round come first, so that most others need not be summed up to the end.
        Candidate best{-1, std::numeric_limits<double>::infinity()};
        for (Candidate& candidate : left) {
            candidate.effect = effect_of(samples, candidate.pair, best.effect, room);
            if (best.pair < 0 || candidate < best) best = candidate;
        }
        std::erase_if(left, [&](const Candidate& candidate) { return candidate.pair == best.pair; });
        std::sort(left.begin(), left.end());
        order.push_back(best.pair);
        for (Sample& sample : samples) {
            for (Eigen::Index query = 0; query < sample.logits.rows(); ++query) {
                const std::int64_t keys = sample.visible[static_cast<std::size_t>(query)];
                sample.lose_rotation(query, best.pair, keys, sample.logits.row(query).data());
            }
        }
    }
    order.push_back(left.front().pair);
    std::reverse(order.begin(), order.end());
    return order;
}

}  // namespace

LayerPairs attention_order(const Model& model, std::int64_t layer, std::int64_t seq_len, const Matrix& input) {
    const ModelConfig& config = model.config;
    const AttentionView& view = model.layer(layer).original_attention();
    const std::int64_t dim = config.head_dim;
    const std::int64_t group = config.group_size();
    const std::int64_t sequences = input.rows() / seq_len;
    const std::int64_t queries = std::clamp<std::int64_t>(kOrderRows / (sequences * group), 1, seq_len);
    const AttentionRule& rule = model.rules(layer).attention;
    const HeadOrder order = head_order(model, layer);
    const RotaryTable rotary(ordered_rule(model.rules(layer).rotary, dim), seq_len);
    Matrix q, k, v;
    project_original(view, input, q, k, v);
    q = order.query_columns(q), k = order.columns(k);
    Matrix o(view.o.out_features(), view.o.in_features());
    to_float(*view.o.weight, 0, {o.data(), static_cast<std::size_t>(o.size())});
    LayerPairs orders(static_cast<std::size_t>(config.num_key_value_heads));
    parallel_for(config.num_key_value_heads, [&](std::int64_t kv_head, std::vector<float>& room) {
        std::vector<Sample> samples;
        for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
            const Matrix metric = output_metric(o, head, dim);
            for (std::int64_t sequence = 0; sequence < sequences; ++sequence) {
                const auto rows = [&](const Matrix& x, std::int64_t at) {
                    return x.block(sequence * seq_len, at * dim, seq_len, dim);
                };
                const Matrix values = rows(v, kv_head) * metric;
                samples.push_back(take_sample(rule, rows(q, head), rows(k, kv_head), values, rotary, queries));
            }
        }
        orders[static_cast<std::size_t>(kv_head)] = eliminate(samples, config.num_pairs(), room);
    });
    return orders;
}

}  // namespace mha2mla

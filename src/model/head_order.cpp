#include "head_order.hpp"

#include <algorithm>
#include <string>

#include "mha2mla/error.hpp"

namespace mha2mla {

Matrix HeadOrder::columns(const Matrix& x) const {
    if (std::is_sorted(dims.begin(), dims.end())) return x;  // the family's order
    const auto dim = std::ssize(dims);
    Matrix result(x.rows(), x.cols());
    for (std::int64_t head = 0; head < x.cols(); head += dim) {
        for (std::int64_t i = 0; i < dim; ++i) {
            result.col(head + i) = x.col(head + dims[static_cast<std::size_t>(i)]);
        }
    }
    return result;
}

Matrix HeadOrder::query_columns(const Matrix& x) const {
    const auto dim = std::ssize(dims);
    Matrix result = columns(x);
    if (gain == 1) return result;
    for (std::int64_t head = 0; head < x.cols(); head += dim) {
        result.middleCols(head, rotated_dims / 2) *= gain;
        result.middleCols(head + dim / 2, rotated_dims / 2) *= gain;
    }
    return result;
}

void HeadOrder::take_gain(Eigen::Ref<Matrix> queries) const {
    if (row_gain == 1) return;
    for (std::int64_t head = 0; head < queries.rows(); head += std::ssize(dims)) {
        queries.middleRows(head, rotated_dims) *= row_gain;
    }
}

HeadOrder head_order(const RotaryRule& rule, std::int64_t head_dim) {
    const std::int64_t rotated = rule.rotated_dims(), half = head_dim / 2;
    if (rotated > head_dim || (head_dim - rotated) % 2 != 0) {
        throw Error(ErrorCode::unsupported, "heads of " + std::to_string(head_dim) + " dimensions, of which " +
                                                std::to_string(rotated) + " rotate, do not come in pairs");
    }
    HeadOrder order{std::vector<std::int64_t>(static_cast<std::size_t>(head_dim)), rotated, rule.gain * rule.gain,
                    rule.gain * rule.gain};
    for (std::int64_t k = 0; k < half; ++k) {
        const bool rotates = k < rotated / 2;
        const bool halves = (rotates || rotated == 0) && !rule.interleaved;
        const std::int64_t first = halves ? k : 2 * k;
        order.dims[static_cast<std::size_t>(k)] = first;
        order.dims[static_cast<std::size_t>(k + half)] = !halves ? first + 1 : first + (rotates ? rotated / 2 : half);
    }
    return order;
}

HeadOrder head_order(const Model& model, std::int64_t layer) {
    HeadOrder order = head_order(model.rules(layer).rotary, model.config.head_dim);
    if (model.rules(layer).attention.query_key_norm != QueryKeyNorm::none) order.row_gain = 1;
    return order;
}

LayerRows layer_rows(const Model& model, std::int64_t layer, const LayerPairs& pairs) {
    return layer_rows(model.config.attention_shape(), pairs, head_order(model, layer).dims);
}

RotaryRule ordered_rule(const RotaryRule& rule, std::int64_t head_dim) {
    RotaryRule ordered = rule;
    ordered.frequencies.resize(static_cast<std::size_t>(head_dim / 2), 0);
    if (!rule.long_frequencies.empty()) ordered.long_frequencies.resize(ordered.frequencies.size(), 0);
    ordered.gain = 1;
    ordered.interleaved = false;
    return ordered;
}

AttentionRule ordered_attention(const LayerRules& rules) {
    AttentionRule ordered = rules.attention;
    if (ordered.query_key_norm != QueryKeyNorm::none) ordered.scale *= rules.rotary.gain * rules.rotary.gain;
    return ordered;
}

}  // namespace mha2mla

#include "shared_key_frame.hpp"

#include "../support/parallel.hpp"

namespace mha2mla {

SharedKeyFrame shared_key_frame(const OriginalAttention& layer, const SharedKeyMap& map) {
    const std::int64_t dim = layer.head_dim, rope = map.rope_dim(), nope = map.nope_rows();
    const std::int64_t nope_queries = layer.heads * rope;  // where they begin
    const bool biased = layer.q_bias.size() > 0;
    SharedKeyFrame frame;
    LatentWeights& weights = frame.weights;
    weights.o = layer.o;
    weights.q.resize(nope_queries + layer.q.rows(), layer.q.cols());
    weights.q.bottomRows(layer.q.rows()) = layer.q;
    if (biased) {
        weights.q_bias.resize(weights.q.rows());
        weights.q_bias.tail(layer.q_bias.size()) = layer.q_bias;
    }
    frame.query_maps.resize(static_cast<std::size_t>(layer.heads));
    parallel_for(layer.heads, [&](std::int64_t head, std::vector<float>&) {
        const MatrixD to = map.query_map(head);
        const MatrixD rows = to.topRows(rope) * layer.q.middleRows(head * dim, dim).cast<double>();
        weights.q.middleRows(head * rope, rope) = rows.cast<float>();
        if (biased) {
            const Eigen::VectorXd bias = to.topRows(rope) * layer.q_bias.segment(head * dim, dim).cast<double>();
            weights.q_bias.segment(head * rope, rope) = bias.cast<float>();
        }
        frame.query_maps[static_cast<std::size_t>(head)] = to.bottomRows(nope);
    });
    weights.k_rope = map.map_keys(layer.k.cast<double>()).topRows(rope).cast<float>();
    if (layer.k_bias.size() > 0) {
        weights.k_rope_bias = map.map_keys(layer.k_bias.cast<double>()).col(0).head(rope).cast<float>();
    }
    if (layer.v_bias.size() == 0) return frame;
    weights.up_v_bias.resize(layer.heads * dim);
    for (std::int64_t head = 0; head < layer.heads; ++head) {
        weights.up_v_bias.segment(head * dim, dim) = layer.v_bias.segment(head / layer.group_size() * dim, dim);
    }
    return frame;
}

void place_up(const OriginalAttention& layer, const SharedKeyFrame& frame, const MatrixD& keys, const MatrixD& values,
              LatentWeights& to) {
    const std::int64_t dim = layer.head_dim, rank = values.cols();
    to.up_k.resize(layer.heads * dim, rank);
    to.up_v.resize(layer.heads * dim, rank);
    parallel_for(layer.heads, [&](std::int64_t head, std::vector<float>&) {
        const MatrixD rows = frame.query_maps[static_cast<std::size_t>(head)].transpose() * keys;
        to.up_k.middleRows(head * dim, dim) = rows.cast<float>();
        to.up_v.middleRows(head * dim, dim) = values.middleRows(head / layer.group_size() * dim, dim).cast<float>();
    });
}

}  // namespace mha2mla

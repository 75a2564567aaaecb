#include "shared_key.hpp"

#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>
#include <Eigen/SVD>
#include <algorithm>
#include <cmath>
#include <string>

#include "../support/parallel.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

constexpr std::complex<double> kI(0, 1);

[[noreturn]] void refuse_block_moments() {
    throw Error(ErrorCode::numeric,
                "second moments of queries or keys are not finite; does the checkpoint hold NaN or infinite weights?");
}

/// E zzᴴ for z = first + i·second, from E xxᵀ.
template <typename RowOf>
MatrixC complex_moment(const MatrixD& moment, std::int64_t channels, const RowOf& row_of) {
    MatrixC result(channels, channels);
    for (std::int64_t i = 0; i < channels; ++i) {
        const auto [i1, i2] = row_of(i);
        for (std::int64_t j = 0; j < channels; ++j) {
            const auto [j1, j2] = row_of(j);
            result(i, j) = {moment(i1, j1) + moment(i2, j2), moment(i2, j1) - moment(i1, j2)};
        }
    }
    return result;
}

/// The dimensions of a channel of a block: its KV head's first and second.
struct ChannelRows {
    const OriginalAttention& layer;
    const SharedKeyBlock& block;

    std::pair<std::int64_t, std::int64_t> operator()(std::int64_t channel) const {
        const HeadPair& pair = layer.pairs[static_cast<std::size_t>(block.first_pair + channel % block.pairs)];
        const std::int64_t head = channel / block.pairs * layer.head_dim;
        return {head + pair.first, head + pair.second};
    }
};

/// Blocks of `fold` neighbouring pairs, the last one of what is left. @param fill is given each with its pairs.
template <typename Fill>
std::vector<SharedKeyBlock> blocks_of(const OriginalAttention& layer, std::int64_t fold, const Fill& fill) {
    const auto pairs = static_cast<std::int64_t>(layer.pairs.size());
    if (fold < 1 || fold > pairs) {
        throw Error(ErrorCode::usage, "blocks of " + std::to_string(fold) +
                                          " rotary pairs are not possible; choose from 1 to " + std::to_string(pairs));
    }
    std::vector<SharedKeyBlock> blocks(static_cast<std::size_t>((pairs + fold - 1) / fold));
    parallel_for(static_cast<std::int64_t>(blocks.size()), [&](std::int64_t number, std::vector<float>&) {
        SharedKeyBlock& block = blocks[static_cast<std::size_t>(number)];
        block.first_pair = number * fold;
        block.pairs = std::min(fold, pairs - block.first_pair);
        fill(block);
    });
    return blocks;
}

/// The lower Cholesky factor of a moment and its ridge.
MatrixC factor_of(MatrixC moment) {
    moment.diagonal().array() += std::max(kBasisRidge * moment.diagonal().real().mean(), kLeastBasisRidge);
    const Eigen::LLT<MatrixC> cholesky(moment);
    if (cholesky.info() != Eigen::Success || !moment.allFinite()) refuse_block_moments();
    return cholesky.matrixL();
}

void balance(SharedKeyBlock& block, const MatrixC& key_moment, const MatrixC& query_moment) {
    const MatrixC key = factor_of(key_moment), query = factor_of(query_moment);
    const Eigen::BDCSVD<MatrixC> svd(query.adjoint() * key, Eigen::ComputeFullU | Eigen::ComputeFullV);
    if (svd.info() != Eigen::Success || !svd.singularValues().allFinite()) refuse_block_moments();
    // Rounding may make the least ones zero; they only scale components that matter to nobody.
    const double least = std::max(1e-14 * svd.singularValues()(0), kLeastBasisRidge);
    block.strength = svd.singularValues().cwiseMax(least);
    const Eigen::VectorXd root = block.strength.cwiseSqrt();
    const MatrixC v_from_key = key.adjoint().triangularView<Eigen::Upper>().solve(svd.matrixV()).adjoint();  // Vᴴ·L_k⁻¹
    block.to = root.asDiagonal() * v_from_key;
    block.from = key * svd.matrixV() * root.cwiseInverse().asDiagonal();
}

/// Σ p(Δ)·e^(iδΔ) of a distribution. 1 if there is none.
std::complex<double> mean_turn(const Eigen::VectorXd& p, double delta) {
    std::complex<double> sum = 0, turn = 1;
    const std::complex<double> step = std::polar(1.0, delta);
    for (const double mass : p) {
        sum += mass * turn;
        turn *= step;
    }
    const double total = p.sum();
    return total > 0 ? sum / total : 1;
}

}  // namespace

std::vector<SharedKeyBlock> balanced_blocks(const OriginalAttention& layer, const QueryKeyMoments& moments,
                                            std::int64_t fold) {
    return blocks_of(layer, fold, [&](SharedKeyBlock& block) {
        const auto rows_of = ChannelRows{layer, block};
        const MatrixC key = complex_moment(moments.key, layer.kv_heads * block.pairs, rows_of);
        MatrixC query = MatrixC::Zero(key.rows(), key.cols());
        for (std::int64_t head = 0; head < layer.heads; ++head) {
            const std::int64_t place = head / layer.group_size() * block.pairs;
            query.block(place, place, block.pairs, block.pairs) +=
                complex_moment(moments.query[static_cast<std::size_t>(head)], block.pairs, rows_of);
        }
        balance(block, key, query);
    });
}

std::vector<SharedKeyBlock> principal_blocks(const OriginalAttention& layer, const QueryKeyMoments& moments,
                                             std::int64_t fold) {
    return blocks_of(layer, fold, [&](SharedKeyBlock& block) {
        const MatrixC key = complex_moment(moments.key, layer.kv_heads * block.pairs, ChannelRows{layer, block});
        const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(key.real());
        if (eigen.info() != Eigen::Success || !key.allFinite()) refuse_block_moments();
        block.strength = eigen.eigenvalues().reverse();
        const Eigen::MatrixXd components = eigen.eigenvectors().rowwise().reverse();
        block.from = components.cast<std::complex<double>>();
        block.to = block.from.transpose();
    });
}

std::vector<SharedKeyBlock> plain_blocks(const OriginalAttention& layer) {
    return blocks_of(layer, 1, [&](SharedKeyBlock& block) {
        block.to = block.from = MatrixC::Identity(layer.kv_heads, layer.kv_heads);
        block.strength.setOnes(layer.kv_heads);
    });
}

std::vector<SharedKeyComponent> components_of(const std::vector<SharedKeyBlock>& blocks) {
    std::vector<SharedKeyComponent> components;
    for (std::size_t block = 0; block < blocks.size(); ++block) {
        for (std::int64_t index = 0; index < blocks[block].strength.size(); ++index) {
            components.push_back({static_cast<std::int64_t>(block), index});
        }
    }
    return components;
}

std::vector<MatrixC> mean_turns(const std::vector<HeadPair>& pairs, const MatrixD& attention,
                                const std::vector<double>& frequencies) {
    std::vector<MatrixC> result(static_cast<std::size_t>(attention.rows()));
    parallel_for(attention.rows(), [&](std::int64_t row, std::vector<float>&) {
        const Eigen::VectorXd p = attention.row(row);
        MatrixC turns(static_cast<Eigen::Index>(pairs.size()), static_cast<Eigen::Index>(frequencies.size()));
        for (std::size_t k = 0; k < pairs.size(); ++k) {
            for (std::size_t j = 0; j < frequencies.size(); ++j) {
                turns(static_cast<Eigen::Index>(k), static_cast<Eigen::Index>(j)) =
                    mean_turn(p, pairs[k].frequency - frequencies[j]);
            }
        }
        result[static_cast<std::size_t>(row)] = std::move(turns);
    });
    return result;
}

std::complex<double> query_factor(std::complex<double> mean_turn, QueryTurn turn) {
    const double length = std::abs(mean_turn);
    if (turn == QueryTurn::none || (turn == QueryTurn::phase && !(length > 0))) return 1;
    return turn == QueryTurn::phase ? mean_turn / length : mean_turn;
}

SharedKeyMap::SharedKeyMap(const OriginalAttention& layer, std::vector<SharedKeyBlock> blocks,
                           std::vector<SharedKeySlot> slots, const MatrixD& attention, QueryTurn turn)
    : kv_heads_(layer.kv_heads),
      head_dim_(layer.head_dim),
      group_(layer.group_size()),
      pairs_(layer.pairs),
      blocks_(std::move(blocks)),
      slots_(std::move(slots)) {
    for (const SharedKeyBlock& block : blocks_) {
        place_.emplace_back(static_cast<std::size_t>(block.strength.size()), std::int64_t{-1});
    }
    std::int64_t next = 0;
    for (const SharedKeySlot& slot : slots_) {
        std::int64_t& place =
            place_[static_cast<std::size_t>(slot.component.block)][static_cast<std::size_t>(slot.component.index)];
        if (place >= 0) throw Error(ErrorCode::usage, "a component of the shared key is in two slots");
        place = next++;
    }
    for (auto& block : place_) {
        for (std::int64_t& place : block) {
            if (place < 0) place = next++;
        }
    }
    std::vector<double> turning = frequencies();
    turning.push_back(0);
    factors_ = mean_turns(pairs_, attention, turning);
    for (MatrixC& factors : factors_) {
        factors = factors.unaryExpr([turn](std::complex<double> r) { return query_factor(r, turn); }).eval();
    }
}

std::vector<double> SharedKeyMap::frequencies() const {
    std::vector<double> result;
    for (const SharedKeySlot& slot : slots_) result.push_back(slot.frequency);
    return result;
}

SharedKeyMap::Rows SharedKeyMap::rows_of(std::size_t block, std::int64_t component) const {
    const std::int64_t place = place_[block][static_cast<std::size_t>(component)];
    const auto slots = static_cast<std::int64_t>(slots_.size());
    if (place < slots) return {place, place + slots};
    return {slots + place, place + nope_rows() / 2 + slots};
}

MatrixD SharedKeyMap::map_keys(const MatrixD& keys) const {
    MatrixD result(keys.rows(), keys.cols());
    parallel_for(static_cast<std::int64_t>(blocks_.size()), [&](std::int64_t number, std::vector<float>&) {
        const SharedKeyBlock& block = blocks_[static_cast<std::size_t>(number)];
        const std::int64_t channels = block.strength.size();
        MatrixD first(channels, keys.cols()), second(channels, keys.cols());
        for (std::int64_t channel = 0; channel < channels; ++channel) {
            const HeadPair& pair = pairs_[static_cast<std::size_t>(block.first_pair + channel % block.pairs)];
            const std::int64_t head = channel / block.pairs * head_dim_;
            first.row(channel) = keys.row(head + pair.first);
            second.row(channel) = keys.row(head + pair.second);
        }
        const MatrixD re = block.to.real(), im = block.to.imag();
        const MatrixD real = re * first - im * second, imaginary = im * first + re * second;
        for (std::int64_t component = 0; component < channels; ++component) {
            const Rows rows = rows_of(static_cast<std::size_t>(number), component);
            result.row(rows.real) = real.row(component);
            result.row(rows.imaginary) = imaginary.row(component);
        }
    });
    return result;
}

MatrixD SharedKeyMap::query_map(std::int64_t head) const {
    const std::int64_t kv_head = head / group_;
    const MatrixC& factors = factors_[factors_.size() == 1 ? 0 : static_cast<std::size_t>(head)];
    const auto slots = static_cast<std::int64_t>(slots_.size());
    MatrixD result = MatrixD::Zero(kv_heads_ * head_dim_, head_dim_);
    for (std::size_t number = 0; number < blocks_.size(); ++number) {
        const SharedKeyBlock& block = blocks_[number];
        for (std::int64_t component = 0; component < block.strength.size(); ++component) {
            const Rows rows = rows_of(number, component);
            const std::int64_t column =
                std::min(place_[number][static_cast<std::size_t>(component)], slots);  // of factors
            for (std::int64_t j = 0; j < block.pairs; ++j) {
                const HeadPair& pair = pairs_[static_cast<std::size_t>(block.first_pair + j)];
                const std::complex<double> m =
                    std::conj(block.from(kv_head * block.pairs + j, component)) * factors(block.first_pair + j, column);
                result(rows.real, pair.first) = m.real();
                result(rows.real, pair.second) = (m * kI).real();
                result(rows.imaginary, pair.first) = m.imag();
                result(rows.imaginary, pair.second) = (m * kI).imag();
            }
        }
    }
    return result;
}

}  // namespace mha2mla

#include "gathered_inputs.hpp"

#include <algorithm>

#include "../linalg/blas.hpp"
#include "../support/parallel.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kBlock = 256;  // tokens that are converted to double at a time
constexpr std::int64_t kStrip = 128;  // rows of a moment per work item of a thread

std::uint64_t unsigned_of(std::int64_t value) { return static_cast<std::uint64_t>(value); }

std::uint64_t moment_bytes(std::int64_t hidden) { return unsigned_of(hidden * (hidden + 1) / 2) * sizeof(double); }
std::uint64_t sample_bytes(std::int64_t hidden) { return unsigned_of(kSampleTokens * hidden) * sizeof(float); }

std::uint64_t disk_bytes(const ModelConfig& config, CalibrationOptions::Inputs inputs) {
    const bool moments = inputs == CalibrationOptions::Inputs::moments;
    return unsigned_of(config.num_hidden_layers) *
           (sample_bytes(config.hidden_size) + (moments ? moment_bytes(config.hidden_size) : 0));
}

/// The position of row `row` of an upper triangle in its packed numbers.
std::int64_t packed_row(std::int64_t n, std::int64_t row) { return row * n - row * (row - 1) / 2; }

}  // namespace

MatrixD LayerInputs::moment(std::int64_t layer) const {
    if (!extent_.moments) throw Error(ErrorCode::usage, "no second moments were gathered");
    const std::int64_t n = extent_.hidden;
    std::vector<double> upper(unsigned_of(n * (n + 1) / 2));
    read_moment(layer, upper);
    MatrixD result(n, n);
    for (std::int64_t row = 0; row < n; ++row) {
        const double* numbers = upper.data() + packed_row(n, row);
        std::copy(numbers, numbers + (n - row), result.data() + row * n + row);
    }
    result.triangularView<Eigen::StrictlyLower>() = result.transpose();
    return result;
}

Matrix LayerInputs::sample(std::int64_t layer) const {
    Matrix result(extent_.sample_tokens, extent_.hidden);
    read_sample(layer, {result.data(), static_cast<std::size_t>(result.size())});
    return result;
}

GatheredInputs::GatheredInputs(const ModelConfig& config, std::int64_t seq_len, const CalibrationOptions& options)
    : seq_len_(seq_len), disk_(options.spill_directory, disk_bytes(config, options.inputs)) {
    extent_.layers = config.num_hidden_layers;
    extent_.hidden = config.hidden_size;
    extent_.sample_seq_len = std::min(seq_len, kSampleSeqLen);
    extent_.moments = options.inputs == CalibrationOptions::Inputs::moments;
    if (extent_.moments) sum_.resize(extent_.hidden, extent_.hidden);
}

std::uint64_t GatheredInputs::moment_offset(std::int64_t layer) const {
    return unsigned_of(layer) * moment_bytes(extent_.hidden);
}

std::uint64_t GatheredInputs::sample_offset(std::int64_t layer) const {
    return (extent_.moments ? moment_offset(extent_.layers) : 0) + unsigned_of(layer) * sample_bytes(extent_.hidden);
}

void GatheredInputs::add(std::int64_t layer, const Matrix& input) {
    if (layer != layer_) begin_layer(layer);
    add_to_sample(input);
    if (extent_.moments) add_to_moment(input);
}

void GatheredInputs::begin_layer(std::int64_t layer) {
    end_layer();
    layer_ = layer;
    sampled_ = sampled_before_;
    if (!extent_.moments) return;
    const std::int64_t n = extent_.hidden;
    sum_.setZero();
    for (std::int64_t row = 0; tokens_ > 0 && row < n; ++row) {
        disk_.read(moment_offset(layer) + unsigned_of(packed_row(n, row)) * sizeof(double),
                   std::as_writable_bytes(std::span(sum_.data() + row * n + row, unsigned_of(n - row))));
    }
}

void GatheredInputs::end_layer() {
    if (layer_ < 0 || !extent_.moments) return;
    const std::int64_t n = extent_.hidden;
    for (std::int64_t row = 0; row < n; ++row) {
        disk_.write(moment_offset(layer_) + unsigned_of(packed_row(n, row)) * sizeof(double),
                    std::as_bytes(std::span(sum_.data() + row * n + row, unsigned_of(n - row))));
    }
}

void GatheredInputs::end_round(std::int64_t tokens) {
    end_layer();
    layer_ = -1;
    tokens_ += tokens;
    extent_.sample_tokens = sampled_before_ = sampled_;
}

void GatheredInputs::add_to_moment(const Matrix& input) {
    const std::int64_t n = extent_.hidden;
    for (std::int64_t first = 0; first < input.rows(); first += kBlock) {
        const std::int64_t count = std::min(kBlock, input.rows() - first);
        block_ = input.middleRows(first, count).cast<double>();
        parallel_for((n + kStrip - 1) / kStrip, [&](std::int64_t strip, std::vector<float>&) {
            const std::int64_t row = strip * kStrip;
            gemm(CblasTrans, CblasNoTrans, std::min(kStrip, n - row), n - row, count, 1.0, block_.data() + row, n,
                 block_.data() + row, n, 1.0, sum_.data() + row * n + row, n);
        });
    }
}

void GatheredInputs::add_to_sample(const Matrix& input) {
    for (std::int64_t first = 0; first < input.rows(); first += seq_len_) {
        if (sampled_ + extent_.sample_seq_len > kSampleTokens) return;
        const std::int64_t n = extent_.hidden;
        disk_.write(sample_offset(layer_) + unsigned_of(sampled_ * n) * sizeof(float),
                    std::as_bytes(std::span(input.data() + first * n, unsigned_of(extent_.sample_seq_len * n))));
        sampled_ += extent_.sample_seq_len;
    }
}

void GatheredInputs::read_moment(std::int64_t layer, std::span<double> upper) const {
    disk_.read(moment_offset(layer), std::as_writable_bytes(upper));
    for (double& value : upper) value /= static_cast<double>(tokens_);
}

void GatheredInputs::read_sample(std::int64_t layer, std::span<float> rows) const {
    disk_.read(sample_offset(layer), std::as_writable_bytes(rows));
}

std::uint64_t gathering_bytes(const ModelConfig& config, CalibrationOptions::Inputs inputs) {
    if (inputs != CalibrationOptions::Inputs::moments) return 0;
    return unsigned_of((config.hidden_size + kBlock) * config.hidden_size) * sizeof(double);
}

}  // namespace mha2mla

#include "stats_inputs.hpp"

#include <charconv>
#include <cstring>

#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

class FileInputs final : public LayerInputs {
public:
    FileInputs(std::shared_ptr<const SafetensorsFile> file, const Extent& extent) : file_(std::move(file)) {
        extent_ = extent;
    }
    void read_moment(std::int64_t layer, std::span<double> upper) const override {
        read(moment_name(layer), std::as_writable_bytes(upper));
    }
    void read_sample(std::int64_t layer, std::span<float> rows) const override {
        read(sample_name(layer), std::as_writable_bytes(rows));
    }

private:
    void read(const std::string& name, std::span<std::byte> to) const {
        const TensorView& tensor = *file_->find(name);
        if (!to.empty()) std::memcpy(to.data(), tensor.data.data(), to.size());
        file_->file().done_with(tensor.data);
    }
    std::shared_ptr<const SafetensorsFile> file_;
};

const TensorView& tensor_of(const SafetensorsFile& file, const std::string& name, Dtype dtype, const Shape& shape) {
    const TensorView* tensor = file.find(name);
    if (tensor == nullptr || tensor->dtype != dtype || (!shape.empty() && tensor->shape != shape)) {
        const std::string want = std::string(dtype_name(dtype)) + (shape.empty() ? "" : " " + to_string(shape));
        const std::string have =
            tensor == nullptr ? "there is none"
                              : "it is " + std::string(dtype_name(tensor->dtype)) + " " + to_string(tensor->shape);
        throw Error(ErrorCode::format,
                    file.path().string() + ": tensor '" + name + "' must be " + want + ", but " + have,
                    Remedy::calibrate_with_moments);
    }
    return *tensor;
}

}  // namespace

std::string moment_name(std::int64_t layer) { return "input_moment." + std::to_string(layer); }
std::string sample_name(std::int64_t layer) { return "input_sample." + std::to_string(layer); }

std::int64_t metadata_number(const SafetensorsFile& file, const char* key) {
    const auto it = file.metadata().find(key);
    const std::string text = it == file.metadata().end() ? "" : it->second;
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < 0 || value > kMostCounted) {
        throw Error(ErrorCode::format, file.path().string() + ": metadata '" + key + "' must be a number from 0 to " +
                                           std::to_string(kMostCounted));
    }
    return value;
}

std::shared_ptr<const LayerInputs> inputs_of_file(std::shared_ptr<const SafetensorsFile> file, std::int64_t layers) {
    if (file->find(moment_name(0)) == nullptr) return nullptr;
    LayerInputs::Extent extent;
    extent.layers = layers;
    extent.moments = true;
    extent.sample_seq_len = metadata_number(*file, kSampleSeqLenKey);
    const Shape sample = tensor_of(*file, sample_name(0), Dtype::f32, {}).shape;
    if (sample.size() != 2 || sample[1] < 1 || extent.sample_seq_len < 1 || sample[0] < 1 ||
        sample[0] % extent.sample_seq_len != 0) {
        throw Error(ErrorCode::format, file->path().string() + ": tensor '" + sample_name(0) + "' of shape " +
                                           to_string(sample) + " is not whole sequences of " +
                                           std::to_string(extent.sample_seq_len) + " tokens; calibrate again");
    }
    extent.sample_tokens = sample[0];
    extent.hidden = sample[1];
    for (std::int64_t layer = 0; layer < layers; ++layer) {
        const TensorView& moment = tensor_of(*file, moment_name(layer), Dtype::f64, {});
        // Not n * (n + 1) / 2, which could overflow for a damaged file.
        const auto n = static_cast<std::uint64_t>(extent.hidden);
        const auto have = static_cast<std::uint64_t>(moment.rows());
        if (moment.shape.size() != 1 || n > (1U << 24U) || have != n * (n + 1) / 2) {
            throw Error(ErrorCode::format,
                        file->path().string() + ": tensor '" + moment.name + "' of shape " + to_string(moment.shape) +
                            " is not the upper triangle of a matrix of " + std::to_string(extent.hidden) + " columns",
                        Remedy::calibrate_with_moments);
        }
        (void)tensor_of(*file, sample_name(layer), Dtype::f32, sample);
    }
    return std::make_shared<FileInputs>(std::move(file), extent);
}

}  // namespace mha2mla

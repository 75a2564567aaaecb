#include <algorithm>

#include "mha2mla/calibration.hpp"
#include "mha2mla/error.hpp"
#include "stats_inputs.hpp"

namespace mha2mla {
namespace fs = std::filesystem;
namespace {

struct PartFile {
    fs::path path;
    CalibrationStats stats;
};

/// The layer inputs of all shards, in the order of the text.
class MergedInputs final : public LayerInputs {
public:
    /// @param weights the share of the run's sequences that each has.
    MergedInputs(std::vector<std::shared_ptr<const LayerInputs>> parts, std::vector<double> weights)
        : parts_(std::move(parts)), weights_(std::move(weights)) {
        extent_ = parts_.front()->extent();
        const std::int64_t most = kSampleTokens / extent_.sample_seq_len * extent_.sample_seq_len;
        std::int64_t tokens = 0;
        for (const auto& part : parts_) tokens = std::min(tokens + part->extent().sample_tokens, most);
        extent_.sample_tokens = tokens;
    }

    void read_moment(std::int64_t layer, std::span<double> upper) const override {
        std::ranges::fill(upper, 0.0);
        std::vector<double> part(upper.size());
        for (std::size_t i = 0; i < parts_.size(); ++i) {
            parts_[i]->read_moment(layer, part);
            for (std::size_t at = 0; at < upper.size(); ++at) upper[at] += weights_[i] * part[at];
        }
    }

    void read_sample(std::int64_t layer, std::span<float> rows) const override {
        std::vector<float> part;
        for (std::size_t i = 0, done = 0; i < parts_.size() && done < rows.size(); ++i) {
            part.resize(static_cast<std::size_t>(parts_[i]->extent().sample_tokens * extent_.hidden));
            parts_[i]->read_sample(layer, part);
            const std::size_t count = std::min(part.size(), rows.size() - done);
            std::copy_n(part.begin(), count, rows.begin() + static_cast<std::ptrdiff_t>(done));
            done += count;
        }
    }

private:
    std::vector<std::shared_ptr<const LayerInputs>> parts_;
    std::vector<double> weights_;
};

std::string name(const PartFile& file) { return file.path.string(); }
const Shard& shard_of(const PartFile& file) { return file.stats.part->shard; }

std::vector<PartFile> load_parts(std::span<const fs::path> files) {
    if (files.empty()) throw Error(ErrorCode::usage, "no files of shards are given");
    std::vector<PartFile> parts;
    for (const fs::path& path : files) {
        parts.push_back({path, load_stats(path)});
        if (!parts.back().stats.part) {
            throw Error(ErrorCode::usage, path.string() + ": statistics of a whole run; only shards of one are merged");
        }
    }
    std::ranges::stable_sort(parts, {}, [](const PartFile& part) { return shard_of(part).index; });
    return parts;
}

/// Refuses shards of several runs, and the same twice; then missing ones.
void check_whole(const std::vector<PartFile>& parts) {
    const PartFile& first = parts.front();
    const std::int64_t count = shard_of(first).count;
    for (std::size_t i = 1; i < parts.size(); ++i) {
        if (parts[i].stats.part->run != first.stats.part->run || shard_of(parts[i]).count != count) {
            throw Error(ErrorCode::usage, name(first) + " (shard " + shard_of(first).text() + ") and " +
                                              name(parts[i]) + " (shard " + shard_of(parts[i]).text() +
                                              ") are of different runs: the model, the text, the sequences, what is "
                                              "gathered, the number of shards and the version must be the same");
        }
        if (shard_of(parts[i]) == shard_of(parts[i - 1])) {
            throw Error(ErrorCode::usage,
                        name(parts[i - 1]) + " and " + name(parts[i]) + " are both shard " + shard_of(parts[i]).text());
        }
    }
    constexpr std::size_t kNamed = 8;
    std::string missing;
    std::size_t named = 0, part = 0;
    for (std::int64_t index = 0; index < count && named <= kNamed; ++index) {
        if (part < parts.size() && shard_of(parts[part]).index == index) {
            ++part;
        } else if (named++ < kNamed) {
            missing += (missing.empty() ? "" : ", ") + Shard{index, count}.text();
        }
    }
    if (named > kNamed) missing += ", ...";
    if (!missing.empty()) {
        throw Error(ErrorCode::usage, "shards are missing: " + missing + "; give the files of all");
    }
}

/// The run's hash says that the parts belong together; a file may be damaged, though.
void check_alike(const PartFile& first, const PartFile& other) {
    const auto shape = [](const CalibrationStats& stats) {
        Shape numbers{stats.layers, stats.heads, stats.kv_heads, stats.pairs, stats.seq_len, 0, 0};
        if (stats.inputs != nullptr) {
            numbers[5] = stats.inputs->extent().hidden;
            numbers[6] = stats.inputs->extent().sample_seq_len;
        }
        return numbers;
    };
    const auto refuse = [&](const std::string& problem) {
        throw Error(ErrorCode::format,
                    name(other) + ": " + problem + "; calibrate shard " + shard_of(other).text() + " again");
    };
    if (other.stats.sequences < 1) refuse("is of no sequence");
    if (other.stats.inputs != nullptr && other.stats.inputs->extent().sample_seq_len > kSampleSeqLen) {
        refuse("samples have at most " + std::to_string(kSampleSeqLen) + " tokens of a sequence");
    }
    if (shape(first.stats) != shape(other.stats)) {
        refuse("has statistics of another form than " + name(first) + ", " + to_string(shape(other.stats)) + ", not " +
               to_string(shape(first.stats)));
    }
}

std::vector<double> weighted_sum(const std::vector<PartFile>& parts, const std::vector<double>& weights,
                                 std::vector<double> CalibrationStats::*means) {
    std::vector<double> sum((parts.front().stats.*means).size());
    for (std::size_t i = 0; i < parts.size(); ++i) {
        const std::vector<double>& values = parts[i].stats.*means;
        for (std::size_t at = 0; at < sum.size(); ++at) sum[at] += weights[i] * values[at];
    }
    return sum;
}

}  // namespace

CalibrationStats merge_stats(std::span<const fs::path> files) {
    const std::vector<PartFile> parts = load_parts(files);
    check_whole(parts);
    for (const PartFile& part : parts) check_alike(parts.front(), part);

    CalibrationStats merged = parts.front().stats;
    merged.part.reset();
    merged.settling.reset();
    merged.sequences = 0;
    for (const PartFile& part : parts) merged.sequences += part.stats.sequences;
    if (merged.sequences > kMostCounted) throw Error(ErrorCode::format, "the shards are of impossibly many sequences");
    std::vector<double> weights;
    std::vector<std::shared_ptr<const LayerInputs>> inputs;
    for (const PartFile& part : parts) {
        weights.push_back(static_cast<double>(part.stats.sequences) / static_cast<double>(merged.sequences));
        inputs.push_back(part.stats.inputs);
    }
    merged.mean_query_norm = weighted_sum(parts, weights, &CalibrationStats::mean_query_norm);
    merged.mean_key_norm = weighted_sum(parts, weights, &CalibrationStats::mean_key_norm);
    if (merged.inputs != nullptr) merged.inputs = std::make_shared<MergedInputs>(inputs, weights);
    return merged;
}

}  // namespace mha2mla

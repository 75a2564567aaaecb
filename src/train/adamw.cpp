#include "adamw.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../forward/unpack.hpp"
#include "../support/parallel.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kChunk = 16384;  // numbers of a work item

/// A stretch of one parameter.
struct Chunk {
    std::size_t parameter;
    std::int64_t first, count;
};

std::vector<Chunk> chunks_of(std::span<const Parameter> parameters) {
    std::vector<Chunk> chunks;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
        const auto size = std::ssize(parameters[i].value);
        for (std::int64_t first = 0; first < size; first += kChunk) {
            chunks.push_back({i, first, std::min(kChunk, size - first)});
        }
    }
    return chunks;
}

using Numbers = Eigen::Map<Eigen::ArrayXf>;

/// One of the two moments of a parameter.
struct MomentPart {
    std::byte* data;
    bool bf16;

    void read(std::int64_t first, std::int64_t count, float* to) const {
        if (bf16) return decode_bf16(data + first * 2, count, to);
        std::memcpy(to, data + first * 4, static_cast<std::size_t>(count) * 4);
    }
    void write(std::int64_t first, std::int64_t count, const float* from) const {
        if (!bf16) {
            std::memcpy(data + first * 4, from, static_cast<std::size_t>(count) * 4);
            return;
        }
        for (std::int64_t i = 0; i < count; ++i) {
            const std::uint16_t half = to_bf16(from[i]);
            std::memcpy(data + (first + i) * 2, &half, 2);
        }
    }
};

}  // namespace

double gradient_norm(std::span<const Parameter> parameters) {
    const std::vector<Chunk> chunks = chunks_of(parameters);
    std::vector<double> sums(chunks.size());
    parallel_for(std::ssize(chunks), [&](std::int64_t i, std::vector<float>&) {
        const auto [parameter, first, count] = chunks[static_cast<std::size_t>(i)];
        const Eigen::Map<const Eigen::ArrayXf> g(parameters[parameter].gradient.data() + first, count);
        sums[static_cast<std::size_t>(i)] = g.cast<double>().square().sum();
    });
    double sum = 0;
    for (const double part : sums) sum += part;
    return std::sqrt(sum);
}

double clip_factor(double norm, double most) { return std::min(1.0, most / (norm + 1e-6)); }

AdamW::AdamW(std::vector<Parameter> parameters, const AdamWOptions& options)
    : options_(options), parameters_(std::move(parameters)) {
    for (const Parameter& parameter : parameters_) {
        moments_.emplace_back(parameter.value.size() * (options.bf16_moments ? 4 : 8));
    }
}

void AdamW::step(double rate, double scale) {
    ++steps_;
    const auto t = static_cast<double>(steps_);
    const auto first_rate = static_cast<float>(rate / (1 - std::pow(options_.beta1, t)));
    const auto second_root = static_cast<float>(1 / std::sqrt(1 - std::pow(options_.beta2, t)));
    const auto beta1 = static_cast<float>(options_.beta1), beta2 = static_cast<float>(options_.beta2);
    const auto rest1 = static_cast<float>(1 - options_.beta1), rest2 = static_cast<float>(1 - options_.beta2);
    const auto eps = static_cast<float>(options_.eps), factor = static_cast<float>(scale);
    const std::vector<Chunk> chunks = chunks_of(parameters_);
    parallel_for(std::ssize(chunks), [&](std::int64_t i, std::vector<float>& scratch) {
        const auto [parameter, first, count] = chunks[static_cast<std::size_t>(i)];
        const Parameter& of = parameters_[parameter];
        std::vector<std::byte>& moments = moments_[parameter];
        const MomentPart first_part{moments.data(), options_.bf16_moments};
        const MomentPart second_part{moments.data() + moments.size() / 2, options_.bf16_moments};
        scratch.resize(static_cast<std::size_t>(2 * count));
        Numbers m(scratch.data(), count), v(scratch.data() + count, count);
        first_part.read(first, count, m.data());
        second_part.read(first, count, v.data());
        const Numbers g(of.gradient.data() + first, count);
        Numbers p(of.value.data() + first, count);
        m = beta1 * m + rest1 * (factor * g);
        v = beta2 * v + rest2 * (factor * g).square();
        if (of.decays && options_.weight_decay != 0) p *= static_cast<float>(1 - rate * options_.weight_decay);
        p -= first_rate * m / (v.sqrt() * second_root + eps);
        first_part.write(first, count, m.data());
        second_part.write(first, count, v.data());
    });
}

}  // namespace mha2mla

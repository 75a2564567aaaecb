#include "mha2mla/session.hpp"
#include "mha2mla/mapped_file.hpp"

#include <algorithm>
#include <string>

#include "forward.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/memory.hpp"
#include "session_impl.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kBlockTokens = 512;  // of one sequence that go through the layers together

std::size_t size_of(std::int64_t count) { return static_cast<std::size_t>(count); }

/// Allocates one token's room only.
void check_memory(const ModelConfig& config, const SessionOptions& options) {
    const CacheLayout layout = cache_layout(config, options.cache.group_size);
    const KvRows one(layout, options.cache.format, options.cache.group_size, 1);
    const auto count = static_cast<double>(options.sequences * config.num_hidden_layers);
    const double bytes = count * static_cast<double>(one.allocated_bytes()) * static_cast<double>(options.capacity);
    const auto available = available_memory();
    if (bytes < static_cast<double>(available)) return;
    throw Error(ErrorCode::usage,
                "a KV cache of " + std::to_string(options.capacity) + " tokens for " +
                    std::to_string(options.sequences) + " sequences takes " +
                    memory_text(static_cast<std::uint64_t>(std::min(bytes, 1e18))) + ", but only " +
                    memory_text(available) + " are available",
                Remedy::smaller_cache);
}

void check(const ModelConfig& config, const SessionOptions& options) {
    if (options.sequences < 1 || options.capacity < 1) {
        throw Error(ErrorCode::usage, "a session needs at least one sequence and room for one token");
    }
    if (options.cache.group_size < 1 || options.cache.window < 0) {
        throw Error(ErrorCode::usage,
                    "a quantised KV cache needs groups of at least one number and a window of at "
                    "least 0 tokens");
    }
    check_memory(config, options);
}

}  // namespace

Session::Session(const Model& model, const SessionOptions& options) {
    check(model.config, options);
    impl_ = std::make_unique<Impl>(model, options);
}

Session::~Session() = default;

Matrix Session::advance(std::span<const Piece> pieces) {
    std::int64_t total = 0;
    std::vector<bool> seen(size_of(impl_->options.sequences));
    for (const Piece& piece : pieces) {
        if (piece.sequence < 0 || piece.sequence >= impl_->options.sequences || seen[size_of(piece.sequence)]) {
            throw Error(ErrorCode::usage, "sequence " + std::to_string(piece.sequence) + " of " +
                                              std::to_string(impl_->options.sequences) +
                                              " does not exist or occurs twice");
        }
        seen[size_of(piece.sequence)] = true;
        check_ids(impl_->model, piece.ids);
        const auto count = static_cast<std::int64_t>(piece.ids.size());
        if (length(piece.sequence) + count > impl_->options.capacity) {
            throw Error(ErrorCode::usage, std::to_string(length(piece.sequence) + count) +
                                              " tokens do not fit the session's capacity of " +
                                              std::to_string(impl_->options.capacity));
        }
        total += count;
    }
    Matrix result(total, impl_->config.hidden_size);
    Matrix batch;
    for (std::int64_t done = 0;; done += kBlockTokens) {
        std::vector<Run> runs;
        std::vector<std::int64_t> targets;
        std::vector<TokenId> ids;
        std::int64_t start = 0;  // of the piece in the result
        for (const Piece& piece : pieces) {
            const auto size = static_cast<std::int64_t>(piece.ids.size());
            const std::int64_t count = std::clamp<std::int64_t>(size - done, 0, kBlockTokens);
            if (count > 0) {
                runs.push_back({piece.sequence, static_cast<std::int64_t>(ids.size()), count, length(piece.sequence)});
                targets.push_back(start + done);
                const auto part = piece.ids.subspan(size_of(done), size_of(count));
                ids.insert(ids.end(), part.begin(), part.end());
            }
            start += size;
        }
        if (runs.empty()) {
            check_mapped_files();
            return result;
        }
        batch.resize(static_cast<Eigen::Index>(ids.size()), impl_->config.hidden_size);
        embed(impl_->model, ids, {batch.data(), batch.rows(), batch.cols()});
        impl_->through_layers(runs, batch);
        for (std::size_t i = 0; i < runs.size(); ++i) {
            result.middleRows(targets[i], runs[i].count) = batch.middleRows(runs[i].first, runs[i].count);
        }
    }
}

std::int64_t Session::length(std::int64_t sequence) const { return impl_->first_cache(sequence).length(); }

void Session::fork(std::int64_t from, std::int64_t to) {
    for (std::int64_t layer = 0; layer < impl_->config.num_hidden_layers; ++layer) {
        if (from != to) impl_->cache(to, layer) = impl_->cache(from, layer);
    }
}

void Session::clear(std::int64_t sequence) {
    for (std::int64_t layer = 0; layer < impl_->config.num_hidden_layers; ++layer) {
        impl_->cache(sequence, layer).clear();
    }
}

KvCacheSize Session::cache_size() const {
    KvCacheSize size;
    for (const auto& cache : impl_->caches) {
        size.allocated += cache.old().allocated_bytes() + cache.recent().allocated_bytes();
        size.window += cache.recent().allocated_bytes();
    }
    const KvRows one(impl_->layout, impl_->options.cache.format, impl_->options.cache.group_size, 1);
    const auto layers = static_cast<double>(impl_->config.num_hidden_layers);
    size.tokens = impl_->options.sequences * impl_->options.capacity;
    size.bytes_per_token = layers * static_cast<double>(one.allocated_bytes());
    size.nominal_bytes_per_token =
        layers * static_cast<double>(impl_->layout.width) * row_of(impl_->options.cache.format).bits / 8;
    return size;
}

KvCacheFormat default_kv_cache_format(const Model& model) {
    switch (model.embed_tokens->dtype) {
        case Dtype::bf16:
            return KvCacheFormat::bf16;
        case Dtype::f16:
            return KvCacheFormat::f16;
        default:
            return KvCacheFormat::f32;
    }
}

}  // namespace mha2mla

#include "mha2mla/evaluate.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

#include "../linalg/elementwise.hpp"
#include "../support/parallel.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

constexpr std::int64_t kBatchBytes = 256'000'000;  // bytes of hidden states per batch of windows
constexpr std::int64_t kCachedTokens = 2048;       // tokens of the windows that share a session
constexpr std::int64_t kLogitBytes = 64'000'000;   // bytes of logits that are computed together

std::int64_t windows_per_batch(const Model& model, std::int64_t context) {
    return std::max<std::int64_t>(1, kBatchBytes / (context * model.config.hidden_size * std::int64_t{sizeof(float)}));
}

std::int64_t rows_per_block(const Model& model) {
    return std::max<std::int64_t>(1, kLogitBytes / (model.config.vocab_size * std::int64_t{sizeof(float)}));
}

void check_finite(double value, const Model& model) {
    if (!std::isfinite(value)) {
        throw Error(ErrorCode::numeric, model.checkpoint.directory().string() +
                                            ": the NLL is not finite; the checkpoint holds NaN or infinite weights");
    }
}

/// Calls visit() for each batch of windows.
template <typename Visit>
void for_each_batch(std::span<const TokenId> windows, std::int64_t context, std::int64_t batch, const Visit& visit) {
    const std::int64_t count = static_cast<std::int64_t>(windows.size()) / context;
    for (std::int64_t first = 0; first < count; first += batch) {
        visit(windows.subspan(static_cast<std::size_t>(first * context),
                              static_cast<std::size_t>(std::min(batch, count - first) * context)));
    }
}

/// Whether row `position` of a batch predicts a token of its window; the last row of a window does not.
bool is_scored(std::int64_t position, std::int64_t context) { return position % context != context - 1; }

}  // namespace

double EvalResult::perplexity() const { return std::exp(nll); }

namespace {

/// Computes the hidden states of a batch of windows. @return [tokens of the batch, hidden]
using HiddenOf = std::function<Matrix(std::span<const TokenId> batch)>;

EvalResult evaluate_batches(const Model& model, std::span<const TokenId> windows, std::int64_t context,
                            std::int64_t batch_windows, const HiddenOf& hidden_of) {
    EvalResult result;
    result.context = context;
    result.windows = static_cast<std::int64_t>(windows.size()) / context;
    result.tokens = result.windows * (context - 1);
    double sum = 0;
    for_each_batch(windows, context, batch_windows, [&](std::span<const TokenId> batch) {
        const Matrix hidden = hidden_of(batch);
        std::vector<double> losses(batch.size());
        for (std::int64_t first = 0; first < hidden.rows(); first += rows_per_block(model)) {
            const std::int64_t rows = std::min(rows_per_block(model), hidden.rows() - first);
            const Matrix block = logits(model, hidden.middleRows(first, rows));
            parallel_for(rows, [&](std::int64_t row, std::vector<float>&) {
                const std::int64_t position = first + row;
                if (!is_scored(position, context)) return;
                const TokenId next = batch[static_cast<std::size_t>(position + 1)];
                losses[static_cast<std::size_t>(position)] =
                    log_sum_exp(block.row(row).data(), block.cols()) - block(row, next);
            });
        }
        for (const double loss : losses) sum += loss;
    });
    result.nll = sum / static_cast<double>(result.tokens);
    check_finite(result.nll, model);
    return result;
}

}  // namespace

EvalResult evaluate(const Model& model, std::span<const TokenId> windows, std::int64_t context, Observer& observer) {
    return evaluate_batches(model, windows, context, windows_per_batch(model, context),
                            [&](std::span<const TokenId> batch) { return prefill(model, batch, context, observer); });
}

EvalResult evaluate(const Model& model, std::span<const TokenId> windows, std::int64_t context,
                    const KvCacheOptions& cache, Observer& observer) {
    const std::int64_t count = static_cast<std::int64_t>(windows.size()) / context;
    SessionOptions options;
    options.cache = cache;
    options.capacity = context;
    options.sequences = std::clamp<std::int64_t>(kCachedTokens / context, 1, std::max<std::int64_t>(1, count));
    Session session(model, options);
    std::int64_t done = 0;
    return evaluate_batches(model, windows, context, options.sequences, [&](std::span<const TokenId> batch) {
        observer.step("eval", done, count);
        std::vector<Piece> pieces;
        for (std::size_t first = 0; first < batch.size(); first += static_cast<std::size_t>(context)) {
            const auto sequence = static_cast<std::int64_t>(pieces.size());
            session.clear(sequence);
            pieces.push_back({sequence, batch.subspan(first, static_cast<std::size_t>(context))});
        }
        done += static_cast<std::int64_t>(pieces.size());
        return session.advance(pieces);
    });
}

VerifyResult verify(const Model& original, const Model& converted, std::span<const TokenId> windows,
                    std::int64_t context, Observer& observer) {
    if (original.config.vocab_size != converted.config.vocab_size) {
        throw Error(ErrorCode::usage, "the checkpoints have vocabularies of " +
                                          std::to_string(original.config.vocab_size) + " and " +
                                          std::to_string(converted.config.vocab_size) +
                                          " tokens; the second must be a conversion of the first");
    }
    struct Row {
        double nll_original = 0, nll_converted = 0, kl = 0, difference = 0;
    };
    VerifyResult result;
    result.context = context;
    result.windows = static_cast<std::int64_t>(windows.size()) / context;
    result.tokens = result.windows * (context - 1);
    const std::int64_t batch_windows =
        std::min(windows_per_batch(original, context), windows_per_batch(converted, context));
    for_each_batch(windows, context, batch_windows, [&](std::span<const TokenId> batch) {
        const Matrix hidden_p = prefill(original, batch, context, observer);
        const Matrix hidden_q = prefill(converted, batch, context, observer);
        std::vector<Row> scored(batch.size());
        for (std::int64_t first = 0; first < hidden_p.rows(); first += rows_per_block(original)) {
            const std::int64_t rows = std::min(rows_per_block(original), hidden_p.rows() - first);
            const Matrix p = logits(original, hidden_p.middleRows(first, rows));
            const Matrix q = logits(converted, hidden_q.middleRows(first, rows));
            parallel_for(rows, [&](std::int64_t row, std::vector<float>&) {
                const std::int64_t position = first + row;
                if (!is_scored(position, context)) return;
                const double norm_p = log_sum_exp(p.row(row).data(), p.cols());
                const double norm_q = log_sum_exp(q.row(row).data(), q.cols());
                Row& out = scored[static_cast<std::size_t>(position)];
                const auto log_p = p.row(row).cast<double>().array() - norm_p;
                const auto log_q = q.row(row).cast<double>().array() - norm_q;
                out.kl = (log_p.exp() * (log_p - log_q)).sum();
                out.difference = (p.row(row) - q.row(row)).cwiseAbs().maxCoeff();
                const TokenId next = batch[static_cast<std::size_t>(position + 1)];
                out.nll_original = norm_p - p(row, next);
                out.nll_converted = norm_q - q(row, next);
            });
        }
        for (const Row& row : scored) {
            result.nll_original += row.nll_original;
            result.nll_converted += row.nll_converted;
            result.mean_kl += row.kl;
            result.max_logit_difference = std::max(result.max_logit_difference, row.difference);
        }
    });
    const auto tokens = static_cast<double>(result.tokens);
    result.nll_original /= tokens;
    result.nll_converted /= tokens;
    result.mean_kl = std::max(0.0, result.mean_kl / tokens);
    check_finite(result.nll_original, original);
    check_finite(result.nll_converted, converted);
    return result;
}

}  // namespace mha2mla

#include "mha2mla/choices.hpp"

#include <algorithm>
#include <cmath>

#include "../linalg/elementwise.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/runtime.hpp"

namespace mha2mla {
namespace {

constexpr std::size_t kChoicesAtOnce = 32;  // of one question; each has a cache of its own

/// A query with one choice. The tokens from `scored` on are scored.
struct Pair {
    std::vector<TokenId> ids;
    std::size_t scored = 0;
};

/// Pairs that begin alike: `shared` is processed once, `rest` once per pair. The last token of `shared` predicts the
/// first token of each `rest`.
struct Question {
    std::vector<TokenId> shared;
    std::vector<std::vector<TokenId>> rest;
    std::vector<std::int64_t> unscored;  // per choice: tokens at the start of its `rest` that belong to the query
};

/// The pairs of a question. @param cut is set if the beginning of one was left out.
std::vector<Pair> tokenize(const Model& model, const Tokenizer& tokenizer, const ChoiceItem& item, bool& cut) {
    const std::size_t end = item.query.find_last_not_of(" \t\r\n") + 1;  // 0 if the query consists of white space
    const std::string query = item.query.substr(0, end);
    const auto& bos = model.config.bos_token_id;
    std::vector<TokenId> alone = tokenizer.encode(query, false);
    const auto positions = static_cast<std::size_t>(model.config.max_position_embeddings);
    std::vector<Pair> pairs;
    for (const auto& choice : item.choices) {
        Pair pair{tokenizer.encode(query + item.query.substr(end) + choice, false), 0};
        const std::string name = "choice " + std::to_string(pairs.size() + 1) + " ('" + choice + "')";
        if (pair.ids.empty() || (item.query.substr(end) + choice).empty()) {
            throw Error(ErrorCode::format, name + " has no tokens of its own; give every choice some text");
        }
        // Where the two merge into one token, that is the choice's.
        pair.scored = std::min(alone.size(), pair.ids.size() - 1);
        if (pair.scored == 0) {
            if (!bos) {
                throw Error(ErrorCode::format, name +
                                                   " has no tokens before it that predict it, and the model has no "
                                                   "bos_token_id; give a longer query");
            }
            pair.ids.insert(pair.ids.begin(), static_cast<TokenId>(*bos));
            pair.scored = 1;
        }
        const std::size_t scored = pair.ids.size() - pair.scored;
        if (scored > positions) {
            throw Error(ErrorCode::format, name + " has " + std::to_string(scored) +
                                               " tokens, but the model has only " + std::to_string(positions) +
                                               " positions (max_position_embeddings)");
        }
        // The last token is predicted, but not read.
        if (pair.ids.size() > positions + 1) {
            const std::size_t left_out = pair.ids.size() - positions - 1;
            pair.ids.erase(pair.ids.begin(), pair.ids.begin() + static_cast<std::ptrdiff_t>(left_out));
            pair.scored -= left_out;
            cut = true;
        }
        pairs.push_back(std::move(pair));
    }
    return pairs;
}

/// How many tokens all pairs begin with, of those that are not scored.
std::size_t common_start(std::span<const Pair> pairs) {
    std::size_t common = pairs[0].scored;
    for (const Pair& pair : pairs) {
        common = std::min(common, pair.scored);
        const auto end = pairs[0].ids.begin() + static_cast<std::ptrdiff_t>(common);
        const auto differs = std::mismatch(pairs[0].ids.begin(), end, pair.ids.begin()).first;
        common = static_cast<std::size_t>(differs - pairs[0].ids.begin());
    }
    return common;
}

Question question_of(std::span<const Pair> pairs, std::size_t common) {
    const auto start = static_cast<std::ptrdiff_t>(common);
    Question question;
    question.shared.assign(pairs[0].ids.begin(), pairs[0].ids.begin() + start);
    for (const Pair& pair : pairs) {
        question.rest.emplace_back(pair.ids.begin() + start, pair.ids.end());
        question.unscored.push_back(static_cast<std::int64_t>(pair.scored - common));
    }
    return question;
}

/// The summed log-likelihood of every choice.
std::vector<double> score(const Model& model, const Question& question, const KvCacheOptions& cache) {
    SessionOptions options;
    options.cache = cache;
    options.sequences = static_cast<std::int64_t>(question.rest.size());
    std::vector<Piece> pieces;
    for (const auto& rest : question.rest) {
        // The prediction of a choice's last token is not needed.
        const std::span<const TokenId> seen = std::span(rest).first(rest.size() - 1);
        options.capacity = std::max(options.capacity, static_cast<std::int64_t>(question.shared.size() + seen.size()));
        pieces.push_back({static_cast<std::int64_t>(pieces.size()), seen});
    }
    Session session(model, options);
    const Piece shared{0, question.shared};
    const Matrix last = session.advance({&shared, 1}).bottomRows(1);
    for (std::int64_t i = 1; i < options.sequences; ++i) session.fork(0, i);
    const Matrix hidden = session.advance(pieces);
    std::vector<double> sums;
    Eigen::Index row = 0;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
        const auto& rest = question.rest[i];
        Matrix states(static_cast<Eigen::Index>(rest.size()), hidden.cols());
        states.row(0) = last;
        states.bottomRows(states.rows() - 1) = hidden.middleRows(row, states.rows() - 1);
        row += states.rows() - 1;
        const Matrix scores = logits(model, states);
        double sum = 0;
        for (Eigen::Index t = question.unscored[i]; t < scores.rows(); ++t) {
            sum += scores(t, rest[static_cast<std::size_t>(t)]) - log_sum_exp(scores.row(t).data(), scores.cols());
        }
        sums.push_back(sum);
    }
    return sums;
}

/// The same of pairs that may not begin alike.
std::vector<double> score(const Model& model, std::span<const Pair> pairs, const KvCacheOptions& cache) {
    const std::size_t common = common_start(pairs);
    const std::size_t at_once = common > 0 ? kChoicesAtOnce : 1;
    std::vector<double> sums;
    for (std::size_t i = 0; i < pairs.size(); i += at_once) {
        const auto some = pairs.subspan(i, std::min(at_once, pairs.size() - i));
        const auto scores = score(model, question_of(some, common > 0 ? common : some[0].scored), cache);
        sums.insert(sums.end(), scores.begin(), scores.end());
    }
    return sums;
}

/// The number of characters of a choice without a leading space, counted as bytes that start a UTF-8 character.
double characters(const std::string& choice) {
    const auto count = std::count_if(choice.begin(), choice.end(),
                                     [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; });
    return static_cast<double>(std::max<std::ptrdiff_t>(1, count - (choice.starts_with(' ') ? 1 : 0)));
}

Accuracy accuracy(std::int64_t right, std::int64_t items) {
    const double p = static_cast<double>(right) / static_cast<double>(items);
    return {p, items > 1 ? std::sqrt(p * (1 - p) / static_cast<double>(items - 1)) : 0};
}

}  // namespace

ChoiceResult score_choices(const Model& model, const Tokenizer& tokenizer, std::span<const ChoiceItem> items,
                           const KvCacheOptions& cache, Observer& observer) {
    if (items.empty()) throw Error(ErrorCode::usage, "there are no questions");
    ChoiceResult result;
    result.items = static_cast<std::int64_t>(items.size());
    std::int64_t right = 0;
    std::int64_t right_normalized = 0;
    for (std::size_t i = 0; i < items.size(); ++i) {
        observer.step("choices", static_cast<std::int64_t>(i), result.items);
        std::vector<Pair> pairs;
        bool cut = false;
        try {
            pairs = tokenize(model, tokenizer, items[i], cut);
        } catch (const Error& error) {
            throw error.with_prefix("question " + std::to_string(i + 1) + ": ");
        }
        result.truncated += cut ? 1 : 0;
        auto sums = score(model, pairs, cache);
        auto normalized = sums;
        for (std::size_t c = 0; c < sums.size(); ++c) {
            if (!std::isfinite(sums[c])) {
                throw Error(ErrorCode::numeric, "question " + std::to_string(i + 1) + ": a log-likelihood is not " +
                                                    "finite; the checkpoint holds NaN or infinite weights");
            }
            normalized[c] /= characters(items[i].choices[c]);
            result.tokens += static_cast<std::int64_t>(pairs[c].ids.size() - pairs[c].scored);
        }
        const auto winner = [](const std::vector<double>& scores) {
            return std::max_element(scores.begin(), scores.end()) - scores.begin();
        };
        right += winner(sums) == items[i].gold ? 1 : 0;
        right_normalized += winner(normalized) == items[i].gold ? 1 : 0;
        result.choices += static_cast<std::int64_t>(sums.size());
        result.log_likelihoods.push_back(std::move(sums));
    }
    if (result.truncated > 0) {
        observer.warn(std::to_string(result.truncated) + " of " + std::to_string(result.items) +
                      " questions are longer than the model's " + std::to_string(model.config.max_position_embeddings) +
                      " positions (max_position_embeddings); their beginnings were left out, as lm-eval does");
    }
    result.summed = accuracy(right, result.items);
    result.normalized = accuracy(right_normalized, result.items);
    return result;
}

}  // namespace mha2mla

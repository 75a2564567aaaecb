#include "mha2mla/choices.hpp"

#include <algorithm>
#include <cmath>

#include "log_softmax.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/runtime.hpp"

namespace mha2mla {
namespace {

/// The tokens of a question: `shared` is processed once, `rest` once per choice. The last token of `shared` predicts
/// the first token of each `rest`.
struct Question {
    std::vector<TokenId> shared;
    std::vector<std::vector<TokenId>> rest;
    std::vector<std::int64_t> unscored;  // per choice: tokens at the start of its `rest` that belong to the query
};

Question tokenize(const Model& model, const Tokenizer& tokenizer, const ChoiceItem& item) {
    const std::size_t end = item.query.find_last_not_of(" \t\r\n") + 1;  // 0 if the query consists of white space
    const std::string query = item.query.substr(0, end);
    std::vector<TokenId> start;
    if (model.config.bos_token_id && query.empty()) start.push_back(static_cast<TokenId>(*model.config.bos_token_id));
    const auto encode = [&](const std::string& text) {
        auto ids = tokenizer.encode(text, false);
        ids.insert(ids.begin(), start.begin(), start.end());
        return ids;
    };
    const auto alone = encode(query);
    if (alone.empty()) throw Error(ErrorCode::format, "the query is empty, and the model has no bos_token_id");
    Question question;
    std::vector<std::vector<TokenId>> whole;
    std::size_t common = alone.size();
    for (const auto& choice : item.choices) {
        whole.push_back(encode(query + item.query.substr(end) + choice));
        auto& ids = whole.back();
        if (ids.size() <= alone.size()) {  // one token with the query's last word: encoded by itself then
            const auto own = tokenizer.encode(item.query.substr(end) + choice, false);
            ids = alone;
            ids.insert(ids.end(), own.begin(), own.end());
        }
        if (ids.size() <= alone.size()) {
            throw Error(ErrorCode::format, "choice " + std::to_string(whole.size()) + " ('" + choice +
                                               "') has no tokens of its own; give every choice some text");
        }
        // A choice may change the last tokens of the query, because the two are tokenised as one text.
        const auto differs = std::mismatch(alone.begin(), alone.end(), ids.begin()).first - alone.begin();
        common = std::min(common, static_cast<std::size_t>(differs));
    }
    common = std::max<std::size_t>(common, 1);
    question.shared.assign(whole[0].begin(), whole[0].begin() + static_cast<std::ptrdiff_t>(common));
    for (const auto& ids : whole) {
        question.rest.emplace_back(ids.begin() + static_cast<std::ptrdiff_t>(common), ids.end());
        question.unscored.push_back(static_cast<std::int64_t>(alone.size() - common));
        if (static_cast<std::int64_t>(ids.size()) > model.config.max_position_embeddings) {
            throw Error(ErrorCode::format, "query and choice have " + std::to_string(ids.size()) +
                                               " tokens, but the model has only " +
                                               std::to_string(model.config.max_position_embeddings) +
                                               " positions (max_position_embeddings)");
        }
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
            sum += scores(t, rest[static_cast<std::size_t>(t)]) - log_sum_exp(scores.row(t));
        }
        sums.push_back(sum);
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
        Question question;
        try {
            question = tokenize(model, tokenizer, items[i]);
        } catch (const Error& error) {
            throw error.with_prefix("question " + std::to_string(i + 1) + ": ");
        }
        auto sums = score(model, question, cache);
        auto normalized = sums;
        for (std::size_t c = 0; c < sums.size(); ++c) {
            if (!std::isfinite(sums[c])) {
                throw Error(ErrorCode::numeric, "question " + std::to_string(i + 1) + ": a log-likelihood is not " +
                                                    "finite; the checkpoint holds NaN or infinite weights");
            }
            normalized[c] /= characters(items[i].choices[c]);
            result.tokens += static_cast<std::int64_t>(question.rest[c].size()) - question.unscored[c];
        }
        const auto winner = [](const std::vector<double>& scores) {
            return std::max_element(scores.begin(), scores.end()) - scores.begin();
        };
        right += winner(sums) == items[i].gold ? 1 : 0;
        right_normalized += winner(normalized) == items[i].gold ? 1 : 0;
        result.choices += static_cast<std::int64_t>(sums.size());
        result.log_likelihoods.push_back(std::move(sums));
    }
    result.summed = accuracy(right, result.items);
    result.normalized = accuracy(right_normalized, result.items);
    return result;
}

}  // namespace mha2mla

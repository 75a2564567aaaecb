/// The model `Unigram`: the pieces of a word whose scores have the greatest sum.

#include <algorithm>
#include <array>
#include <limits>

#include "byte_fallback.hpp"
#include "trie.hpp"
#include "utf8.hpp"
#include "word_model.hpp"

namespace mha2mla {
namespace {

constexpr double kUnknownPenalty = 10;  // below the lowest score

struct UnigramModel {
    UnigramModel(const JsonNode& node, TokenizerFile& file)
        : vocabulary(std::move(file.vocabulary)), scores(std::move(file.scores)), trie(vocabulary) {
        const JsonNode where = node.at("vocab");
        if (!file.has_scores) where.fail(ErrorCode::format, "must be an array of [name, score]");
        check_name_lengths(where, vocabulary);
        const auto size = static_cast<std::int64_t>(scores.size());
        if (const auto id = node.find("unk_id")) {
            if (size == 0) where.fail(ErrorCode::format, "is empty, but unk_id is given");
            unknown = static_cast<TokenId>(id->integer(0, size - 1));
        }
        for (const double score : scores) unknown_score = std::min(unknown_score, score - kUnknownPenalty);
        byte_ids.fill(-1);
        if (!node.boolean_or("byte_fallback", false)) return;
        for (unsigned byte = 0; byte < 256; ++byte) {
            byte_ids[byte] = vocabulary.id(byte_fallback::token(static_cast<unsigned char>(byte))).value_or(-1);
        }
    }

    Vocabulary vocabulary;
    std::vector<double> scores;  // by id
    Trie trie;
    TokenId unknown = -1;  // -1: there is none
    double unknown_score = std::numeric_limits<double>::infinity();
    std::array<TokenId, 256> byte_ids{};  // -1: missing, or not used
};

[[noreturn]] void fail_unknown() {
    throw Error(ErrorCode::format,
                "the text has a character that no piece of the tokenizer's model has, and model.unk_id is missing; add "
                "it to tokenizer.json");
}

class UnigramEncoder {
public:
    explicit UnigramEncoder(const UnigramModel& model) : model_(&model) {}

    void encode(std::string_view word, std::vector<TokenId>& ids) {
        find_best_pieces(word);
        cuts_.clear();
        for (std::size_t end = word.size(); end > 0; end -= best_[end].bytes) cuts_.push_back(end);
        // Unknown pieces that follow each other are one.
        std::size_t begin = 0;
        for (std::size_t i = cuts_.size(); i-- > 0;) {
            const bool is_unknown = best_[cuts_[i]].id == model_->unknown;
            if (is_unknown && i > 0 && best_[cuts_[i - 1]].id == model_->unknown) continue;
            if (is_unknown) {
                add_unknown(word.substr(begin, cuts_[i] - begin), ids);
            } else {
                ids.push_back(best_[cuts_[i]].id);
            }
            begin = cuts_[i];
        }
    }

private:
    /// The last piece of the best way to write the text before a place.
    struct Best {
        double score = 0;  // of the whole way
        std::uint32_t bytes = 0;
        TokenId id = -1;
    };

    void find_best_pieces(std::string_view word) {
        best_.assign(word.size() + 1, Best{});
        for (std::size_t at = 0; at < word.size();) {
            const std::size_t length = utf8::decode(word, at).length;
            bool has_character = false;
            std::uint32_t node = Trie::kRoot;
            for (std::size_t end = at; end < word.size();) {
                node = model_->trie.child(node, word[end++]);
                if (node == Trie::kNone) break;
                const TokenId id = model_->trie.id(node);
                if (id < 0) continue;
                offer(at, end, model_->scores[static_cast<std::size_t>(id)], id);
                has_character = has_character || end == at + length;
            }
            if (!has_character && offer(at, at + length, model_->unknown_score, model_->unknown) &&
                model_->unknown < 0) {
                fail_unknown();
            }
            at += length;
        }
    }

    /// Of pieces with the same score, the one that begins first is taken. @return whether it is the best so far.
    bool offer(std::size_t begin, std::size_t end, double score, TokenId id) {
        Best& best = best_[end];
        const double sum = score + best_[begin].score;
        if (best.bytes > 0 && !(sum > best.score)) return false;
        best = {sum, static_cast<std::uint32_t>(end - begin), id};
        return true;
    }

    void add_unknown(std::string_view text, std::vector<TokenId>& ids) const {
        // The text may be the name of the unknown token itself, or several of its characters another token.
        if (const auto id = model_->vocabulary.id(text)) return ids.push_back(*id);
        const auto byte_id = [&](char c) { return model_->byte_ids[static_cast<unsigned char>(c)]; };
        if (std::all_of(text.begin(), text.end(), [&](char c) { return byte_id(c) >= 0; })) {
            for (const char c : text) ids.push_back(byte_id(c));
        } else {
            ids.push_back(model_->unknown);
        }
    }

    const UnigramModel* model_;
    std::vector<Best> best_;         // by place
    std::vector<std::size_t> cuts_;  // ends of the pieces, the last one first
};

}  // namespace

WordModel parse_unigram(const JsonNode& node, TokenizerFile& file) {
    const auto model = std::make_shared<const UnigramModel>(node, file);
    return {std::shared_ptr<const Vocabulary>(model, &model->vocabulary), [model]() -> WordEncoder {
                return [encoder = UnigramEncoder(*model)](std::string_view word, std::vector<TokenId>& ids) mutable {
                    encoder.encode(word, ids);
                };
            }};
}

}  // namespace mha2mla

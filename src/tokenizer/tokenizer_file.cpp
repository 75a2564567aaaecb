#include "tokenizer_file.hpp"

#include <algorithm>
#include <optional>

#include "limits.hpp"

namespace mha2mla {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxDepth = 100;

class TokenizerReader final : public nlohmann::json_sax<json> {
public:
    TokenizerReader(TokenizerFile& out, std::string_view name) : out_(out), name_(name) {}

    bool null() override { return value(nullptr); }
    bool boolean(bool v) override { return value(v); }
    bool number_integer(number_integer_t v) override { return in_pair() ? score(static_cast<double>(v)) : value(v); }
    bool number_float(number_float_t v, const string_t&) override { return in_pair() ? score(v) : value(v); }
    bool binary(binary_t&) override { fail("", "has binary data"); }

    bool number_unsigned(number_unsigned_t v) override {
        if (in_pair()) return score(static_cast<double>(v));
        if (table_ != Table::vocab) return value(v);
        add_token(v);
        return true;
    }

    bool string(string_t& v) override {
        if (in_pair_) {
            pair_.push_back(std::move(v));
            return true;
        }
        if (table_ != Table::merges) return value(std::move(v));
        add_line(v);
        return true;
    }

    bool key(string_t& v) override {
        keys_.back() = std::move(v);
        return true;
    }

    bool start_object(std::size_t) override {
        if (table_ != Table::none) bad_entry();
        if (is_in_model("vocab")) {
            table_ = Table::vocab;
            out_.has_vocabulary = true;
            *place() = true;
            keys_.emplace_back();
            return true;
        }
        return open(json::object());
    }

    bool start_array(std::size_t) override {
        if ((table_ == Table::merges || table_ == Table::scores) && !in_pair_) {
            in_pair_ = true;
            pair_.clear();
            score_.reset();
            return true;
        }
        if (table_ != Table::none) bad_entry();
        if (is_in_model("vocab")) {
            table_ = Table::scores;
            out_.has_scores = true;
            *place() = true;
            return true;
        }
        if (is_in_model("merges")) {
            table_ = Table::merges;
            out_.has_merges = true;
            *place() = true;
            return true;
        }
        return open(json::array());
    }

    bool end_object() override {
        keys_.pop_back();
        if (table_ == Table::none) open_.pop_back();
        table_ = Table::none;
        return true;
    }

    bool end_array() override {
        if (in_pair_) {
            table_ == Table::merges ? add_pair() : add_piece();
            in_pair_ = false;
        } else if (table_ == Table::merges || table_ == Table::scores) {
            table_ = Table::none;
        } else {
            open_.pop_back();
            keys_.pop_back();
        }
        return true;
    }

    bool parse_error(std::size_t position, const std::string&, const json::exception&) override {
        fail("",
             "not valid JSON at byte " + std::to_string(position) + "; is the file complete, or a Git LFS pointer?");
    }

private:
    enum class Table { none, vocab, scores, merges };

    [[nodiscard]] bool in_pair() const { return table_ == Table::scores && in_pair_; }

    [[noreturn]] void fail(std::string_view key, const std::string& message) const {
        throw Error(ErrorCode::format, name_ + ": " + std::string(key) + (key.empty() ? "" : ": ") + message);
    }

    [[noreturn]] void bad_entry() const {
        if (table_ == Table::merges) {
            fail("model.merges",
                 "merge " + std::to_string(out_.merges.size()) + " must be \"left right\" or [left, right]");
        }
        if (table_ == Table::scores) {
            fail("model.vocab", "entry " + std::to_string(out_.scores.size()) + " must be [name, score]");
        }
        fail("model.vocab", "the id of " + in_quotes(keys_.back()) + " must be an integer from 0 to " +
                                std::to_string(out_.max_id) + ", which is the most for a file of its size");
    }

    /// Whether the next value is the member `key` of the file's member `model`.
    [[nodiscard]] bool is_in_model(std::string_view key) const {
        return open_.size() == 2 && keys_[0] == "model" && keys_[1] == key;
    }

    /// The place of the next value in `rest`.
    json* place() {
        if (open_.empty()) return &out_.rest;
        json& parent = *open_.back();
        return parent.is_array() ? &parent.emplace_back() : &parent[keys_.back()];
    }

    bool value(json v) {
        if (table_ != Table::none) bad_entry();
        *place() = std::move(v);
        return true;
    }

    bool open(json empty) {
        if (open_.size() >= kMaxDepth) fail("", "is nested deeper than " + std::to_string(kMaxDepth));
        json* const at = place();
        *at = std::move(empty);
        open_.push_back(at);
        keys_.emplace_back();
        return true;
    }

    void add_token(number_unsigned_t number) {
        if (number > static_cast<number_unsigned_t>(out_.max_id)) bad_entry();
        add_name(keys_.back(), static_cast<TokenId>(number));
    }

    void add_name(const std::string& token, TokenId id) {
        if (out_.vocabulary.add(token, id)) return;
        const auto other = out_.vocabulary.name(id);
        if (!other || *other == token) fail("model.vocab", in_quotes(token) + " appears twice");
        fail("model.vocab", in_quotes(token) + " and " + in_quotes(*other) + " both have the id " + std::to_string(id));
    }

    bool score(double score) {
        if (score_ || pair_.size() != 1) bad_entry();
        score_ = score;
        return true;
    }

    void add_piece() {
        if (pair_.size() != 1 || !score_) bad_entry();
        add_name(pair_[0], static_cast<TokenId>(out_.scores.size()));
        out_.scores.push_back(*score_);
    }

    void add_pair() {
        if (pair_.size() != 2) bad_entry();
        out_.merges.push_back({std::move(pair_[0]), std::move(pair_[1])});
    }

    void add_line(std::string_view line) {
        if (line.starts_with("#version")) return;
        const std::size_t space = line.find(' ');
        if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) bad_entry();
        out_.merges.push_back({std::string(line.substr(0, space)), std::string(line.substr(space + 1))});
    }

    TokenizerFile& out_;
    std::string name_;
    std::vector<json*> open_;        // the objects and arrays around the next value
    std::vector<std::string> keys_;  // the last key of each of them
    Table table_ = Table::none;
    bool in_pair_ = false;
    std::vector<std::string> pair_;
    std::optional<double> score_;  // of a piece
};

}  // namespace

TokenizerFile::TokenizerFile(std::string_view json_text, std::string_view name)
    : max_id(std::min(kMaxTokenId, kIdsBeyondFile + static_cast<std::int64_t>(json_text.size()))) {
    TokenizerReader reader(*this, name);
    json::sax_parse(json_text, &reader);
}

std::string other_tokenizer(const std::filesystem::path& tokenizer_json) {
    std::error_code ignored;
    if (!std::filesystem::exists(tokenizer_json.parent_path() / "tokenizer.model", ignored)) return {};
    return "; tokenizer.model is there: save it as tokenizer.json with transformers' save_pretrained";
}

}  // namespace mha2mla

#include "added_tokens.hpp"

#include <algorithm>

#include "limits.hpp"
#include "utf8.hpp"

namespace mha2mla {

std::uint32_t StringSet::child(std::uint32_t node, char byte) const {
    std::uint32_t at = nodes_[node].first_child;
    while (at != kNone && nodes_[at].byte != byte) at = nodes_[at].next_sibling;
    return at;
}

void StringSet::add(std::string_view text, std::uint32_t value) {
    begins_[static_cast<unsigned char>(text[0])] = true;
    std::uint32_t node = 0;
    for (const char byte : text) {
        std::uint32_t next = child(node, byte);
        if (next == kNone) {
            next = static_cast<std::uint32_t>(nodes_.size());
            nodes_.push_back({kNone, kNone, nodes_[node].first_child, byte});
            nodes_[node].first_child = next;
        }
        node = next;
    }
    if (nodes_[node].value == kNone) nodes_[node].value = value;
}

std::optional<StringSet::Hit> StringSet::find(std::string_view text, std::size_t from) const {
    for (std::size_t begin = from; begin < text.size(); ++begin) {
        if (!begins_[static_cast<unsigned char>(text[begin])]) continue;
        std::optional<Hit> longest;
        std::uint32_t node = 0;
        for (std::size_t end = begin; end < text.size();) {
            node = child(node, text[end++]);
            if (node == kNone) break;
            if (nodes_[node].value != kNone) longest = Hit{begin, end, nodes_[node].value};
        }
        if (longest) return longest;
    }
    return std::nullopt;
}

AddedTokens::AddedTokens(const JsonNode& root, std::int64_t max_id, const Vocabulary& vocabulary,
                         const Normalizer& normalizer) {
    const auto list = root.find("added_tokens");
    if (!list) return;
    for (const JsonNode& node : list->elements()) {
        AddedToken token;
        token.id = static_cast<TokenId>(node.at("id").integer(0, max_id));
        token.content = node.at("content").string();
        token.single_word = node.boolean_or("single_word", false);
        token.strips_left = node.boolean_or("lstrip", false);
        token.strips_right = node.boolean_or("rstrip", false);
        token.special = node.boolean_or("special", false);
        token.normalized = node.boolean_or("normalized", !token.special);
        if (!token.content.empty()) add(std::move(token), node, vocabulary);
    }
    // If several tokens have the same normalized form, the first special one is used.
    std::vector<std::uint32_t> order(tokens_.size());
    for (std::uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_partition(order.begin(), order.end(), [this](std::uint32_t i) { return tokens_[i].special; });
    for (const std::uint32_t i : order) {
        std::string pattern = tokens_[i].content;
        if (tokens_[i].normalized && normalizer) {
            Effort effort(pattern.size());
            normalizer(pattern, effort);
        }
        if (!pattern.empty()) (tokens_[i].normalized ? normalized_ : raw_).add(pattern, i);
    }
}

void AddedTokens::add(AddedToken token, const JsonNode& node, const Vocabulary& vocabulary) {
    const std::string shown = in_quotes(token.content) + " with the id " + std::to_string(token.id);
    if (token.content.size() > kMaxTokenBytes) {
        node.fail(ErrorCode::unsupported,
                  "added tokens longer than " + std::to_string(kMaxTokenBytes) + " bytes are not supported");
    }
    const auto model_id = vocabulary.id(token.content);
    if (model_id && *model_id != token.id) {
        node.fail(ErrorCode::format,
                  shown + " has the id " + std::to_string(*model_id) + " in model.vocab; make them agree");
    }
    const auto model_name = vocabulary.name(token.id);
    if (model_name && *model_name != token.content) {
        node.fail(ErrorCode::format, shown + " takes the id of " + in_quotes(*model_name) + " in model.vocab");
    }
    if (!names_.add(token.content, token.id)) {
        node.fail(ErrorCode::format, shown + " repeats the id or the content of an added token before it");
    }
    if (token.special) special_.insert(token.content);
    tokens_.push_back(std::move(token));
}

std::vector<Segment> AddedTokens::split(std::string_view text, const StringSet& set) const {
    std::vector<Segment> out;
    std::size_t done = 0;  // everything before this position is in `out`
    std::size_t from = 0;
    while (const auto hit = set.find(text, from)) {
        from = hit->end;
        const AddedToken& token = tokens_[hit->value];
        const std::string_view before = text.substr(0, hit->begin);
        const std::string_view after = text.substr(hit->end);
        if (token.single_word && (utf8::ends_with_word(before) || utf8::starts_with_word(after))) continue;

        std::size_t begin = hit->begin;
        std::size_t end = hit->end;
        // White space that belongs to the preceding token stays with it.
        if (token.strips_left) begin = std::max(utf8::trailing_white_space(before), done);
        if (token.strips_right) end += utf8::leading_white_space(after);
        if (begin > done) out.push_back({done, begin, std::nullopt});
        out.push_back({begin, end, token.id});
        done = end;
    }
    if (done < text.size()) out.push_back({done, text.size(), std::nullopt});
    return out;
}

}  // namespace mha2mla

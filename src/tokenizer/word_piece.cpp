/// The models `WordPiece`, which takes the longest token at each place of a word, and `WordLevel`, whose tokens are
/// words.

#include <limits>

#include "trie.hpp"
#include "utf8.hpp"
#include "word_model.hpp"

namespace mha2mla {
namespace {

struct WordPieceModel {
    WordPieceModel(const JsonNode& node, TokenizerFile& file)
        : vocabulary(std::move(file.vocabulary)),
          trie(vocabulary),
          unknown_name(node.at("unk_token").string()),
          inside(trie.descendant(Trie::kRoot, node.at("continuing_subword_prefix").string())),
          max_characters(static_cast<std::size_t>(
              node.at("max_input_chars_per_word").integer(0, std::numeric_limits<std::int64_t>::max()))) {
        check_name_lengths(node.at("vocab"), vocabulary);
    }

    void encode(std::string_view word, std::vector<TokenId>& ids) const {
        const std::size_t before = ids.size();
        std::size_t characters = 0;
        for (const char c : word) characters += (static_cast<unsigned char>(c) & 0xC0) != 0x80 ? 1 : 0;
        bool is_known = characters <= max_characters;
        for (std::size_t at = 0; is_known && at < word.size();) {
            std::size_t longest = at;
            TokenId id = -1;
            std::uint32_t node = at == 0 ? Trie::kRoot : inside;
            for (std::size_t end = at; node != Trie::kNone && end < word.size();) {
                node = trie.child(node, word[end++]);
                if (node == Trie::kNone || trie.id(node) < 0) continue;
                longest = end;
                id = trie.id(node);
            }
            is_known = id >= 0;
            if (is_known) ids.push_back(id);
            at = longest;
        }
        if (is_known) return;
        ids.resize(before);
        ids.push_back(unknown());
    }

    [[nodiscard]] TokenId unknown() const {
        if (const auto id = vocabulary.id(unknown_name)) return *id;
        throw Error(ErrorCode::format, "the text has a word that the tokenizer does not know, and its unk_token " +
                                           in_quotes(unknown_name) + " is not in model.vocab");
    }

    Vocabulary vocabulary;
    Trie trie;
    std::string unknown_name;
    std::uint32_t inside;  // the node of the prefix of all tokens of a word but the first
    std::size_t max_characters;
};

struct WordLevelModel {
    WordLevelModel(const JsonNode& node, TokenizerFile& file)
        : vocabulary(std::move(file.vocabulary)), unknown_name(node.at("unk_token").string()) {}

    void encode(std::string_view word, std::vector<TokenId>& ids) const {
        auto id = vocabulary.id(word);
        if (!id) id = vocabulary.id(unknown_name);
        if (id) return ids.push_back(*id);
        throw Error(ErrorCode::format, "the text has the word " + in_quotes(word) +
                                           ", which is not in model.vocab, and neither is the tokenizer's unk_token " +
                                           in_quotes(unknown_name));
    }

    Vocabulary vocabulary;
    std::string unknown_name;
};

template <typename Model>
WordModel parse(const JsonNode& node, TokenizerFile& file) {
    check_vocabulary(node, file);
    const auto model = std::make_shared<const Model>(node, file);
    return {std::shared_ptr<const Vocabulary>(model, &model->vocabulary), [model]() -> WordEncoder {
                return [&model = *model](std::string_view word, std::vector<TokenId>& ids) { model.encode(word, ids); };
            }};
}

}  // namespace

WordModel parse_word_piece(const JsonNode& node, TokenizerFile& file) { return parse<WordPieceModel>(node, file); }

WordModel parse_word_level(const JsonNode& node, TokenizerFile& file) { return parse<WordLevelModel>(node, file); }

}  // namespace mha2mla

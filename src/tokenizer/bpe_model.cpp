#include "bpe_model.hpp"

#include <nlohmann/json.hpp>

#include "bpe_encoder.hpp"
#include "byte_fallback.hpp"
#include "utf8.hpp"
#include "word_model.hpp"

namespace mha2mla {

CharacterIds::CharacterIds(const Vocabulary& vocabulary) {
    direct_.fill(-1);
    vocabulary.for_each([this](std::string_view name, TokenId id) {
        if (name.empty() || name.size() > 4) return;
        const utf8::CodePoint c = utf8::decode(name, 0);
        if (c.length != name.size()) return;
        if (c.value < direct_.size()) {
            direct_[c.value] = id;
        } else {
            others_.emplace(c.value, id);
        }
    });
}

namespace {

void check_model(const JsonNode& node, const TokenizerFile& file) {
    check_vocabulary(node, file);
    if (const JsonNode merges = node.at("merges"); !file.has_merges) {
        merges.fail(ErrorCode::format, "must be an array");
    }
    if (const auto dropout = node.find("dropout")) {
        if (!dropout->value().is_number()) dropout->fail(ErrorCode::format, "must be a number or null");
        if (dropout->value().get<double>() != 0.0) {
            dropout->fail(ErrorCode::unsupported, "random merges are not supported; set it to null");
        }
    }
}

}  // namespace

BpeModel::BpeModel(const JsonNode& node, TokenizerFile& file)
    : vocabulary(std::move(file.vocabulary)), characters(vocabulary) {
    check_model(node, file);
    fuse_unknown = node.boolean_or("fuse_unk", false);
    ignore_merges = node.boolean_or("ignore_merges", false);
    byte_fallback = node.boolean_or("byte_fallback", false);
    prefix = node.string_or("continuing_subword_prefix", "");
    suffix = node.string_or("end_of_word_suffix", "");
    if (const auto name = node.find("unk_token")) {
        // The unknown token may be missing from the vocabulary if no text needs it.
        unknown_name = name->string();
        unknown = vocabulary.id(*unknown_name);
    }
    for (unsigned byte = 0; byte < 256; ++byte) {
        byte_ids[byte] = vocabulary.id(byte_fallback::token(static_cast<unsigned char>(byte))).value_or(-1);
    }
    merges.reserve(file.merges.size());
    ranks.reserve(file.merges.size());
    const JsonNode where = node.at("merges");
    for (const auto& [left, right] : file.merges) add_merge(left, right, where);
}

void BpeModel::add_merge(std::string_view left, std::string_view right, const JsonNode& node) {
    const auto id_of = [&](std::string_view name) {
        const auto id = vocabulary.id(name);
        if (!id) {
            node.fail(ErrorCode::format, "merge " + std::to_string(merges.size()) + " of " + in_quotes(left) + " and " +
                                             in_quotes(right) + " needs the token " + in_quotes(name) +
                                             ", which is not in model.vocab; are both from one tokenizer?");
        }
        return *id;
    };
    if (right.size() < prefix.size()) node.fail(ErrorCode::format, in_quotes(right) + " is shorter than the prefix");
    const Merge merge{id_of(left), id_of(right), id_of(std::string(left).append(right.substr(prefix.size())))};
    ranks.set(merge.left, merge.right, static_cast<std::uint32_t>(merges.size()));
    merges.push_back(merge);
    if (!has_affixes()) add_seams(left, right);
}

/// The name of a token is the concatenation of its input symbols, each of which is a character, a byte token or the
/// unknown token. So the names of a merge determine the symbols on either side of its boundary.
void BpeModel::add_seams(std::string_view left, std::string_view right) {
    std::array<TokenId, 3> before{-1, -1, -1};
    std::array<TokenId, 3> after{-1, -1, -1};
    if (!left.empty()) {
        std::size_t at = left.size() - 1;
        while (at > 0 && (static_cast<unsigned char>(left[at]) & 0xC0) == 0x80) --at;
        before[0] = characters.find(utf8::decode(left, at).value);
    }
    if (!right.empty()) after[0] = characters.find(utf8::decode(right, 0).value);
    if (byte_fallback) {
        const auto byte_before = byte_fallback::parse(left.substr(left.size() - std::min<std::size_t>(left.size(), 6)));
        const auto byte_after = byte_fallback::parse(right.substr(0, 6));
        if (byte_before) before[1] = byte_ids[*byte_before];
        if (byte_after) after[1] = byte_ids[*byte_after];
    }
    if (unknown && left.ends_with(*unknown_name)) before[2] = *unknown;
    if (unknown && right.starts_with(*unknown_name)) after[2] = *unknown;
    for (const TokenId l : before) {
        for (const TokenId r : after) {
            if (l >= 0 && r >= 0) seams.set(l, r, 0);
        }
    }
}

WordModel parse_bpe(const JsonNode& node, TokenizerFile& file) {
    const auto model = std::make_shared<const BpeModel>(node, file);
    return {std::shared_ptr<const Vocabulary>(model, &model->vocabulary), [model]() -> WordEncoder {
                return [encoder = BpeEncoder(*model)](std::string_view word, std::vector<TokenId>& ids) mutable {
                    encoder.encode(word, ids);
                };
            }};
}

}  // namespace mha2mla

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "../tokenizer/utf8.hpp"
#include "import_parts.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/tokenizer.hpp"
#include "pre_tokenizers.hpp"

namespace mha2mla {
namespace {

using Json = nlohmann::json;  // ordered_json would be slow with so many tokens

/// As in a file.
constexpr std::int64_t kNormalToken = 1, kControlToken = 3, kUserToken = 4, kUnusedToken = 5;

struct TokenTable {
    std::vector<std::string_view> names;
    std::vector<std::int64_t> kinds;
    std::optional<std::int64_t> bos, eos, unknown, pad;

    [[nodiscard]] std::optional<std::string> name(const std::optional<std::int64_t>& id) const {
        if (!id || *id < 0 || *id >= static_cast<std::int64_t>(names.size())) return std::nullopt;
        return std::string(names[static_cast<std::size_t>(*id)]);
    }
};

Json vocabulary_of(const TokenTable& table) {
    Json vocabulary = Json::object();
    for (std::size_t id = 0; id < table.names.size(); ++id) {
        if (table.kinds[id] != kUnusedToken) vocabulary[std::string(table.names[id])] = id;
    }
    return vocabulary;
}

Json added_tokens_of(const TokenTable& table) {
    Json added = Json::array();
    for (std::size_t id = 0; id < table.names.size(); ++id) {
        if (table.kinds[id] != kControlToken && table.kinds[id] != kUserToken) continue;
        added.push_back({{"id", id},
                         {"content", std::string(table.names[id])},
                         {"single_word", false},
                         {"lstrip", false},
                         {"rstrip", false},
                         {"normalized", false},
                         {"special", table.kinds[id] == kControlToken}});
    }
    return added;
}

/// Puts special tokens around a text.
Json post_processor_of(const TokenTable& table, bool starts, bool ends) {
    const auto special = [](const std::string& name, int type) {
        return Json{{"SpecialToken", {{"id", name}, {"type_id", type}}}};
    };
    Json single = Json::array(), pair = Json::array(), tokens = Json::object();
    const auto add = [&](const std::optional<std::int64_t>& id, bool given) {
        const auto name = table.name(id);
        if (!given || !name) return;
        tokens[*name] = {{"id", *name}, {"ids", {*id}}, {"tokens", {*name}}};
        single.push_back(special(*name, 0));
    };
    add(table.bos, starts);
    single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
    add(table.eos, ends);
    if (tokens.empty()) return nullptr;
    for (const int type : {0, 1}) {
        for (Json step : single) {
            step.front()["type_id"] = type;
            if (type == 1 && step.contains("Sequence")) step["Sequence"]["id"] = "B";
            pair.push_back(std::move(step));
        }
    }
    return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", tokens}};
}

Json model_of(const TokenTable& table, Json merges, bool byte_fallback, bool ignore_merges) {
    const auto unknown = byte_fallback ? table.name(table.unknown) : std::nullopt;
    return {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", unknown ? Json(*unknown) : Json()},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", byte_fallback},
            {"byte_fallback", byte_fallback},
            {"ignore_merges", ignore_merges},
            {"vocab", vocabulary_of(table)},
            {"merges", std::move(merges)}};
}

Json byte_level(const GgufFile& file, const TokenTable& table, const NamedPreTokenizer& pre) {
    Json merges = Json::array();
    for (const std::string_view merge : file.texts("tokenizer.ggml.merges")) merges.push_back(std::string(merge));
    const Json step = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
    return {{"normalizer", nullptr},
            {"pre_tokenizer", pre.pre_tokenizer},
            {"decoder", step},
            {"model", model_of(table, std::move(merges), false, pre.ignore_merges)}};
}

Json with_byte_fallback(const GgufFile& file, const TokenTable& table) {
    const bool prefix = file.flag("tokenizer.ggml.add_space_prefix").value_or(true);
    Json normalizers = Json::array(), merges = Json::array();
    if (prefix) normalizers.push_back({{"type", "Prepend"}, {"prepend", "▁"}});
    normalizers.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}});
    Json decoders = {{{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}},
                     {{"type", "ByteFallback"}},
                     {{"type", "Fuse"}}};
    if (prefix) decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
    for (const auto& [left, right] :
         merges_of_scores(table.names, file.numbers("tokenizer.ggml.scores"), table.kinds)) {
        merges.push_back({left, right});
    }
    return {{"normalizer", {{"type", "Sequence"}, {"normalizers", normalizers}}},
            {"pre_tokenizer", nullptr},
            {"decoder", {{"type", "Sequence"}, {"decoders", decoders}}},
            {"model", model_of(table, std::move(merges), true, false)}};
}

bool are_utf8(const std::vector<std::string_view>& texts) {
    return std::none_of(texts.begin(), texts.end(), [](auto text) { return utf8::find_invalid(text).has_value(); });
}

TokenTable table_of(const GgufFile& file) {
    TokenTable table;
    table.names = file.texts("tokenizer.ggml.tokens");
    table.kinds = file.integers("tokenizer.ggml.token_type");
    if (table.kinds.empty()) table.kinds.assign(table.names.size(), kNormalToken);
    if (table.kinds.size() != table.names.size()) {
        file.fail("tokenizer.ggml.token_type", "has another number of elements than tokenizer.ggml.tokens");
    }
    table.bos = file.integer("tokenizer.ggml.bos_token_id");
    table.eos = file.integer("tokenizer.ggml.eos_token_id");
    table.unknown = file.integer("tokenizer.ggml.unknown_token_id");
    table.pad = file.integer("tokenizer.ggml.padding_token_id");
    return table;
}

std::string config_of(const TokenTable& table, bool starts, bool ends) {
    Json config;
    config["tokenizer_class"] = "PreTrainedTokenizerFast";
    config["add_bos_token"] = starts;
    config["add_eos_token"] = ends;
    config["clean_up_tokenization_spaces"] = false;
    for (const auto& [key, id] : {std::pair{"bos_token", table.bos},
                                  {"eos_token", table.eos},
                                  {"unk_token", table.unknown},
                                  {"pad_token", table.pad}}) {
        if (const auto name = table.name(id)) config[key] = *name;
    }
    return config.dump(2) + "\n";
}

// Real vocabularies have a thousandth of this work and a twentieth of these bytes.
constexpr std::size_t kMostWork = 2'000'000'000, kMostMergeBytes = 32'000'000;

/// @throws Error{format} if finding merges, which takes the square of each token's length, would take too long
void check_work(const std::vector<std::string_view>& tokens, const std::vector<float>& scores) {
    std::size_t work = 0;
    for (const std::string_view token : tokens) {
        work += std::min(token.size(), kMostWork) * std::min(token.size(), kMostWork);
        if (work > kMostWork) throw Error(ErrorCode::format, "its tokens are too long to find merges of them");
    }
    if (!std::ranges::all_of(scores, [](float score) { return std::isfinite(score); })) {
        throw Error(ErrorCode::format, "its scores are not finite");
    }
}

}  // namespace

std::vector<std::pair<std::string, std::string>> merges_of_scores(const std::vector<std::string_view>& tokens,
                                                                  const std::vector<float>& scores,
                                                                  const std::vector<std::int64_t>& kinds) {
    struct Merge {
        float score;
        std::size_t left, right, split, token;
    };
    check_work(tokens, scores);
    std::unordered_map<std::string_view, std::size_t> ids;
    for (std::size_t id = 0; id < tokens.size(); ++id) {
        if (kinds[id] == kNormalToken) ids.emplace(tokens[id], id);
    }
    std::vector<Merge> merges;
    std::size_t bytes = 0;
    for (std::size_t id = 0; id < std::min(tokens.size(), scores.size()); ++id) {
        if (kinds[id] != kNormalToken) continue;
        for (std::size_t split = 1; split < tokens[id].size(); ++split) {
            const auto left = ids.find(tokens[id].substr(0, split));
            if (left == ids.end()) continue;
            const auto right = ids.find(tokens[id].substr(split));
            if (right == ids.end()) continue;
            merges.push_back({scores[id], left->second, right->second, split, id});
            bytes += tokens[id].size();
            if (bytes > kMostMergeBytes) {
                throw Error(ErrorCode::format, "its tokens can be made of one another in too many ways");
            }
        }
    }
    std::sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
        return std::tuple(-a.score, a.left, a.right) < std::tuple(-b.score, b.left, b.right);
    });
    std::vector<std::pair<std::string, std::string>> pairs;
    for (const Merge& merge : merges) {
        pairs.emplace_back(tokens[merge.token].substr(0, merge.split), tokens[merge.token].substr(merge.split));
    }
    return pairs;
}

ImportedTokenizer imported_tokenizer(const GgufFile& file, Observer& observer) {
    ImportedTokenizer to;
    to.chat_template = file.text("tokenizer.chat_template").value_or("");
    const std::string_view model = file.text("tokenizer.ggml.model").value_or("none");
    const std::string pre(file.text("tokenizer.ggml.pre").value_or("default"));
    const auto without = [&](const std::string& why) {
        observer.warn(file.path().string() + ": " + why + "; no tokenizer.json is written: take that of the model");
        return to;
    };
    const TokenTable table = table_of(file);
    if (!are_utf8(table.names) || !are_utf8(file.texts("tokenizer.ggml.merges")))
        return without("tokens are not UTF-8");
    Json tokenizer;
    bool starts = model == "llama";
    if (model == "llama") {
        try {
            tokenizer = with_byte_fallback(file, table);
        } catch (const Error& error) {
            if (error.code() != ErrorCode::format) throw;
            return without(std::string(error.message()));
        }
        to.what = "BPE with byte fallback, as Llama 2";
    } else if (model == "gpt2") {
        const auto known = named_pre_tokenizer(pre);
        if (!known) return without("the pre-tokenizer '" + pre + "' is not known");
        tokenizer = byte_level(file, table, *known);
        starts = known->adds_bos;
        to.what = "byte-level BPE, words as " + pre;
    } else {
        return without("the vocabulary is '" + std::string(model) + "'");
    }
    starts = file.flag("tokenizer.ggml.add_bos_token").value_or(starts);
    const bool ends = file.flag("tokenizer.ggml.add_eos_token").value_or(false);
    tokenizer["version"] = "1.0";
    tokenizer["added_tokens"] = added_tokens_of(table);
    tokenizer["post_processor"] = post_processor_of(table, starts, ends);
    std::string text = tokenizer.dump();
    try {
        (void)Tokenizer::parse(text, "its vocabulary");  // refuses names, ids and merges that do not fit
    } catch (const Error& error) {
        to.what = "none";
        return without(error.what());
    }
    to.tokenizer = std::move(text);
    to.tokenizer_config = config_of(table, starts, ends);
    return to;
}

}  // namespace mha2mla

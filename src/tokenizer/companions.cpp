#include "companions.hpp"

#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_set>

#include "../support/json_file.hpp"
#include "json_node.hpp"

namespace mha2mla {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

/// The object in a file, or nothing if the file is not there.
json optional_object(const fs::path& path) {
    std::error_code ignored;
    if (!fs::exists(path, ignored)) return nullptr;
    json object = read_json_file(path);
    if (!object.is_object()) throw Error(ErrorCode::format, path.string() + ": must be an object");
    return object;
}

/// The text of a special token, which is a string or an object with `content`; empty if there is none.
std::string special_token(const json& config, const std::string& key) {
    if (!config.is_object()) return "";
    const auto found = config.find(key);
    if (found == config.end()) return "";
    const json& content = found->is_object() ? found->value("content", json()) : *found;
    return content.is_string() ? content.get<std::string>() : "";
}

/// An id written as the key of an object.
std::int64_t id_of_key(const JsonNode& node, std::int64_t max_id) {
    const std::string_view key = node.key();
    std::int64_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 || id > max_id) {
        node.fail(ErrorCode::format, "the key must be an id from 0 to " + std::to_string(max_id));
    }
    return id;
}

/// The tokens of both files by id, in the form of tokenizer.json.
std::map<std::int64_t, json> tokens_beside(const json& config, const fs::path& directory, std::int64_t max_id) {
    std::map<std::int64_t, json> tokens;
    if (config.is_object() && config.contains("added_tokens_decoder")) {
        const JsonNode root(config, (directory / "tokenizer_config.json").string());
        for (const JsonNode& node : root.at("added_tokens_decoder").members()) {
            (void)node.at("content").string();
            tokens.emplace(id_of_key(node, max_id), node.value());
        }
        return tokens;
    }
    const fs::path path = directory / "added_tokens.json";
    const json list = optional_object(path);
    if (list.is_null()) return tokens;
    std::unordered_set<std::string> special;
    for (const char* const kind :
         {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}) {
        special.insert(special_token(config, kind));
    }
    for (const auto& [content, id] : list.items()) {
        const json token = {{"content", content}, {"special", special.contains(content)}};
        if (!id.is_number_unsigned() || id.get<std::uint64_t>() > static_cast<std::uint64_t>(max_id)) {
            throw Error(ErrorCode::format, path.string() + ": the id of " + in_quotes(content) +
                                               " must be an integer from 0 to " + std::to_string(max_id));
        }
        tokens.emplace(id.get<std::int64_t>(), token);
    }
    return tokens;
}

void add_tokens(TokenizerFile& file, const json& config, const fs::path& directory) {
    json& list = file.rest["added_tokens"];
    if (list.is_null()) list = json::array();
    std::unordered_set<std::string> names;
    std::unordered_set<std::int64_t> ids;
    for (const json& token : list) {
        if (!token.is_object()) return;  // which the reader of added tokens will say
        names.insert(special_token(token, "content"));
        const auto id = token.find("id");
        if (id != token.end() && id->is_number_integer()) ids.insert(id->get<std::int64_t>());
    }
    for (auto& [id, token] : tokens_beside(config, directory, file.max_id)) {
        const std::string content = token.at("content").get<std::string>();
        if (content.empty() || names.contains(content) || ids.contains(id)) continue;
        const auto model_id = file.vocabulary.id(content);
        if (model_id ? *model_id != id : file.vocabulary.name(static_cast<TokenId>(id)).has_value()) continue;
        token["id"] = id;
        list.push_back(std::move(token));
        names.insert(content);
    }
}

std::optional<std::int64_t> id_of(const TokenizerFile& file, const std::string& name) {
    for (const json& token : file.rest.at("added_tokens")) {
        if (token.is_object() && special_token(token, "content") == name && token.contains("id")) {
            return whole_number(token.at("id"));
        }
    }
    const auto id = file.vocabulary.id(name);
    return id ? std::optional<std::int64_t>(*id) : std::nullopt;
}

void add_bos(TokenizerFile& file, const json& config, const fs::path& config_path) {
    const std::string bos = special_token(config, "bos_token");
    if (bos.empty() || config.value("add_bos_token", json()) != json(true)) return;
    json& processor = file.rest["post_processor"];
    if (special_tokens_around(processor).before) return;
    const auto id = id_of(file, bos);
    if (!id) {
        throw Error(ErrorCode::format, config_path.string() + ": bos_token " + in_quotes(bos) +
                                           " is not a token of tokenizer.json, but add_bos_token is true; correct one");
    }
    const json begin = {
        {"type", "TemplateProcessing"},
        {"single", {{{"SpecialToken", {{"id", bos}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
        {"special_tokens", {{bos, {{"id", bos}, {"ids", {*id}}, {"tokens", {bos}}}}}}};
    processor = processor.is_null() ? begin : json{{"type", "Sequence"}, {"processors", {processor, begin}}};
}

}  // namespace

void add_companions(TokenizerFile& file, const fs::path& tokenizer_json) {
    if (!file.rest.is_object()) return;  // which the reader of the file will say
    const fs::path directory = tokenizer_json.parent_path();
    const fs::path config_path = directory / "tokenizer_config.json";
    const json config = optional_object(config_path);
    const json& list = file.rest["added_tokens"];
    if (!list.is_null() && !list.is_array()) return;  // likewise
    add_tokens(file, config, directory);
    if (config.is_object()) add_bos(file, config, config_path);
}

SpecialTokens special_tokens_around(const json& post_processor) {
    if (!post_processor.is_object()) return {};
    const json type = post_processor.value("type", json());
    if (type == "RobertaProcessing" || type == "BertProcessing") return {true, true};
    SpecialTokens found;
    if (type == "Sequence") {
        for (const json& step : post_processor.value("processors", json::array())) {
            const SpecialTokens one = special_tokens_around(step);
            found = {found.before || one.before, found.behind || one.behind};
        }
        return found;
    }
    const json single = post_processor.value("single", json::array());
    if (!single.is_array() || single.empty()) return {};
    return {single.front().contains("SpecialToken"), single.size() > 1 && single.back().contains("SpecialToken")};
}

}  // namespace mha2mla

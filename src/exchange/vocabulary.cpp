// tokenizer.json as llama.cpp takes it: the tokens by id, what kind each is, and the merges; of a vocabulary with byte
// fallback (Llama 2) scores instead of merges, of which the highest is merged first.
#include <algorithm>

#include "../support/json_file.hpp"
#include "../tokenizer/companions.hpp"
#include "../tokenizer/tokenizer_file.hpp"
#include "chat_templates.hpp"
#include "export_tensor.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/mapped_file.hpp"
#include "pre_tokenizers.hpp"

namespace mha2mla {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

/// Kinds of tokens in a file.
enum Kind : std::int32_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

struct Tokens {
    std::vector<std::string> names;
    std::vector<std::int32_t> kinds;
    std::vector<std::pair<std::string, std::size_t>> added;

    [[nodiscard]] bool has(std::size_t id) const { return id < names.size() && kinds[id] != unused; }
};

std::string text_of(const fs::path& path) {
    const MappedFile file(path);
    return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

/// A JSON object, or an empty one if the file is not there.
Json optional_object(const fs::path& path) {
    std::error_code ignored;
    if (!fs::exists(path, ignored)) return Json::object();
    Json json = read_json_file(path);
    return json.is_object() ? json : Json::object();
}

Tokens tokens_of(const TokenizerFile& file, std::int64_t vocab_size, const fs::path& path, Observer& observer) {
    Tokens tokens;
    const auto size = static_cast<std::size_t>(vocab_size);
    tokens.names.resize(size);
    tokens.kinds.assign(size, unused);
    std::size_t beyond = 0;
    const auto set = [&](std::size_t id, std::string_view name, std::int32_t kind) {
        if (id >= size) return void(++beyond);
        tokens.names[id] = name;
        tokens.kinds[id] = kind;
    };
    file.vocabulary.for_each(
        [&](std::string_view name, TokenId id) { set(static_cast<std::size_t>(id), name, normal); });
    const auto added = file.rest.find("added_tokens");
    for (const Json& token : added != file.rest.end() && added->is_array() ? *added : Json::array()) {
        const auto id = static_cast<std::size_t>(whole_number(token.at("id")));
        const auto name = token.at("content").get<std::string>();
        set(id, name, token.value("special", false) ? control : user_defined);
        tokens.added.emplace_back(name, id);
    }
    if (beyond > 0) {
        observer.warn(path.string() + ": " + std::to_string(beyond) + " tokens are left out, whose ids exceed the " +
                      std::to_string(vocab_size) + " rows of the embeddings");
    }
    for (std::size_t id = 0; id < size; ++id) {
        if (tokens.kinds[id] == unused) tokens.names[id] = "[PAD" + std::to_string(id) + "]";
    }
    return tokens;
}

/// Ids of special tokens: from tokenizer_config.json by name, or else from config.json.
class SpecialIds {
public:
    SpecialIds(const fs::path& directory, const TokenizerFile& file, const Tokens& tokens)
        : file_(file),
          tokens_(tokens),
          by_name_(optional_object(directory / "tokenizer_config.json")),
          by_id_(optional_object(directory / "config.json")) {}

    [[nodiscard]] std::optional<std::uint32_t> find(const std::string& kind) const {
        if (const auto named = by_name_.find(kind + "_token"); named != by_name_.end()) {
            if (named->is_string()) return id_of(named->get<std::string>());
            const Json content = named->is_object() ? named->value("content", Json()) : Json();
            if (content.is_string()) return id_of(content.get<std::string>());
        }
        auto id = by_id_.find(kind + "_token_id");
        if (id == by_id_.end()) return std::nullopt;
        const Json& first = id->is_array() && !id->empty() ? id->front() : *id;
        if (!first.is_number_unsigned() || !tokens_.has(first.get<std::size_t>())) return std::nullopt;
        return first.get<std::uint32_t>();
    }

    [[nodiscard]] std::optional<std::uint32_t> id_of(const std::string& name) const {
        for (const auto& [added, id] : tokens_.added) {
            if (added == name && tokens_.has(id)) return static_cast<std::uint32_t>(id);
        }
        const auto id = file_.vocabulary.id(name);
        if (!id || !tokens_.has(static_cast<std::size_t>(*id))) return std::nullopt;
        return static_cast<std::uint32_t>(*id);
    }

private:
    const TokenizerFile& file_;
    const Tokens& tokens_;
    Json by_name_, by_id_;
};

/// Whether a space is put in front of a text.
bool prefixes_space(const Json& step) {
    if (step.is_array()) {
        return std::any_of(step.begin(), step.end(), [](const Json& inner) { return prefixes_space(inner); });
    }
    if (!step.is_object()) return false;
    const std::string type = step.value("type", "");
    if (type == "Sequence") return prefixes_space(step.value("normalizers", step.value("pretokenizers", Json())));
    if (type == "Metaspace") return step.value("prepend_scheme", "always") != "never";
    return type == "Prepend";
}

std::vector<float> scores_of(const TokenizerFile& file, const Tokens& tokens) {
    // No merge gives single characters, so that their scores are never looked at.
    std::vector<float> scores(tokens.names.size(), -static_cast<float>(file.merges.size()) - 1);
    for (std::size_t rank = file.merges.size(); rank-- > 0;) {
        const auto id = file.vocabulary.id(file.merges[rank].left + file.merges[rank].right);
        if (id && static_cast<std::size_t>(*id) < scores.size()) {
            scores[static_cast<std::size_t>(*id)] = -static_cast<float>(rank);
        }
    }
    return scores;
}

void mark_bytes(Tokens& tokens, const fs::path& path, Observer& observer) {
    constexpr std::ptrdiff_t kBytes = 256;
    for (std::size_t id = 0; id < tokens.names.size(); ++id) {
        const std::string& name = tokens.names[id];
        if (name.size() == 6 && name.rfind("<0x", 0) == 0 && name.back() == '>') tokens.kinds[id] = byte;
    }
    if (std::count(tokens.kinds.begin(), tokens.kinds.end(), byte) < kBytes) {
        observer.warn(path.string() + ": not every byte has a token, and llama.cpp fails at characters without one");
    }
}

/// Merges "left right" of a byte-level vocabulary, and the name of its pre-tokenizer.
std::string add_byte_level(const TokenizerFile& file, const fs::path& path, GgufMetadata& metadata,
                           Observer& observer) {
    metadata.add("tokenizer.ggml.model", "gpt2");
    const Json pre_tokenizer = file.rest.value("pre_tokenizer", Json());
    const auto name = pre_tokenizer_name(pre_tokenizer, file.rest.at("model").value("ignore_merges", false));
    if (!name) {
        observer.warn(
            path.string() +
            ": llama.cpp has no known name for its pre_tokenizer; 'default' is written, which may split words "
            "otherwise");
    }
    metadata.add("tokenizer.ggml.pre", name.value_or("default"));
    std::vector<std::string> merges;
    for (const auto& [left, right] : file.merges) merges.push_back(left + " " + right);
    metadata.add("tokenizer.ggml.merges", std::span<const std::string>(merges));
    return "byte-level BPE, words as " + std::string(name.value_or("default"));
}

[[noreturn]] void refuse(const fs::path& path, const std::string& what) {
    throw Error(ErrorCode::unsupported,
                path.string() + ": " + what +
                    ", which GGUF cannot say; move tokenizer.json away to write a file that takes "
                    "and gives token ids alone");
}

/// The types of a step and of the steps in it.
std::vector<std::string> step_types(const Json& step, const char* steps_key) {
    if (!step.is_object()) return {};
    if (step.value("type", "") != "Sequence") return {step.value("type", "")};
    std::vector<std::string> types;
    for (const Json& inner : step.value(steps_key, Json::array())) {
        for (std::string& type : step_types(inner, steps_key)) types.push_back(std::move(type));
    }
    return types;
}

/// llama.cpp knows two kinds of BPE, and for each what is done to a text before.
void check_kind(const TokenizerFile& file, bool byte_fallback, const fs::path& path) {
    const Json& model = file.rest.at("model");
    if (const std::string type = model.value("type", "BPE"); type != "BPE") {
        refuse(path, "model.type is '" + type + "'");
    }
    for (const char* const key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
        const Json affix = model.value(key, Json());
        if (affix.is_string() && affix != "") refuse(path, std::string("model.") + key + " is given");
    }
    const auto steps = step_types(file.rest.value("pre_tokenizer", Json()), "pretokenizers");
    if (!byte_fallback && std::ranges::find(steps, "ByteLevel") == steps.end()) {
        refuse(path, "the model has neither byte_fallback nor a pre_tokenizer of type ByteLevel");
    }
    for (const std::string& type : step_types(file.rest.value("normalizer", Json()), "normalizers")) {
        // NFC is left out as other converters do; most texts are in that form.
        if (type == "NFC" || (byte_fallback && (type == "Prepend" || type == "Replace"))) continue;
        refuse(path, "normalizer has a step '" + type + "'");
    }
}

}  // namespace

std::string add_vocabulary(const Model& model, GgufMetadata& metadata, Observer& observer) {
    const fs::path& directory = model.checkpoint.directory();
    const fs::path path = directory / "tokenizer.json";
    std::error_code ignored;
    if (!fs::exists(path, ignored)) {
        observer.warn(path.string() +
                      " is not there: the file gets no vocabulary, and takes and gives token ids alone");
        metadata.add("tokenizer.ggml.model", "no_vocab");
        return "none";
    }
    TokenizerFile file(text_of(path), path.string());
    (void)Tokenizer::load(path);  // checks every key, and refuses what it does not know
    add_companions(file, path);
    const bool byte_fallback = file.rest.at("model").value("byte_fallback", false);
    check_kind(file, byte_fallback, path);
    Tokens tokens = tokens_of(file, model.config.vocab_size, path, observer);
    const SpecialIds ids(directory, file, tokens);
    if (byte_fallback) mark_bytes(tokens, path, observer);
    const auto unknown_id = ids.find("unk");
    if (byte_fallback && unknown_id) tokens.kinds[*unknown_id] = unknown;

    std::string what = "BPE with byte fallback, as Llama 2";
    if (byte_fallback) {
        metadata.add("tokenizer.ggml.model", "llama");
        metadata.add("tokenizer.ggml.pre", "default");
        metadata.add("tokenizer.ggml.scores", std::span<const float>(scores_of(file, tokens)));
        metadata.add("tokenizer.ggml.add_space_prefix", prefixes_space(file.rest.value("normalizer", Json())) ||
                                                            prefixes_space(file.rest.value("pre_tokenizer", Json())));
    } else {
        what = add_byte_level(file, path, metadata, observer);
    }
    metadata.add("tokenizer.ggml.tokens", std::span<const std::string>(tokens.names));
    metadata.add("tokenizer.ggml.token_type", std::span<const std::int32_t>(tokens.kinds));
    for (const auto& [kind, key] : {std::pair{"bos", "tokenizer.ggml.bos_token_id"},
                                    {"eos", "tokenizer.ggml.eos_token_id"},
                                    {"unk", "tokenizer.ggml.unknown_token_id"},
                                    {"pad", "tokenizer.ggml.padding_token_id"}}) {
        if (const auto id = ids.find(kind)) metadata.add(key, *id);
    }
    const SpecialTokens around = special_tokens_around(file.rest.value("post_processor", Json()));
    metadata.add("tokenizer.ggml.add_bos_token", around.before);
    metadata.add("tokenizer.ggml.add_eos_token", around.behind);
    add_chat_templates(directory, metadata);
    return what;
}

}  // namespace mha2mla

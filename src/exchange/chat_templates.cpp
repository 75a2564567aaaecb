#include "chat_templates.hpp"

#include <algorithm>
#include <cctype>
#include <map>

#include "../support/json_file.hpp"
#include "mha2mla/mapped_file.hpp"

namespace mha2mla {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr std::string_view kDefault = "default";

using Templates = std::map<std::string, std::string>;  // by name

bool is_there(const fs::path& path) {
    std::error_code ignored;
    return fs::exists(path, ignored);
}

std::string text_in(const fs::path& path) {
    const MappedFile file(path);
    return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

/// One template, a list of objects with `name` and `template`, or an object of names and templates.
Templates templates_in(const Json& value) {
    Templates found;
    if (value.is_string()) found.emplace(kDefault, value.get<std::string>());
    if (value.is_object()) {
        for (const auto& [name, text] : value.items()) {
            if (text.is_string()) found.emplace(name, text.get<std::string>());
        }
    }
    for (const Json& named : value.is_array() ? value : Json::array()) {
        if (!named.is_object()) continue;
        const Json name = named.value("name", Json());
        const Json text = named.value("template", Json());
        if (name.is_string() && text.is_string()) found.emplace(name.get<std::string>(), text.get<std::string>());
    }
    return found;
}

Templates templates_of(const fs::path& directory) {
    Templates found;
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(directory / "additional_chat_templates", ignored)) {
        std::error_code unknown;
        if (entry.is_regular_file(unknown) && entry.path().extension() == ".jinja") {
            found.emplace(entry.path().stem().string(), text_in(entry.path()));
        }
    }
    if (const fs::path file = directory / "chat_template.jinja"; is_there(file))
        found[std::string(kDefault)] = text_in(file);
    if (!found.empty()) return found;
    for (const char* const name : {"chat_template.json", "tokenizer_config.json"}) {
        if (!is_there(directory / name)) continue;
        const Json json = read_json_file(directory / name);
        if (json.is_object() && json.contains("chat_template")) return templates_in(json.at("chat_template"));
    }
    return found;
}

}  // namespace

void add_chat_templates(const fs::path& directory, GgufMetadata& metadata) {
    std::vector<std::string> names;
    for (const auto& [name, text] : templates_of(directory)) {
        if (name == kDefault) {
            metadata.add("tokenizer.chat_template", std::string_view(text));
            continue;
        }
        std::string key = name;
        for (char& c : key) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
        for (std::string plain = key; std::ranges::find(names, key) != names.end();) {
            key = plain + "_" + std::to_string(names.size());
        }
        metadata.add("tokenizer.chat_template." + key, std::string_view(text));
        names.push_back(key);
    }
    if (!names.empty()) metadata.add("tokenizer.chat_templates", std::span<const std::string>(names));
}

}  // namespace mha2mla

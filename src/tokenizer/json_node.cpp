#include "json_node.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "utf8.hpp"

namespace mha2mla {
namespace {

constexpr int kMaxNestedSteps = 16;

}  // namespace

std::string in_quotes(std::string_view text) {
    constexpr std::size_t kShown = 80;
    const bool cut = text.size() > kShown;
    std::string out = utf8::replace_invalid(text.substr(0, kShown));
    if (cut) {
        // The cut may have split a character.
        while (const auto bad = utf8::find_invalid(out)) out.resize(*bad);
        out += "...";
    }
    std::replace_if(
        out.begin(), out.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }, ' ');
    return "'" + out + "'";
}

JsonNode::JsonNode(const nlohmann::json& root, std::string_view file) : value_(&root), file_(file) {}

JsonNode::JsonNode(const JsonNode& parent, const nlohmann::json& value, std::string path)
    : value_(&value), file_(parent.file_), path_(std::move(path)), depth_(parent.depth_ + 1) {}

JsonNode JsonNode::at(std::string_view key) const {
    auto child = find(key);
    if (!child) fail(ErrorCode::format, "the key " + in_quotes(key) + " is missing; is the file complete?");
    return *child;
}

std::optional<JsonNode> JsonNode::find(std::string_view key) const {
    if (!value_->is_object()) fail(ErrorCode::format, "must be an object");
    const auto member = value_->find(key);
    if (member == value_->end() || member->is_null()) return std::nullopt;
    return JsonNode(*this, *member, (path_.empty() ? "" : path_ + ".") + std::string(key));
}

std::vector<JsonNode> JsonNode::elements() const {
    if (!value_->is_array()) fail(ErrorCode::format, "must be an array");
    std::vector<JsonNode> out;
    out.reserve(value_->size());
    for (const auto& element : *value_) {
        out.push_back(JsonNode(*this, element, path_ + "[" + std::to_string(out.size()) + "]"));
    }
    return out;
}

std::vector<JsonNode> JsonNode::members() const {
    if (!value_->is_object()) fail(ErrorCode::format, "must be an object");
    std::vector<JsonNode> out;
    out.reserve(value_->size());
    for (const auto& [key, member] : value_->items()) out.push_back(JsonNode(*this, member, path_ + "." + key));
    return out;
}

const std::string& JsonNode::string() const {
    if (!value_->is_string()) fail(ErrorCode::format, "must be a string");
    return value_->get_ref<const std::string&>();
}

char32_t JsonNode::character() const {
    const std::string& text = string();
    const auto c = text.empty() ? utf8::CodePoint{} : utf8::decode(text, 0);
    if (c.length == 0 || c.length != text.size()) fail(ErrorCode::format, "must be a string of one character");
    return c.value;
}

bool JsonNode::boolean() const {
    if (!value_->is_boolean()) fail(ErrorCode::format, "must be true or false");
    return value_->get<bool>();
}

std::int64_t JsonNode::integer(std::int64_t low, std::int64_t high) const {
    const bool fits = value_->is_number_unsigned() ? value_->get<std::uint64_t>() <= static_cast<std::uint64_t>(high)
                                                   : value_->is_number_integer();
    const std::int64_t number = fits ? value_->get<std::int64_t>() : 0;
    if (!fits || number < low || number > high) {
        fail(ErrorCode::format, "must be an integer from " + std::to_string(low) + " to " + std::to_string(high));
    }
    return number;
}

std::string JsonNode::string_or(std::string_view key, std::string_view fallback) const {
    const auto node = find(key);
    return node ? node->string() : std::string(fallback);
}

bool JsonNode::boolean_or(std::string_view key, bool fallback) const {
    const auto node = find(key);
    return node ? node->boolean() : fallback;
}

std::string_view JsonNode::key() const {
    const auto dot = path_.rfind('.');
    return std::string_view(path_).substr(dot == std::string::npos ? 0 : dot + 1);
}

void JsonNode::fail(ErrorCode code, std::string_view message) const {
    throw Error(code, file_ + ": " + (path_.empty() ? "" : path_ + ": ") + std::string(message));
}

std::size_t find_step_kind(const JsonNode& node, std::span<const std::string_view> types) {
    // Each nested sequence adds two keys to the path: the array's and the index.
    if (node.depth() > 1 + 2 * kMaxNestedSteps) {
        node.fail(ErrorCode::unsupported,
                  "sequences are nested deeper than " + std::to_string(kMaxNestedSteps) + "; flatten them");
    }
    const std::string type = node.at("type").string();
    const auto found = std::find(types.begin(), types.end(), type);
    if (found != types.end()) return static_cast<std::size_t>(found - types.begin());
    std::string known;
    for (const auto name : types) known += (known.empty() ? "" : ", ") + std::string(name);
    node.fail(ErrorCode::unsupported,
              "the type " + in_quotes(type) + " is not supported (supported here: " + known +
                  "); convert the text to ids with the tokenizer's own library and pass ids instead");
}

}  // namespace mha2mla

#include <algorithm>

#include "mha2mla/batch.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

using Json = nlohmann::ordered_json;

std::string as_text(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

}  // namespace

Json Variables::expand(const Json& value) const {
    std::vector<std::string> using_now;
    return value.is_string() ? expand(value.get<std::string>(), using_now) : value;
}

Json Variables::expand(const std::string& text, std::vector<std::string>& using_now) const {
    std::string result;
    std::size_t position = 0;
    while (position < text.size()) {
        const std::size_t dollar = std::min(text.find('$', position), text.size());
        result += text.substr(position, dollar - position);
        if (dollar == text.size()) break;
        const char next = dollar + 1 < text.size() ? text[dollar + 1] : '\0';
        if (next != '{') {
            result += '$';
            position = dollar + (next == '$' ? 2 : 1);
            continue;
        }
        const std::size_t end = text.find('}', dollar);
        if (end == std::string::npos) {
            throw Error(ErrorCode::format,
                        where_ + ": '" + text + "' has '${' without '}'; write $$ for a dollar sign");
        }
        Json value = value_of(text.substr(dollar + 2, end - dollar - 2), using_now);
        if (dollar == 0 && end + 1 == text.size()) return value;
        result += as_text(value);
        position = end + 1;
    }
    return result;
}

Json Variables::value_of(const std::string& name, std::vector<std::string>& using_now) const {
    const auto it = values_.find(name);
    if (it == values_.end()) {
        std::string known;
        for (const auto& [other, value] : values_) known += (known.empty() ? "" : ", ") + other;
        throw Error(ErrorCode::format, where_ + ": no variable '" + name + "'; there are: " + known);
    }
    const auto cycle = std::find(using_now.begin(), using_now.end(), name);
    if (cycle != using_now.end()) {
        std::string path;
        for (auto step = cycle; step != using_now.end(); ++step) path += *step + " -> ";
        throw Error(ErrorCode::format, where_ + ": variables refer to each other in a circle: " + path + name);
    }
    if (!it->second.is_string()) return it->second;
    using_now.push_back(name);
    Json value = expand(it->second.get<std::string>(), using_now);
    using_now.pop_back();
    return value;
}

}  // namespace mha2mla

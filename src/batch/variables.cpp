#include <algorithm>

#include "mha2mla/batch.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMostReferences = 1000, kDeepest = 64, kLongest = 65'536, kNamed = 50;

std::string as_text(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

}  // namespace

/// One value on its way.
struct Variables::Expansion {
    std::vector<std::string> using_now;
    std::size_t references = 0;
};

Json Variables::expand(const Json& value) const {
    Expansion expansion;
    return value.is_string() ? expand(value.get<std::string>(), expansion) : value;
}

Json Variables::expand(const std::string& text, Expansion& expansion) const {
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
        Json value = value_of(text.substr(dollar + 2, end - dollar - 2), expansion);
        if (dollar == 0 && end + 1 == text.size()) return value;
        result += as_text(value);
        if (result.size() > kLongest) {
            throw Error(ErrorCode::format, where_ + ": a value becomes longer than " + std::to_string(kLongest) +
                                               " characters by its variables");
        }
        position = end + 1;
    }
    return result;
}

Json Variables::value_of(const std::string& name, Expansion& expansion) const {
    auto& using_now = expansion.using_now;
    const auto it = values_.find(name);
    if (it == values_.end()) {
        std::string known;
        std::size_t named = 0;
        for (const auto& [other, value] : values_) {
            if (++named <= kNamed) known += (known.empty() ? "" : ", ") + other;
        }
        if (named > kNamed) known += " and more";
        throw Error(ErrorCode::format, where_ + ": no variable '" + name + "'; there are: " + known);
    }
    const auto cycle = std::find(using_now.begin(), using_now.end(), name);
    if (cycle != using_now.end()) {
        std::string path;
        for (auto step = cycle; step != using_now.end(); ++step) path += *step + " -> ";
        throw Error(ErrorCode::format, where_ + ": variables refer to each other in a circle: " + path + name);
    }
    if (!it->second.is_string()) return it->second;
    if (++expansion.references > kMostReferences || using_now.size() >= kDeepest) {
        throw Error(ErrorCode::format,
                    where_ + ": variable '" + name + "' is one of more than " +
                        (using_now.size() >= kDeepest ? std::to_string(kDeepest) + " in one another"
                                                      : std::to_string(kMostReferences) + " in one value"));
    }
    using_now.push_back(name);
    Json value = expand(it->second.get<std::string>(), expansion);
    using_now.pop_back();
    return value;
}

}  // namespace mha2mla

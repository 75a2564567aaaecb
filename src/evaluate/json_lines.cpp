#include "json_lines.hpp"

#include <algorithm>

#include "../support/json_file.hpp"

namespace mha2mla {

JsonLines::JsonLines(const std::filesystem::path& file) : name_(file.string()), file_(file) {
    const std::string_view text(reinterpret_cast<const char*>(file_.bytes().data()), file_.bytes().size());
    std::int64_t number = 0;
    for (std::size_t start = 0; start < text.size();) {
        const std::size_t end = std::min(text.find('\n', start), text.size());
        const std::string_view line = text.substr(start, end - start);
        start = end + 1;
        ++number;
        if (line.find_first_not_of(" \t\r") != std::string_view::npos) lines_.push_back({line, number});
    }
}

nlohmann::json JsonLines::object(std::size_t line, std::string_view needs) const {
    auto json = parse_json(lines_[line].text);
    if (!json.is_object()) throw Error(ErrorCode::format, "not a JSON object in UTF-8" + std::string(needs));
    return json;
}

std::string JsonLines::place(std::size_t line) const {
    return name_ + ", line " + std::to_string(lines_[line].number) + ": ";
}

Error JsonLines::at(std::size_t line, const std::string& message) const {
    return {ErrorCode::format, place(line) + message};
}

std::string JsonLines::message_of(const nlohmann::json::exception& error) {
    // "[json.exception.out_of_range.403] key 'sol1' not found"
    const std::string_view what = error.what();
    return std::string(what.substr(what.find("] ") + 2));
}

}  // namespace mha2mla

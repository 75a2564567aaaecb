#include "json_lines.hpp"

#include <algorithm>

#include "../support/json_file.hpp"

namespace mha2mla {

namespace {

std::string_view line_at(std::string_view text, std::size_t start) {
    return text.substr(start, text.find('\n', start) - start);
}

/// Calls each(start) for every line that is not blank.
template <typename Each>
void for_each_line(std::string_view text, const Each& each) {
    for (std::size_t start = 0; start < text.size();) {
        const std::string_view line = line_at(text, start);
        if (line.find_first_not_of(" \t\r") != std::string_view::npos) each(start);
        start += line.size() + 1;
    }
}

}  // namespace

JsonLines::JsonLines(const std::filesystem::path& file) : name_(file.string()), file_(file) {
    std::size_t count = 0;  // first, so that no more is allocated than is needed
    for_each_line(content(), [&](std::size_t) { ++count; });
    starts_.reserve(count);
    for_each_line(content(), [&](std::size_t start) { starts_.push_back(start); });
}

std::string_view JsonLines::content() const {
    return {reinterpret_cast<const char*>(file_.bytes().data()), file_.bytes().size()};
}

std::string_view JsonLines::text(std::size_t line) const { return line_at(content(), starts_[line]); }

nlohmann::json JsonLines::object(std::size_t line, std::string_view needs) const {
    auto json = parse_json(text(line));
    if (!json.is_object()) throw Error(ErrorCode::format, "not a JSON object in UTF-8" + std::string(needs));
    return json;
}

std::string JsonLines::place(std::size_t line) const {
    const std::string_view before = content().substr(0, starts_[line]);
    const auto number = 1 + std::count(before.begin(), before.end(), '\n');
    return name_ + ", line " + std::to_string(number) + ": ";
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

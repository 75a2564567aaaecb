#include "json_file.hpp"

#include <set>

#include "mha2mla/error.hpp"
#include "mha2mla/mapped_file.hpp"

namespace mha2mla {

namespace {
constexpr int kMaxJsonDepth = 64;
}  // namespace

template <typename Json>
Json read_json_file(const std::filesystem::path& path, std::size_t max_bytes, RepeatedKeys repeated) {
    const MappedFile file(path);
    if (file.bytes().size() > max_bytes) {
        throw Error(ErrorCode::format, path.string() + ": larger than " + std::to_string(max_bytes) +
                                           " bytes; this is not a configuration file");
    }
    const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    if (text.find('\0') != std::string_view::npos) {  // the parser would read it as the end of the input
        throw Error(ErrorCode::format, path.string() + ": not valid JSON: it holds a NUL byte");
    }
    std::vector<std::set<std::string>> open;  // keys so far of each unfinished object, if repeats are refused
    const auto check = [&](int depth, typename Json::parse_event_t event, Json& parsed) {
        using Event = typename Json::parse_event_t;
        if (depth > kMaxJsonDepth) throw Error(ErrorCode::format, path.string() + ": JSON nested too deeply");
        if (repeated == RepeatedKeys::last_counts) return true;
        if (event == Event::object_start) open.emplace_back();
        if (event == Event::object_end) open.pop_back();
        if (event == Event::key && !open.back().insert(parsed.template get<std::string>()).second) {
            throw Error(ErrorCode::format, path.string() + ": key " + parsed.dump() + " appears twice in one object");
        }
        return true;
    };
    try {
        return Json::parse(text, check);
    } catch (const nlohmann::json::exception& error) {
        throw Error(ErrorCode::format, path.string() + ": not valid JSON: " + error.what());
    }
}

template nlohmann::json read_json_file(const std::filesystem::path&, std::size_t, RepeatedKeys);
template nlohmann::ordered_json read_json_file(const std::filesystem::path&, std::size_t, RepeatedKeys);

}  // namespace mha2mla

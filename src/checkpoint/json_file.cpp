#include "json_file.hpp"

#include "mha2mla/checkpoint.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {

namespace {
constexpr int kMaxJsonDepth = 64;
}  // namespace

template <typename Json>
Json read_json_file(const std::filesystem::path& path, std::size_t max_bytes) {
    const MappedFile file(path);
    if (file.bytes().size() > max_bytes) {
        throw Error(ErrorCode::format, path.string() + ": larger than " + std::to_string(max_bytes) +
                                           " bytes; this is not a configuration file");
    }
    const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    if (text.find('\0') != std::string_view::npos) {  // which the parser takes for the end of its input
        throw Error(ErrorCode::format, path.string() + ": not valid JSON: it holds a NUL byte");
    }
    const auto limit_depth = [&](int depth, typename Json::parse_event_t, Json&) {
        if (depth > kMaxJsonDepth) throw Error(ErrorCode::format, path.string() + ": JSON nested too deeply");
        return true;
    };
    try {
        return Json::parse(text, limit_depth);
    } catch (const nlohmann::json::exception& error) {
        throw Error(ErrorCode::format, path.string() + ": not valid JSON: " + error.what());
    }
}

template nlohmann::json read_json_file(const std::filesystem::path&, std::size_t);
template nlohmann::ordered_json read_json_file(const std::filesystem::path&, std::size_t);

}  // namespace mha2mla

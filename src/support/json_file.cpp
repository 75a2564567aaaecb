#include "json_file.hpp"

#include <array>
#include <set>
#include <type_traits>

#include "mha2mla/error.hpp"
#include "mha2mla/mapped_file.hpp"

namespace mha2mla {
namespace {

constexpr int kMaxDepth = 64;
/// An object that keeps the order of its keys looks at all of them to add one.
constexpr std::size_t kMostOrderedKeys = 65'536;
/// Of the bytes of what was read, beyond three times the text's.
constexpr std::size_t kMostMemory = 150'000'000;

/// Looks at each value as it is parsed, so that no text takes memory or time out of proportion.
template <typename Json>
class Watch {
public:
    explicit Watch(std::size_t text_bytes) : allowed_(3 * text_bytes + kMostMemory) {}

    /// @return what is wrong with the text, if anything
    const char* look(int depth, typename Json::parse_event_t event, const Json& parsed) {
        using Event = typename Json::parse_event_t;
        if (depth > kMaxDepth) return "JSON nested too deeply";
        if (event == Event::object_start) keys_.at(static_cast<std::size_t>(depth) + 1) = 0;
        if (event == Event::key && ++keys_.at(static_cast<std::size_t>(depth)) > kMostOrderedKeys &&
            std::is_same_v<Json, nlohmann::ordered_json>) {
            return "an object with more than 65536 keys";
        }
        if (event != Event::object_end && event != Event::array_end) taken_ += bytes_of(event, parsed);
        return taken_ > allowed_ ? "too many values for its size" : nullptr;
    }

private:
    /// About what one takes, with what the allocator and the container add.
    static std::size_t bytes_of(typename Json::parse_event_t event, const Json& parsed) {
        using Event = typename Json::parse_event_t;
        constexpr std::size_t kValue = 16, kContainer = 56, kText = 48, kKey = 96;
        if (event == Event::key) return kKey;
        if (event == Event::value) return kValue + (parsed.is_string() ? kText : 0);
        return kValue + kContainer;
    }

    std::size_t allowed_, taken_ = 0;
    std::array<std::size_t, kMaxDepth + 2> keys_{};  // so far, of the open object of each depth
};

struct Refused {};

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
    Watch<Json> watch(text.size());
    std::vector<std::set<std::string>> open;  // keys so far of each unfinished object, if repeats are refused
    const auto check = [&](int depth, typename Json::parse_event_t event, Json& parsed) {
        using Event = typename Json::parse_event_t;
        if (const char* problem = watch.look(depth, event, parsed)) {
            throw Error(ErrorCode::format, path.string() + ": " + problem);
        }
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
        // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
        const std::string_view what = error.what();
        const std::size_t start = what.find("] ");
        throw Error(ErrorCode::format,
                    path.string() + ": not valid JSON: " +
                        std::string(start == std::string_view::npos ? what : what.substr(start + 2)));
    }
}

template <typename Json>
Json parse_json(std::string_view text) {
    if (text.find('\0') != std::string_view::npos) return Json(Json::value_t::discarded);
    Watch<Json> watch(text.size());
    const auto check = [&](int depth, typename Json::parse_event_t event, Json& parsed) {
        if (watch.look(depth, event, parsed) != nullptr) throw Refused();
        return true;
    };
    try {
        return Json::parse(text, check, false);
    } catch (const Refused&) {
        return Json(Json::value_t::discarded);
    }
}

template nlohmann::json parse_json(std::string_view);
template nlohmann::ordered_json parse_json(std::string_view);
template nlohmann::json read_json_file(const std::filesystem::path&, std::size_t, RepeatedKeys);
template nlohmann::ordered_json read_json_file(const std::filesystem::path&, std::size_t, RepeatedKeys);

}  // namespace mha2mla

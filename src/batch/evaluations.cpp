#include "../support/json_file.hpp"
#include "mha2mla/atomic_file.hpp"
#include "mha2mla/batch.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {
using Json = nlohmann::ordered_json;
}

Json saved_evaluation(const std::filesystem::path& file, const Json& fingerprint) {
    std::error_code ignored;
    if (!std::filesystem::exists(file, ignored)) return nullptr;
    try {
        const auto saved = read_json_file<Json>(file);
        const bool same = saved.is_object() && saved.value("fingerprint", Json()) == fingerprint;
        return same ? saved.value("result", Json()) : Json();
    } catch (const Error&) {
        return nullptr;  // damaged: evaluated again
    }
}

void save_evaluation(const std::filesystem::path& file, const Json& fingerprint, const Json& result) {
    std::filesystem::create_directories(file.parent_path());
    write_file_atomically(file, Json{{"fingerprint", fingerprint}, {"result", result}}.dump(1) + "\n");
}

}  // namespace mha2mla

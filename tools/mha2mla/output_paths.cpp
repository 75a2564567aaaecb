#include "output_paths.hpp"

#include <fstream>
#include <map>

#include "mha2mla/error.hpp"

namespace mha2mla::tool {
namespace fs = std::filesystem;
namespace {

/// Whether a file has the text within its first bytes, where a command puts what tells its files from others.
bool looks_ours(const fs::path& path, const std::string& beginning) {
    if (beginning.empty()) return false;
    constexpr std::size_t kLooked = 4096;
    std::ifstream file(path, std::ios::binary);
    std::string start(kLooked, '\0');
    file.read(start.data(), static_cast<std::streamsize>(start.size()));
    start.resize(static_cast<std::size_t>(file.gcount()));
    return start.find(beginning) != std::string::npos;
}

void refuse_input(const OutputPath& output, const fs::path& input) {
    std::error_code ignored;
    bool is_input = fs::equivalent(output.path, input, ignored);
    if (fs::is_directory(input, ignored) && fs::exists(output.path, ignored) &&
        !looks_ours(output.path, output.beginning)) {
        std::error_code unknown;  // each may be a link to the output
        for (fs::directory_iterator file(input, ignored), end; !ignored && file != end; file.increment(ignored)) {
            is_input = is_input || fs::equivalent(output.path, file->path(), unknown);
        }
    }
    if (!is_input) return;
    throw Error(ErrorCode::usage,
                output.option + " " + output.path.string() + ": that is read by the same command; give another name");
}

void refuse_place(const OutputPath& output, bool overwrite) {
    const std::string name = output.path.string();
    std::error_code ignored;
    const fs::path parent = output.path.has_parent_path() ? output.path.parent_path() : fs::path(".");
    if (!fs::is_directory(parent, ignored)) {
        throw Error(ErrorCode::io, "cannot write " + name + ": there is no directory " + parent.string());
    }
    const fs::file_status status = fs::symlink_status(output.path, ignored);
    if (!fs::exists(status)) return;
    if (fs::is_directory(status)) throw Error(ErrorCode::io, "cannot write " + name + ": it is a directory");
    const fs::file_status target = fs::status(output.path, ignored);
    if (fs::exists(target) && !fs::is_regular_file(target)) {
        throw Error(ErrorCode::io, "cannot write " + name + ": it is no file, and would be replaced by one");
    }
    if (overwrite) return;
    if (fs::is_symlink(status)) {
        throw Error(ErrorCode::io, name + ": is a link, and would be replaced by a file", Remedy::overwrite);
    }
    if (!looks_ours(output.path, output.beginning)) {
        throw Error(ErrorCode::io, name + ": exists, and is not of this command", Remedy::overwrite);
    }
}

}  // namespace

void check_output_paths(const std::vector<OutputPath>& outputs, const std::vector<fs::path>& inputs, bool overwrite) {
    std::map<fs::path, std::string> taken;
    for (const OutputPath& output : outputs) {
        const auto [other, is_new] = taken.emplace(fs::weakly_canonical(fs::absolute(output.path)), output.option);
        if (!is_new) {
            throw Error(ErrorCode::usage, other->second + " and " + output.option + " both name " +
                                              output.path.string() + "; give two names");
        }
        for (const auto& input : inputs) {
            if (!input.empty()) refuse_input(output, input);
        }
        refuse_place(output, overwrite);
    }
}

}  // namespace mha2mla::tool

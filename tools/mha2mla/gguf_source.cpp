#include "gguf_source.hpp"

#include <array>
#include <fstream>
#include <string_view>

#include "method.hpp"
#include "mha2mla/checkpoint_writer.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla::tool {
namespace fs = std::filesystem;

bool is_gguf(const fs::path& path) {
    std::error_code ignored;
    if (!fs::is_regular_file(path, ignored)) return false;
    if (path.extension() == ".gguf") return true;
    std::array<char, 4> magic{};
    std::ifstream(path, std::ios::binary).read(magic.data(), magic.size());
    return std::string_view(magic.data(), magic.size()) == "GGUF";
}

ImportedSource::ImportedSource(const ConvertFlags& flags, Context& context) : directory_(flags.source) {
    if (!is_gguf(flags.source)) return;
    check_method(flags);
    if (!flags.resume && !flags.overwrite) check_output_directory(flags.destination, false);
    for (const auto& file : {flags.statistics.text.text, flags.statistics.text.tokens, flags.statistics.stats,
                             flags.statistics.rank_file, flags.evaluation.text, flags.evaluation.tokens}) {
        std::error_code ignored;
        if (file.empty() || file == "-" || fs::exists(file, ignored)) continue;
        throw Error(ErrorCode::io, file.string() + ": there is no such file");
    }
    const fs::path output = (flags.destination / "").parent_path();  // also of a path that ends with a slash
    const fs::path place = output.parent_path() / ("." + output.filename().string() + ".mha2mla.imported");
    imported_.emplace(flags.source, place, flags.request.dtype, context.observer);
    directory_ = imported_->directory();
}

}  // namespace mha2mla::tool
